"""Prompts and completions as tokens: what is kept, what is cut, and what a chat template makes of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import example as case
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import CHAT_TEMPLATE, tiny_chat_tokenizer, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pomona.backbone.prompts import completion_tokens, end_of_turn, prompt_tokens
from pomona.data import Example, Turn
from pomona.errors import InputError

BOS, EOS, TURN, END = 1, 2, 3, 4
AFTER = "\n\nSummary:"
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def example(text: str, after: str = AFTER, before: str = "", chat: bool = False, **changes: Any) -> Example:
    """A prompt with a body between two parts of a frame."""
    body = (len(before), len(before) + len(text))
    made = Example(
        "one", before + text + after, "Yes." if chat else " Yes.", ("Yes.",), text, history=() if chat else None, body=body
    )
    return dataclasses.replace(made, **changes)


def ids(text: str, tokenizer: Any = None) -> list[int]:
    """The text's tokens without special ones of the tokenizer's own."""
    return (tokenizer or tiny_tokenizer())(text, add_special_tokens=False)["input_ids"]


def shown(tokens: Any, tokenizer: Any = None) -> str:
    return str((tokenizer or tiny_tokenizer()).decode(list(tokens)))


# The base form ----------------------------------------------------------------------------------------------------------


def test_a_prompt_that_fits_stands_as_it_is() -> None:
    found = prompt_tokens(tiny_tokenizer(), example(LETTERS), 1000)
    assert found.tokens == (BOS, *ids(LETTERS + AFTER))
    assert found.cut == 0
    assert prompt_tokens(tiny_tokenizer(), example(LETTERS), len(found.tokens)) == found


def test_the_body_loses_its_end_and_what_frames_it_stays() -> None:
    """In these texts every letter is a token, so that the room says how many letters stay."""
    letters, before = "qxz" * 20, "Kk "
    assert len(ids(letters)) == 60
    frame = 1 + len(ids(before)) + len(ids(AFTER))
    for kept in (1, 7, 59):
        found = prompt_tokens(tiny_tokenizer(), example(letters, before=before), frame + kept)
        assert shown(found.tokens) == f"<s>{before}{letters[:kept]}{AFTER}"
        assert found.cut == 60 - kept


def test_white_space_at_the_cut_goes_too() -> None:
    words = "q x z q x z"
    frame = 1 + len(ids(AFTER))
    for room in range(frame, frame + len(ids(words))):
        body = shown(prompt_tokens(tiny_tokenizer(), example(words), room).tokens[1:]).removesuffix(AFTER)
        assert words.startswith(body)
        assert body == body.rstrip()


def test_a_body_may_vanish_and_then_the_frame_loses_its_beginning_but_for_the_opening_token() -> None:
    before = "Kk Jj"
    frame = ids(before + AFTER)
    whole = len(ids(before + LETTERS + AFTER)) + 1
    for room in range(1, len(frame) + 2):
        found = prompt_tokens(tiny_tokenizer(), example(LETTERS, before=before), room)
        assert found.tokens == ((BOS, *frame[len(frame) - room + 1 :]) if room > 1 else (frame[-1],))
        assert found.cut == whole - room


def test_without_a_body_the_prompt_loses_its_beginning_but_for_the_opening_token() -> None:
    found = prompt_tokens(tiny_tokenizer(), example("qxzqxzqxz", body=None), 6)
    assert found.tokens == (BOS, *ids("qxzqxzqxz" + AFTER)[-5:])
    assert found.cut == 1 + len(ids("qxzqxzqxz" + AFTER)) - 6


def test_an_empty_body_has_nothing_to_lose() -> None:
    found = prompt_tokens(tiny_tokenizer(), example("", before="qxzqxzqxz"), 6)
    assert found.tokens == (BOS, *ids("qxzqxzqxz" + AFTER)[-5:])


def test_an_empty_prompt_is_refused_where_nothing_opens_a_text() -> None:
    tokenizer = spaced_tokenizer()
    with pytest.raises(InputError, match="example 'one': its prompt is empty, so there is nothing to go on from"):
        prompt_tokens(tokenizer, example("", after=""), 5)
    assert prompt_tokens(tiny_tokenizer(), example("", after=""), 5).tokens == (BOS,)


SCRIPTS = st.sampled_from(
    [*"ab .\n\t", "Return ", "the ", "سلام", "عليكم ", "ً", "红狐", "，", "日本", "語", "\U0001f98a", "👩‍🌾", "é", "e\u0301", "</s>"]
)  # fmt: skip
TEXTS = st.lists(SCRIPTS, max_size=40).map("".join)


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.sampled_from(["", "Text: ", "問題："]), st.integers(1, 80), st.booleans())
@case("日本語" * 10, "", 16, False)
@case("👩‍🌾" * 10, "", 16, False)
def test_any_text_is_made_to_fit_and_loses_no_more_than_it_must(body: str, before: str, room: int, chat: bool) -> None:
    tokenizer = tiny_chat_tokenizer() if chat else tiny_tokenizer()
    given = example(body, before=before, chat=chat)
    whole = prompt_tokens(tokenizer, given, 10_000)
    assert whole.cut == 0
    found = prompt_tokens(tokenizer, given, room)
    assert 1 <= len(found.tokens) <= room
    assert found.cut == len(whole.tokens) - len(found.tokens)
    if len(whole.tokens) <= room:
        assert found == whole
    frame = prompt_tokens(tokenizer, example("", before=before, chat=chat), 10_000)
    if len(frame.tokens) > room:
        return
    # The frame fits: it stands, and what is left of the body is its beginning.
    start, end = shown(frame.tokens, tokenizer).split(before + AFTER) if chat else ("<s>", "")
    text = shown(found.tokens, tokenizer)
    assert text.startswith(start + before)
    assert text.endswith(AFTER + end)
    kept = text[len(start + before) : len(text) - len(AFTER + end)]
    assert body.startswith(kept)
    # As much as fits, but for the white space at the cut: with the next character it would be too long.
    if len(whole.tokens) > room:
        rest = body[len(kept) :]
        more = len(kept) + len(rest) - len(rest.lstrip()) + 1
        longer = prompt_tokens(tokenizer, example(body[:more], before=before, chat=chat), 10_000)
        assert len(longer.tokens) > room


def test_a_long_document_is_cut_in_a_few_steps() -> None:
    """Every try tokenises the prompt anew: the first guess must be near."""

    class Counting:
        def __init__(self) -> None:
            self.texts = 0

        def __call__(self, text: str, add_special_tokens: bool) -> Any:
            self.texts += 1
            return tiny_tokenizer()(text, add_special_tokens=add_special_tokens)

        def __getattr__(self, name: str) -> Any:
            return getattr(tiny_tokenizer(), name)

    for body in ("Return the sum of all values. " * 300, "日本語の文章。" * 300, "\U0001f98a" * 800):
        tokenizer: Any = Counting()
        found = prompt_tokens(tokenizer, example(body), 200)
        assert 195 <= len(found.tokens) <= 200
        assert tokenizer.texts <= 9


def test_the_completion_is_the_target_and_the_end_token() -> None:
    assert completion_tokens(tiny_tokenizer(), example("x")) == (*ids(" Yes."), EOS)


# The chat form ----------------------------------------------------------------------------------------------------------


def test_a_conversation_is_rendered_by_the_model_s_own_template() -> None:
    tokenizer = tiny_chat_tokenizer()
    given = Example(
        "one", "Bye?", "Bye.", ("Bye.",), "", history=(Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Ho"))
    )
    text = (
        "<s><|turn|>system\nBe brief.<|end|>\n<|turn|>user\nHi<|end|>\n<|turn|>assistant\nHo<|end|>\n"
        "<|turn|>user\nBye?<|end|>\n<|turn|>assistant\n"
    )  # fmt: skip
    # The template writes the opening token itself: there is one, not two.
    assert prompt_tokens(tokenizer, given, 1000).tokens == tuple(ids(text, tokenizer))
    assert completion_tokens(tokenizer, given) == (*ids("Bye.", tokenizer), END)


def test_prompt_and_completion_are_the_whole_conversation() -> None:
    """Up to the end of the answer's turn: what a template writes after it is no part of the answer."""
    tokenizer = tiny_chat_tokenizer()
    given = example("Return the sum", chat=True)
    messages = [{"role": "user", "content": given.prompt}, {"role": "assistant", "content": given.target}]
    whole: Any = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert whole[-1:] == ids("\n", tokenizer)
    assert [*prompt_tokens(tokenizer, given, 1000).tokens, *completion_tokens(tokenizer, given)] == whole[:-1]


