"""Ways to decode: what is refused, what transformers makes of the same settings, and whether draws are what they should be."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import Counter
from typing import Any

import pytest
import torch
from tests.tiny import scripted_backbone, texts_of, tiny_backbone, token_of

from pomona.backbone.decoding import Decoding
from pomona.backbone.generate import generate
from pomona.backbone.load import Backbone
from pomona.errors import InputError

PROMPTS = ["Return the sum of all values", "Raise", "a b c d e f g h i j k l m n o p q r s t", "日本語", "Compute the mean", "x"]
STEPS = 7


def answers(backbone: Backbone, batch_size: int = 6, prompts: list[str] = PROMPTS, **settings: Any) -> list[tuple[int, ...]]:
    found = generate(
        backbone,
        prompts,
        max_new_tokens=STEPS,
        batch_size=batch_size,
        stop_at_line_end=False,
        decoding=Decoding(**settings) if settings else None,
    )
    return [one.tokens for one in found if one is not None]


def of_transformers(backbone: Backbone, prompt: str, **settings: Any) -> tuple[int, ...]:
    """The answer of transformers' own generate, of one prompt."""
    tokens = torch.tensor([backbone.tokenizer(prompt)["input_ids"]])
    output: Any = backbone.model.generate(  # pyright: ignore[reportCallIssue]
        input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=STEPS, do_sample=False, **settings
    )
    return tuple(output[0, tokens.shape[1] :].tolist())


# Settings ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("num_beams", 0, "a whole number of at least 1"),
        ("num_beams", 2.0, "a whole number of at least 1"),
        ("num_beams", True, "a whole number of at least 1"),
        ("top_k", -1, "a whole number of at least 0"),
        ("no_repeat_ngram_size", "2", "a whole number of at least 0"),
        ("seed", -1, "a whole number of at least 0"),
        ("temperature", -0.1, "a number at least 0"),
        ("temperature", math.nan, "a number at least 0"),
        ("temperature", math.inf, "a number at least 0"),
        ("temperature", "hot", "a number at least 0"),
        ("temperature", None, "a number at least 0"),
        ("top_p", 0, "a number above 0 and at most 1"),
        ("top_p", 1.01, "a number above 0 and at most 1"),
        ("repetition_penalty", 0.0, "a number above 0"),
        ("length_penalty", -math.inf, "a number finite"),
    ],
)
def test_values_that_do_not_fit(name: str, value: object, wanted: str) -> None:
    with pytest.raises(InputError) as caught:
        Decoding(**{name: value})  # pyright: ignore[reportArgumentType]
    assert str(caught.value) == f"{name}: {wanted} is expected (got {value!r})"


def test_beams_do_not_draw() -> None:
    with pytest.raises(
        InputError, match=r"temperature: a beam search draws nothing \(got 0.5\). Set num_beams 1, or temperature 0"
    ):
        Decoding(num_beams=2, temperature=0.5)


def test_what_transformers_is_told() -> None:
    def config(**settings: Any) -> dict[str, Any]:
        return Decoding(**settings).config(max_new_tokens=7, pad=0, ends=[2, 5], bos=None).to_diff_dict()

    least = {"max_new_tokens": 7, "do_sample": False, "num_beams": 1, "pad_token_id": 0, "eos_token_id": [2, 5]}
    least |= {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "use_cache": True}
    assert {key: value for key, value in config().items() if key in least} == least
    found = config(num_beams=3, length_penalty=2, repetition_penalty=2, no_repeat_ngram_size=4)
    assert {key: found[key] for key in ("num_beams", "length_penalty", "repetition_penalty", "no_repeat_ngram_size")} == {
        "num_beams": 3, "length_penalty": 2.0, "repetition_penalty": 2.0, "no_repeat_ngram_size": 4,
    }  # fmt: skip
    # Transformers warns of settings that have no effect.
    assert "length_penalty" not in config(length_penalty=2.0)


# Penalties --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{"repetition_penalty": 2}, {"no_repeat_ngram_size": 2}, {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3}],
    ids=str,
)
def test_penalties_are_those_of_transformers(backbone: Backbone, settings: dict[str, Any]) -> None:
    theirs = {name: float(value) if name == "repetition_penalty" else value for name, value in settings.items()}
    expected = [of_transformers(backbone, prompt, **theirs) for prompt in PROMPTS]
    assert expected != [of_transformers(backbone, prompt) for prompt in PROMPTS]
    for batch_size in (4, 6):
        assert answers(backbone, batch_size, **settings) == expected


