"""`pomona generate` through the front door: texts, conversations, and what ends an answer."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from tests.backbone.test_chat_template import QWEN_3
from tests.end_to_end.setting import call
from tests.tiny import (
    save_tiny_model,
    scripted_backbone,
    texts_of,
    tiny_adapter,
    tiny_backbone,
    tiny_chat_tokenizer,
    tiny_tokenizer,
)

from pomona.adapters import write_adapter
from pomona.backbone.attach import attached
from pomona.backbone.decoding import Decoding
from pomona.backbone.generate import generate as answers_of
from pomona.backbone.load import Backbone

PROMPTS = ("Return the sum of all values", "Raise", "日本語")
SHORT = ("--model", "model", "--max-new-tokens", "6")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generate")
    save_tiny_model(folder / "model")
    save_tiny_model(folder / "chat", tokenizer=tiny_chat_tokenizer())
    write_adapter(tiny_adapter(tiny_backbone(), seed=4, size=0.5), folder / "adapter")
    return folder


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


def told(folder: Path, *arguments: str) -> list[Any]:
    """What is printed with `--json`: an object a prompt."""
    outcome = call(folder, "generate", *arguments, "--json")
    assert outcome.code == 0, outcome.err
    found = [json.loads(line) for line in outcome.out.splitlines()]
    said = [line.removeprefix("warning: ") for line in outcome.err.splitlines()]
    assert all(one.pop("warnings") == said for one in found)
    return found


def expected(backbone: Backbone, *prompts: str, **settings: Any) -> list[str]:
    arguments: dict[str, Any] = {"max_new_tokens": 6, "batch_size": 8, "stop_at_line_end": False} | settings
    return texts_of(answers_of(backbone, prompts, **arguments))


def test_texts_go_on_with_and_without_an_adapter(folder: Path, backbone: Backbone) -> None:
    bare = expected(backbone, *PROMPTS)
    assert told(folder, *PROMPTS, *SHORT) == [
        {"prompt": prompt, "text": text, "ended": False} for prompt, text in zip(PROMPTS, bare, strict=True)
    ]
    with attached(backbone, [tiny_adapter(backbone, seed=4, size=0.5)]) as attachment, attachment.folded():
        adapted = expected(backbone, *PROMPTS)
    assert adapted != bare
    assert [one["text"] for one in told(folder, *PROMPTS, *SHORT, "--adapter", "adapter")] == adapted


def test_plain_output_is_the_texts(folder: Path, backbone: Backbone) -> None:
    outcome = call(folder, "generate", *PROMPTS, *SHORT)
    assert outcome.out == "".join(f"{text}\n" for text in expected(backbone, *PROMPTS))
    assert outcome.err == ""


def test_a_prompt_from_standard_input_gets_no_additional_line_end(
    folder: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    for typed, prompt in (("Raise\n", "Raise"), ("Raise", "Raise"), ("a\n\nb:\n\n", "a\n\nb:\n")):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        assert told(folder, "-", *SHORT) == [{"prompt": prompt, "text": expected(backbone, prompt)[0], "ended": False}]


def test_a_message_in_the_model_s_own_chat_template(folder: Path, backbone: Backbone) -> None:
    """The tiny models' weights are the same, whatever their tokenizer."""
    chat = Backbone(backbone.model, tiny_chat_tokenizer(), "chat")
    turn = "<|turn|>user\nRaise<|end|>\n<|turn|>assistant\n"
    arguments = ("Raise", "--model", "chat", "--max-new-tokens", "6")
    plain, asked, brief = expected(chat, "Raise"), expected(chat, turn), expected(chat, f"<|turn|>system\nBe brief.<|end|>\n{turn}")
    assert len({*plain, *asked, *brief}) == 3
    assert [one["text"] for one in told(folder, *arguments)] == plain
    assert [one["text"] for one in told(folder, *arguments, "--chat")] == asked
    assert [one["text"] for one in told(folder, *arguments, "--chat", "--system", "Be brief.")] == brief


def test_stop_texts_end_an_answer(folder: Path, backbone: Backbone) -> None:
    (text,) = expected(backbone, "Raise")
    (one,) = told(folder, "Raise", *SHORT, "--stop", "nowhere", "--stop", text[2:4])
    assert one == {"prompt": "Raise", "text": text[: text.index(text[2:4])], "ended": True}


