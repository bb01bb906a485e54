"""Chat templates that write more between a prompt and its answer than they give when an answer is asked for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from tests.tiny import CHAT_TEMPLATE, tiny_chat_tokenizer

from pomona.backbone.batches import encode
from pomona.backbone.chat_template import frame, template_warnings
from pomona.backbone.prompts import completion_tokens, end_of_turn, prompt_tokens
from pomona.data import Example, Turn
from pomona.errors import InputError

END = 4
OPENED = "<s><|turn|>user\nIs it?<|end|>\n<|turn|>assistant\n"
EMPTY = "<think>\n\n</think>\n\n"

# As Qwen3's: thoughts are taken from the content or left empty; of earlier answers they are dropped.
QWEN_3 = (
    "{{ bos_token }}{% for message in messages %}{% set content = message.content %}{% set thoughts = '' %}"
    "{% if message.role == 'assistant' and '</think>' in content %}"
    "{% set thoughts = content.split('</think>')[0].split('<think>')[-1].strip() %}"
    "{% set content = content.split('</think>')[-1].lstrip() %}{% endif %}"
    "<|turn|>{{ message.role }}\n"
    "{% if message.role == 'assistant' and loop.last %}<think>\n{{ thoughts }}\n</think>\n\n{% endif %}"
    "{{ content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
PLAIN = "{{ bos_token }}{% for message in messages %}<|turn|>{{ message.role }}\n{{ message.content }}<|end|>\n{% endfor %}"
# Asked for an answer it opens thoughts (as Qwen3-Thinking's), and before a given answer it closes them.
ALWAYS_THINKS = PLAIN.replace(
    "{{ message.content }}", "{% if message.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ message.content }}"
) + ("{% if add_generation_prompt %}<|turn|>assistant\n<think>\n{% endif %}")
# Asked for an answer it opens thoughts, and before a given answer it writes none (as DeepSeek-R1's).
DROPS_THOUGHTS = (
    "{{ bos_token }}{% for message in messages %}<|turn|>{{ message.role }}\n{{ message.content.split('</think>')[-1] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|turn|>assistant\n<think>\n{% endif %}"
)
# As GPT-OSS's: an answer has a channel, which whoever asks leaves to the model.
CHANNELS = (
    "{{ bos_token }}{% for message in messages %}<|turn|>{{ message.role }}"
    "{% if message.role == 'assistant' %} channel final{% endif %}{{ '\n' }}"
    "{{ message.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|turn|>assistant{% endif %}"
)


def asked(target: str = "yes", **arguments: Any) -> Example:
    return Example("one", "Is it?", target, (target,), "", history=(), template_arguments=tuple(sorted(arguments.items())))


def parts(template: str, example: Example) -> tuple[str, str]:
    """Prompt and completion as texts, as training and generation have them."""
    tokenizer = tiny_chat_tokenizer(template)
    (encoded,), _ = encode([example], tokenizer, 1000)
    prompt = encoded.tokens[: encoded.completion_start]
    assert prompt == prompt_tokens(tokenizer, example, 1000).tokens  # what generation gives
    assert encoded.tokens[len(prompt) :] == completion_tokens(tokenizer, example)
    return str(tokenizer.decode(list(prompt))), str(tokenizer.decode(list(encoded.tokens[len(prompt) :])))


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        (QWEN_3, OPENED + EMPTY),
        (ALWAYS_THINKS, OPENED + EMPTY),
        (DROPS_THOUGHTS, OPENED),
        (CHANNELS, OPENED[:-1] + " channel final\n"),
        (CHAT_TEMPLATE, OPENED),
    ],
    ids=["Qwen3", "always thinks", "drops thoughts", "channels", "plain"],
)
@pytest.mark.parametrize("target", ["yes", "t", "think", "<|end|>", "</think>"])
def test_all_that_stands_before_any_answer_is_the_prompt(template: str, prompt: str, target: str) -> None:
    if target == "</think>" and "split" in template:
        return  # such a template leaves out what it takes for thoughts
    assert parts(template, asked(target)) == (prompt, f"{target}<|end|>")
    assert end_of_turn(tiny_chat_tokenizer(template)) == END


def test_an_argument_of_the_template_gives_the_same_tokens_as_the_probe() -> None:
    assert parts(QWEN_3, asked(enable_thinking=False)) == parts(QWEN_3, asked())
    found = frame(tiny_chat_tokenizer(QWEN_3), asked(enable_thinking=False))
    assert (found.opened, found.lead) == (OPENED + EMPTY, "")


def test_who_asks_for_thoughts_trains_on_them() -> None:
    assert parts(QWEN_3, asked(enable_thinking=True)) == (OPENED, f"{EMPTY}yes<|end|>")
    (warning,) = template_warnings(tiny_chat_tokenizer(QWEN_3), [asked(enable_thinking=True)])
    assert warning.startswith("the model's chat template puts thoughts before each answer, and template_arguments ask for them")


def test_an_answer_s_own_thoughts_are_its_own() -> None:
    given = asked("<think>\nIt may be.\n</think>\n\nyes")
    assert parts(QWEN_3, given) == (OPENED, "<think>\nIt may be.\n</think>\n\nyes<|end|>")
    assert template_warnings(tiny_chat_tokenizer(QWEN_3), [given]) == []


def test_earlier_turns_do_not_matter() -> None:
    history = (Turn("user", "Hi"), Turn("assistant", "<think>\nHm.\n</think>\n\nHo"))
    prompt, completion = parts(QWEN_3, dataclasses.replace(asked(), history=history))
    assert prompt == f"<s><|turn|>user\nHi<|end|>\n<|turn|>assistant\nHo<|end|>\n{OPENED[3:]}{EMPTY}"
    assert completion == "yes<|end|>"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (QWEN_3, r"puts '<think>\n\n</think>\n\n' between a prompt and its answer: it counts as part of the prompt"),
        (CHANNELS, r"puts ' channel final\n' between a prompt and its answer"),
        (DROPS_THOUGHTS, r"puts '<think>\n' before an answer that is asked for, and not before one that is given"),
        ("{{ strftime_now('%d %b') }}" + CHAT_TEMPLATE, "writes today's date, so a run on another day has other prompts"),
    ],
    ids=["Qwen3", "channels", "drops thoughts", "a date"],
)
def test_what_a_template_adds_is_said(template: str, said: str) -> None:
    (warning,) = template_warnings(tiny_chat_tokenizer(template), [asked()])
    assert said in warning


def test_a_plain_template_has_nothing_to_say() -> None:
    assert template_warnings(tiny_chat_tokenizer(), [asked()]) == []
    assert template_warnings(tiny_chat_tokenizer("{{ strftime_now('%d') }}"), [dataclasses.replace(asked(), history=None)]) == []


def test_a_date_that_is_given_is_no_longer_today_s() -> None:
    template = (
        "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b') %}{% endif %}{{ date_string }}"
        + CHAT_TEMPLATE
    )
    given = asked(date_string="1 Jan")
    assert template_warnings(tiny_chat_tokenizer(template), [given]) == []
    assert parts(template, given)[0] == "1 Jan" + OPENED


def test_an_argument_that_the_template_does_not_know_is_refused() -> None:
    with pytest.raises(
        InputError,
        match=r"template_arguments: .* has no such argument.*'enable_thinkin'.*Did you mean 'enable_thinking'",
    ):
        prompt_tokens(tiny_chat_tokenizer(QWEN_3), asked(enable_thinkin=False), 100)


def test_a_template_that_leaves_the_answer_out_is_refused() -> None:
    template = "{% for message in messages if message.role == 'user' %}{{ message.content }}{% endfor %}"
    with pytest.raises(InputError, match="example 'one': the model's chat template does not write the answer"):
        completion_tokens(tiny_chat_tokenizer(template), asked())