@pytest.mark.parametrize("settings", [{"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 1}], ids=str)
@pytest.mark.parametrize("num_beams", [1, 2])
def test_padding_was_not_said(settings: dict[str, Any], num_beams: int) -> None:
    """Many models pad with their end token: a row that is padded must not pay for an end that it has not come to."""
    backbone = scripted_backbone({"k": {"</s>": 20.0, "l": 17.0}, "l": {"</s>": 20.0}, "q": {"</s>": 20.0}})
    padding: Any = copy.deepcopy(backbone.tokenizer)
    padding.pad_token = padding.eos_token
    backbone = Backbone(backbone.model, padding, "pads with the end")
    alone = answers(backbone, 1, ["k"], num_beams=num_beams, **settings)
    assert alone == [(token_of("</s>"),)]
    together = answers(backbone, 2, ["k", "x x x x q"], num_beams=num_beams, **settings)
    assert together[:1] == alone


# Draws ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama() -> Backbone:
    return tiny_backbone("llama")


def test_draws_are_fixed_by_the_seed_and_no_batch_changes_them(backbone: Backbone) -> None:
    first = answers(backbone, 6, temperature=1.0, seed=3)
    for batch_size in (1, 2, 4):
        assert answers(backbone, batch_size, temperature=1.0, seed=3) == first
    assert answers(backbone, 6, temperature=1.0, seed=4) != first
    assert first != answers(backbone)


def test_one_prompt_given_often_is_answered_differently(llama: Backbone) -> None:
    found = answers(llama, 3, ["Raise"] * 6, temperature=1.0)
    assert len(set(found)) == 6
    # Draws belong to a place in the list: what stands elsewhere does not matter.
    assert answers(llama, 3, ["Raise", "x", "Raise"], temperature=1.0)[::2] == found[:3:2]


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 1e-4}, {"temperature": 1e-45}, {"temperature": 5.0, "top_k": 1}, {"temperature": 2.0, "top_p": 1e-6}],
    ids=str,
)
def test_draws_without_a_choice_are_greedy(backbone: Backbone, settings: dict[str, Any]) -> None:
    assert answers(backbone, **settings) == answers(backbone)


LIKELY = {"a": 0.5, "b": 0.25, "c": 0.15, "d": 0.1}
"""What follows "k", with which probability."""


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"temperature": 1.0}, LIKELY),
        ({"temperature": 2.0}, {text: math.sqrt(p) / sum(map(math.sqrt, LIKELY.values())) for text, p in LIKELY.items()}),
        ({"temperature": 1.0, "top_k": 2}, {"a": 2 / 3, "b": 1 / 3}),
        ({"temperature": 1.0, "top_p": 0.8}, {"a": 5 / 9, "b": 2.5 / 9, "c": 1.5 / 9}),
        ({"temperature": 1.0, "repetition_penalty": 100.0}, LIKELY),  # of the prompt's own tokens, none of which is likely
    ],
    ids=str,
)
def test_tokens_come_as_often_as_they_are_likely(settings: dict[str, Any], expected: dict[str, float]) -> None:
    """Pearson's chi-square over 1,000 draws stays below its 99.9 % quantile."""
    # The logits of all other tokens are 0: 60 below is never.
    backbone = scripted_backbone({"k": {text: 60.0 + math.log(p) for text, p in LIKELY.items()}})
    count = 1000
    found = generate(backbone, ["k"] * count, max_new_tokens=1, batch_size=500, decoding=Decoding(seed=1, **settings))
    drawn = Counter(texts_of(found))
    assert set(drawn) == set(expected)
    statistic = sum((drawn[text] - count * p) ** 2 / (count * p) for text, p in expected.items())
    assert statistic < {1: 10.83, 2: 13.82, 3: 16.27}[len(expected) - 1]


def test_every_setting_is_in_these_tests() -> None:
    """A new one has to be tested as well."""
    assert [field.name for field in dataclasses.fields(Decoding)] == [
        "num_beams", "length_penalty", "temperature", "top_k", "top_p", "repetition_penalty", "no_repeat_ngram_size", "seed",
    ]  # fmt: skip