def test_an_answer_of_one_line(folder: Path) -> None:
    scripted = scripted_backbone({"q": "\n", "\n": "x", "x": "y", "y": "\n"})
    scripted.model.save_pretrained(folder / "scripted")
    scripted.tokenizer.save_pretrained(folder / "scripted")
    arguments = ("q", "--model", "scripted", "--max-new-tokens", "6")
    assert told(folder, *arguments) == [{"prompt": "q", "text": "\nxy\nxy", "ended": False}]
    assert told(folder, *arguments, "--line") == [{"prompt": "q", "text": "\nxy\n", "ended": True}]


def test_decoding(folder: Path, backbone: Backbone) -> None:
    for words, decoding in (
        (("num_beams=3", "length_penalty=2"), Decoding(num_beams=3, length_penalty=2.0)),
        (("temperature=3", "top_k=40", "seed=2"), Decoding(temperature=3.0, top_k=40, seed=2)),
        (("repetition_penalty=2",), Decoding(repetition_penalty=2.0)),
    ):
        options = [word for one in words for word in ("--decode", one)]
        found = [one["text"] for one in told(folder, *PROMPTS, *SHORT, *options)]
        assert found == expected(backbone, *PROMPTS, decoding=decoding) != expected(backbone, *PROMPTS)


def test_a_prompt_longer_than_the_context_loses_its_beginning_with_a_warning(folder: Path, backbone: Backbone) -> None:
    long = "x y " * 300
    tokens: Any = tiny_tokenizer()(long)["input_ids"]
    outcome = call(folder, "generate", long, *SHORT, "--json")
    assert outcome.code == 0
    assert outcome.err == (
        "warning: too long for the model's context beside --max-new-tokens 6, and cut at the beginning: "
        f"1 of 1 prompts, by {len(tokens) - 506} tokens in all\n"
    )
    (answer,) = answers_of(backbone, [[1, *tokens[-505:]]], max_new_tokens=6, batch_size=1, stop_at_line_end=False)
    assert answer is not None
    assert json.loads(outcome.out)["text"] == answer.text


def test_a_prompt_that_memory_does_not_hold_has_no_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pomona.backbone.generate.generate", lambda backbone, prompts, **_: [None] * len(prompts))
    assert told(folder, "x", *SHORT) == [{"prompt": "x", "text": None, "ended": None}]
    assert call(folder, "generate", "x", *SHORT).out == "\n"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("x", "--system", "Be brief."), "--system: only a conversation has a system's message (got 'Be brief.')"),
        (("x", "--stop", ""), "--stop: an empty text ends nothing (got '')"),
        (("x", "--decode", "beams=2"), "--decode: no such setting (got 'beams'). Did you mean"),
        (("x", "--decode", "top_k=-1"), "top_k: a whole number of at least 0 is expected (got -1)"),
        (("x", "--adapter", "nowhere"), "nowhere: no such folder"),
        (("x", "--max-new-tokens", "0"), "--max-new-tokens"),
        ((), "Missing argument"),
    ],
)  # fmt: skip
def test_wrong_input_is_said_before_a_model_is_loaded(
    folder: Path, arguments: tuple[str, ...], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pomona.backbone.load.load_backbone", lambda *_: pytest.fail("a model was loaded"))
    refused(folder, arguments, part)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("x", "--model", "nowhere/at/all"), "model: no such model folder"),
        (("x", "--model", "model", "--max-new-tokens", "512"), "--max-new-tokens: leaves no room for a prompt"),
        (("x", "--model", "model", "--chat"), "form: the model has no chat template"),
    ],
)
def test_what_only_the_model_can_tell(folder: Path, arguments: tuple[str, ...], part: str) -> None:
    refused(folder, arguments, part)


def refused(folder: Path, arguments: tuple[str, ...], part: str) -> None:
    outcome = call(folder, "generate", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = outcome.errors
    assert part in line


def test_additions_of_a_chat_template_are_reported_and_it_gets_its_arguments(folder: Path) -> None:
    save_tiny_model(folder / "thinks", tokenizer=tiny_chat_tokenizer(QWEN_3))
    asked = ("Raise", "--model", "thinks", "--max-new-tokens", "6", "--chat")
    outcome = call(folder, "generate", *asked)
    assert outcome.err.startswith("warning: the model's chat template puts '<think>\\n\\n</think>\\n\\n' between a prompt and")
    given = call(folder, "generate", *asked, "--template-argument", "enable_thinking=false")
    assert (given.out, given.err) == (outcome.out, "")
    other = call(folder, "generate", *asked, "--template-argument", "enable_thinkin=false")
    assert (other.code, "enable_thinking" in other.err) == (2, True)
    plain = call(folder, "generate", "Raise", *SHORT, "--template-argument", "enable_thinking=false")
    assert (plain.code, plain.err.split(" (got")[0]) == (2, "error: template_arguments: are for the chat form only")