def test_a_turn_that_is_too_long_loses_the_end_of_its_body_and_nothing_around_it() -> None:
    tokenizer = tiny_chat_tokenizer()
    given = example("qxz" * 20, before="Kk ", chat=True, history=(Turn("system", "Be brief."),))
    whole = prompt_tokens(tokenizer, given, 1000)
    found = prompt_tokens(tokenizer, given, len(whole.tokens) - 50)
    assert found.cut == 50
    assert shown(found.tokens, tokenizer) == (
        f"<s><|turn|>system\nBe brief.<|end|>\n<|turn|>user\nKk {'qxz' * 20:.10}{AFTER}<|end|>\n<|turn|>assistant\n"
    )


def test_a_turn_without_a_body_loses_the_conversation_s_beginning() -> None:
    tokenizer = tiny_chat_tokenizer()
    given = example("qxz" * 20, chat=True, body=None, history=(Turn("system", "Be brief."),))
    whole = prompt_tokens(tokenizer, given, 1000)
    assert prompt_tokens(tokenizer, given, 30).tokens == (BOS, *whole.tokens[-29:])


def test_the_end_of_a_turn_is_found_where_the_tokenizer_has_no_name_for_it() -> None:
    tokenizer = tiny_chat_tokenizer()
    assert END not in tokenizer.all_special_ids
    assert end_of_turn(tokenizer) == END
    assert end_of_turn(tiny_tokenizer()) is None


