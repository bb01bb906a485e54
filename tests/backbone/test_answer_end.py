"""When an answer has ended, token by token, and which text is left of it."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.tiny import save_tiny_model, tiny_backbone, tiny_chat_tokenizer, tiny_tokenizer

from pomona.backbone.answer_end import AnswerEnd, end_tokens
from pomona.backbone.load import Backbone, load_backbone
from pomona.errors import InputError

EOS, END = 2, 4


def end(*, line: bool = False, stop: tuple[str, ...] = (), tokens: tuple[int, ...] = (EOS,)) -> AnswerEnd:
    return AnswerEnd(tiny_tokenizer(), frozenset(tokens), line, stop)


def ids(text: str) -> list[int]:
    return tiny_tokenizer()(text, add_special_tokens=False)["input_ids"]  # pyright: ignore[reportReturnType]


def ended_after(rule: AnswerEnd, tokens: list[int]) -> int | None:
    """How many tokens it takes until the answer has ended."""
    return next((count for count in range(1, len(tokens) + 1) if rule(tokens[:count])), None)


def test_an_end_token_ends_an_answer_and_is_no_part_of_its_text() -> None:
    tokens = [*ids("qxz"), EOS, *ids("more")]
    assert ended_after(end(), tokens) == 4
    assert end().trimmed(tokens) == tokens[:4]
    assert end().text(tokens[:4]) == "qxz"


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("qx\nz", 3),
        ("\nqx\nz", 4),  # a line end before any text is none
        (" \n q\n\n", 5),
        ("\n\n\n", None),
        ("qxz", None),
        ("q\rx\u2028z", None),  # a line ends in a line feed only
    ],
)
def test_a_line_end_ends_an_answer_once_it_has_begun(text: str, length: int | None) -> None:
    tokens = ids(text)
    assert ended_after(end(line=True), tokens) == length
    assert ended_after(end(), tokens) is None
    assert end(line=True).trimmed(tokens) == tokens[:length]


def test_text_and_line_end_in_one_token_end_an_answer_too() -> None:
    """Tokenizers of today have tokens such as `.` and a line end in one."""

    class Pieces:
        def decode(self, tokens: list[int]) -> str:
            return "".join({1: " ", 2: ".\n", 3: "\n\n", 4: "a"}[token] for token in tokens)

    rule = AnswerEnd(Pieces(), frozenset(), True, ())  # pyright: ignore[reportArgumentType]
    assert [rule(answer) for answer in ([2], [1, 2], [4, 3], [3], [1, 3], [3, 2], [4], [3, 4])] == [True] * 3 + [False] * 2 + [
        True
    ] + [False] * 2


@pytest.mark.parametrize(
    ("stop", "text", "length", "kept"),
    [
        (("xz",), "qxzq", 3, "q"),  # spread over two tokens
        (("zzz", "x"), "qxz", 2, "q"),  # any of them
        (("\n\n",), "\n\nq\n\nx", 5, "\n\nq"),  # white space before the answer does not count
        ((" ",), "  q x", 4, "  q"),
        (("q",), "qx", 1, ""),  # the answer begins with it: there is none
        (("語",), "日本語", 9, "日本"),  # a character of three tokens
        (("x",), "日本", None, "日本"),
        (("ab", "b"), "qab", 3, "q"),  # the one that begins first cuts
    ],
)
def test_a_stop_text_ends_an_answer_and_is_cut_off(stop: tuple[str, ...], text: str, length: int | None, kept: str) -> None:
    rule, tokens = end(stop=stop), ids(text)
    assert ended_after(rule, tokens) == length
    assert rule.text(rule.trimmed(tokens)) == kept


def test_the_end_tokens_are_the_tokenizer_s_the_model_s_and_the_template_s() -> None:
    def found(published: object, tokenizer: Any = None) -> set[int]:
        model: Any = SimpleNamespace(generation_config=None if published is None else SimpleNamespace(eos_token_id=published))
        return set(AnswerEnd.of(Backbone(model, tokenizer or tiny_tokenizer(), "x"), line=False, stop=()).tokens)

    assert found(None) == {EOS}
    assert found([7, 9]) == {EOS, 7, 9}
    assert found(7) == {EOS, 7}
    assert found([7], tiny_chat_tokenizer()) == {EOS, END, 7}
    refuses = "{% if messages | length > 1 %}{{ raise_exception('one turn only') }}{% endif %}x"
    assert found(None, tiny_chat_tokenizer(refuses)) == {EOS}
    assert AnswerEnd.of(tiny_backbone(), line=True, stop=("x",)).tokens == {EOS}


# Thoughts before the answer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<think>\n\n</think>\n\nqx\n", "<think>\n\n</think>\n\nqx\n"),
        ("<think>a\n\nb.</think>\nqx\nz", "<think>a\n\nb.</think>\nqx\n"),
        (" \n<think>a\nb\n", None),  # they have not ended
        ("q <think>\nb", "q <think>\n"),  # a tag within an answer is text
    ],
)
def test_line_ends_within_thoughts_end_nothing(text: str, said: str | None) -> None:
    tokens = ids(text)
    length = ended_after(end(line=True), tokens)
    assert (length and tiny_tokenizer().decode(tokens[:length])) == said


def test_stops_within_thoughts_end_nothing() -> None:
    rule = end(stop=("zz",))
    tokens = ids("<think>zz</think>qzzx")
    assert str(tiny_tokenizer().decode(tokens[: ended_after(rule, tokens)])).endswith("qzz")
    assert rule.text(tokens) == "<think>zz</think>q"
    assert ended_after(rule, ids("<think>zz")) is None
    assert rule.text(ids("<think>zz")) == "<think>zz"


def test_tags_that_are_special_tokens_stay_in_the_text() -> None:
    """A task reads the answer behind them: without the tags the thoughts would be the answer."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})  # pyright: ignore[reportCallIssue]
    tokens: Any = tokenizer("<think>\nqx\n</think>\n\nz", add_special_tokens=False)["input_ids"]
    assert "think" not in str(tokenizer.decode(tokens, skip_special_tokens=True))
    rule = AnswerEnd(tokenizer, frozenset({EOS}), line=True, stop=())
    assert rule.text([*tokens, EOS]) == "<think>\nqx\n</think>\n\nz"
    assert rule.text(tokens[:4]) == "<think>\nqx"
    assert ended_after(rule, tokens) is None


@pytest.mark.parametrize(("published", "tokens"), [(None, []), (2, [2]), ([2, 5], [2, 5])])
def test_end_tokens_are_numbers(published: object, tokens: list[int]) -> None:
    assert end_tokens(published) == tokens


@pytest.mark.parametrize("published", ["abc", ["2"], True, 2.0, {"id": 2}, [None]])
def test_other_end_tokens_are_refused(published: object) -> None:
    with pytest.raises(InputError, match=r"generation_config\.json: eos_token_id: a token's number"):
        end_tokens(published)


def test_they_are_looked_at_when_the_model_is_loaded(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text('{"eos_token_id": "abc"}')
    with pytest.raises(InputError, match="eos_token_id"):
        load_backbone(str(tmp_path / "model"), device="cpu")
