"""Exact match and token F1 against lm-evaluation-harness's own scoring of `mlqa`, example by example."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.real_data import DATA

from pomona.metrics import ExactMatch, TokenF1

LANGUAGES = ("ar", "de", "en", "es", "hi", "vi", "zh")
# Languages that the harness does not know are scored by the rules of one that it does: they bring digits, kana and rare characters.
SETS = {
    "xquad/en": "en",
    "xquad/ar": "ar",
    "xquad/zh": "zh",
    "mlqa/en": "en",
    "mlqa/ar": "ar",
    "mlqa/zh": "zh",
    "mlqa_cross/ctx-en_q-zh": "en",
    "tydiqa_goldp/en": "en",
    "tydiqa_goldp/ar": "ar",
    "arcd/ar": "ar",
    "cmrc2018/zh": "zh",
    "drcd/zh-hant": "zh",
    "jsquad/ja": "zh",
    "tydiqa_goldp/sw": "de",
    "tydiqa_goldp/ko": "hi",
    "e2e_nlg/en": "es",
}


@pytest.fixture(scope="module")
def mlqa() -> ModuleType:
    """`lm_eval.tasks.mlqa.utils`, the installed file alone: importing its package takes seconds."""
    found = importlib.util.find_spec("lm_eval")
    assert found is not None
    assert found.origin is not None
    spec = importlib.util.spec_from_file_location("mlqa_utils", Path(found.origin).parent / "tasks/mlqa/utils.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def theirs(mlqa: ModuleType, prediction: str, references: list[str], language: str) -> tuple[float, float]:
    found = mlqa.process_results_lang({"answers": references}, [prediction], language)
    return float(found["exact_match"]), float(found["f1"])


def ours(prediction: str, references: list[str], language: str) -> tuple[float, float]:
    return (
        float(ExactMatch(language).statistics(prediction, references)[0]),
        float(TokenF1(language).statistics(prediction, references)[0]),
    )


def leaves_nothing(mlqa: ModuleType, texts: list[str], language: str) -> bool:
    return any(not mlqa.normalize_answer(text, language) for text in texts)


def perturbed(answer: str, other: str, context: str, source: random.Random) -> Iterator[str]:
    """What a model might say: right, nearly right, too much, too little, something else."""
    words, start = answer.split(), source.randrange(max(1, len(context) - 80))
    yield answer
    yield f'"{answer.upper()}".'
    yield f"the {answer}، der {answer}!"
    yield f"ال{answer} {words[0]}"
    yield f"{other} {answer} {answer[: len(answer) // 2]}"
    yield answer[: 1 + len(answer) // 2]
    yield " ".join(words[::-1]) + " las của 2,5%"
    yield context[start : start + source.randrange(5, 80)]
    yield other


@pytest.mark.parametrize("name", SETS)
def test_every_example_of_real_data_scores_as_in_the_harness(mlqa: ModuleType, name: str) -> None:
    file, language, source = DATA / name / "test.jsonl", SETS[name], random.Random(0)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line][:60]
    compared = partly = left_out = 0
    for row, next_row in zip(rows, [*rows[1:], rows[0]], strict=True):
        references, others = ((one["answers"] if "answers" in one else one["references"]) for one in (row, next_row))
        for prediction in perturbed(references[0], others[0], row.get("context") or row["input"], source):
            if leaves_nothing(mlqa, [prediction, *references], language):
                left_out += 1
                continue
            expected = theirs(mlqa, prediction, references, language)
            assert ours(prediction, references, language) == pytest.approx(expected, abs=1e-12)
            compared += 1
            partly += 0 < expected[1] < 1
    assert compared >= 500
    assert partly >= 0.3 * compared
    assert left_out <= 0.02 * compared


_SCRAPS = [
    *"aA1٢ \t.,-–“”،。「」龥龦㐀々あァ〇ـ\u0301\u200f$|",
    *(" the ", "The", " a", "ال", " ال", "الال", "của", "Das", "las", "北京", "龦龦", "हिन्दी", "ﷲ", "İ"),
]
_TEXT = st.lists(st.sampled_from(_SCRAPS) | st.characters(exclude_categories=["Cs"]), max_size=12).map("".join)


@pytest.mark.parametrize("language", LANGUAGES)
def test_any_text_scores_as_in_the_harness(mlqa: ModuleType, language: str) -> None:
    @settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.filter_too_much])
    @given(_TEXT, st.lists(_TEXT, min_size=1, max_size=3), st.booleans())
    def check(prediction: str, references: list[str], same: bool) -> None:
        if same:
            prediction = references[-1] + prediction
        if not leaves_nothing(mlqa, [prediction, *references], language):
            expected = theirs(mlqa, prediction, references, language)
            assert ours(prediction, references, language) == pytest.approx(expected, abs=1e-12)

    check()


@pytest.mark.parametrize(
    ("prediction", "reference", "in_the_harness", "here"),
    [
        ("The", "the", (1.0, 0.0), (1.0, 1.0)),  # identical answers score 1
        ("?", "?", (1.0, 0.0), (1.0, 1.0)),
        ("a", "the", (1.0, 0.0), (0.0, 0.0)),
        ("", "the", (1.0, 0.0), (0.0, 0.0)),  # an empty answer scores 0
        ("", "", (1.0, 0.0), (0.0, 0.0)),
        ("cat", "the", (0.0, 0.0), (0.0, 0.0)),
    ],
)
def test_the_only_difference_is_text_that_the_rules_remove_completely(
    mlqa: ModuleType, prediction: str, reference: str, in_the_harness: tuple[float, float], here: tuple[float, float]
) -> None:
    assert leaves_nothing(mlqa, [prediction, reference], "en")
    assert theirs(mlqa, prediction, [reference], "en") == in_the_harness
    assert ours(prediction, [reference], "en") == here