def test_a_turn_that_no_token_of_its_own_ends_is_closed_by_the_end_token() -> None:
    each = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    plain = each + "{% if add_generation_prompt %}assistant:{% endif %}"
    tokenizer = tiny_chat_tokenizer(plain)
    given = example("x", chat=True, target="Yes.")
    assert completion_tokens(tokenizer, given) == (*ids(" Yes.\n", tokenizer), EOS)
    assert end_of_turn(tokenizer) == EOS
    tokenizer = copy_without_end(tokenizer)
    assert completion_tokens(tokenizer, given) == tuple(ids(" Yes.\n", tokenizer))
    assert end_of_turn(tokenizer) is None  # and not whatever token the answer of the probe ended in


def test_a_template_that_opens_no_answer_does_not_lose_the_target() -> None:
    """It ignores that an answer is to follow, and names the role by a special token after which none ends the turn.

    The role's name belongs to the prompt: a model that is asked for an answer need not say who speaks.
    """
    tokenizer = tiny_chat_tokenizer("{% for message in messages %}<|turn|>{{ message.role }}\n{{ message.content }}\n{% endfor %}")
    given = example("x", chat=True)
    assert shown(prompt_tokens(tokenizer, given, 1000).tokens, tokenizer) == f"<|turn|>user\nx{AFTER}\n<|turn|>assistant\n"
    assert completion_tokens(tokenizer, given) == (*ids("Yes.\n", tokenizer), EOS)


def test_special_tokens_in_an_answer_are_not_its_end() -> None:
    tokenizer = tiny_chat_tokenizer()
    found = completion_tokens(tokenizer, example("x", chat=True, target="a<|end|>b"))
    assert found == (*ids("a", tokenizer), END, *ids("b", tokenizer), END)


def test_an_answer_s_first_token_is_that_of_the_conversation_and_not_of_a_text_of_its_own() -> None:
    """Tokenizers that open a text with a space would give an answer another first token by itself than after a turn."""
    tokenizer = spaced_tokenizer()
    each = "{% for message in messages %}<|turn|>{{ message.content }}<|end|>{% endfor %}"
    tokenizer.chat_template = each + "{% if add_generation_prompt %}<|turn|>{% endif %}"
    pieces = tokenizer.convert_ids_to_tokens(
        list(completion_tokens(tokenizer, example("there", after="", chat=True, target="hello")))
    )
    assert pieces[0] == "he"
    assert pieces[-1] == "<|end|>"
    assert tokenizer.convert_ids_to_tokens(ids("hello", tokenizer))[0].startswith("▁")


def test_without_a_template_there_is_no_chat_form() -> None:
    for make in (
        lambda: prompt_tokens(tiny_tokenizer(), example("x", chat=True), 10),
        lambda: completion_tokens(tiny_tokenizer(), example("x", chat=True)),
    ):
        with pytest.raises(InputError, match=r"form: the model has no chat template \(got 'chat'\). Use the base form"):
            make()


def test_what_a_template_says_against_a_conversation_is_said() -> None:
    no_system = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role\nnot supported') }}{% endif %}" + CHAT_TEMPLATE
    )
    tokenizer = tiny_chat_tokenizer(no_system)
    with pytest.raises(InputError, match="the model's chat template refuses the conversation: System role not supported"):
        prompt_tokens(tokenizer, example("x", chat=True, history=(Turn("system", "Be brief."),)), 100)
    assert prompt_tokens(tokenizer, example("x", chat=True), 100).cut == 0


@pytest.mark.parametrize("template", ["{{ messages.nothing.there }}", "{% for %}", "{{ 1 / 0 }}"])
def test_a_template_that_is_broken_is_an_input_error(template: str) -> None:
    with pytest.raises(InputError, match="the model's chat template refuses the conversation"):
        prompt_tokens(tiny_chat_tokenizer(template), example("x", chat=True), 100)


def test_a_template_that_rewrites_text_before_an_answer_is_refused() -> None:
    counted = "{{ messages | length }}" + CHAT_TEMPLATE
    with pytest.raises(InputError, match="example 'one': the model's chat template changes what stands before an answer"):
        completion_tokens(tiny_chat_tokenizer(counted), example("x", chat=True))


def copy_without_end(tokenizer: Any) -> Any:
    """The tokenizer of a model that has no end token."""
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.eos_token = None
    return bare


def spaced_tokenizer() -> Any:
    """As sentence-piece: a space belongs to the word that follows it, and a text is opened by one. Adds no special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    special = ["<pad>", "<s>", "</s>", "<|turn|>", "<|end|>"]
    tokenizer.train_from_iterator(["hello there"], trainers.BpeTrainer(vocab_size=22, special_tokens=special, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
