"""An answer that is not there is not a wrong one: it is counted apart, and scores are those of the others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tests.tiny import tiny_backbone

from pomona.comparison import Comparison
from pomona.data import Example
from pomona.data.tasks import Summarization
from pomona.evaluation.answers import Answers, answer
from pomona.evaluation.compare import compare, corrected
from pomona.evaluation.scores import LOSS, make_metrics, score
from pomona.tuning.progress import Silent

NAN = float("nan")
EXAMPLES = tuple(Example(name, f"{name}:", f" {name}", (name,), name) for name in ("red", "green", "blue", "grey"))
CHOSEN = make_metrics(("exact_match", "bleu"), "en")


def scored(texts: tuple[str | None, ...], losses: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0), examples: Any = EXAMPLES) -> Any:
    return score(Answers(texts, losses, 0.0), examples, CHOSEN, draws=200, seed=0)


def test_scores_are_those_of_the_answers_that_there_are() -> None:
    found = scored(("red", None, "wrong", None))
    assert (found["exact_match"].value, found["exact_match"].n) == (50.0, 2)
    assert found["exact_match"].scored.tolist() == [True, False, True, False]
    assert found["exact_match"].statistics.tolist() == [[1.0], [0.0], [0.0], [0.0]]
    # An empty answer is an answer.
    assert (scored(("red", "", "wrong", ""))["exact_match"].value) == 25.0
    # The loss is the target's, and needs no answer.
    assert (found[LOSS].value, found[LOSS].n) == (2.5, 4)


def test_the_interval_is_that_of_the_answers_alone() -> None:
    texts = ("red", None, "wrong", "grey")
    answered = tuple(one for one, text in zip(EXAMPLES, texts, strict=True) if text is not None)
    alone = scored(("red", "wrong", "grey"), (1.0, 3.0, 4.0), answered)
    found = scored(texts)
    for name in CHOSEN:
        assert (found[name].value, found[name].low, found[name].high) == (alone[name].value, alone[name].low, alone[name].high)
    assert found["exact_match"].low < found["exact_match"].value < found["exact_match"].high


def test_documents_are_those_of_the_answers_alone() -> None:
    grouped = tuple(
        Example(one.id, "p", " t", one.references, "d", group=group) for one, group in zip(EXAMPLES, "aabb", strict=True)
    )
    found = scored(("red", None, "wrong", None), examples=grouped)
    alone = scored(("red", "wrong"), (1.0, 3.0), grouped[::2])
    assert (found["exact_match"].low, found["exact_match"].high) == (alone["exact_match"].low, alone["exact_match"].high)


def test_where_there_is_no_answer_there_is_no_score() -> None:
    assert list(scored((None,) * 4)) == [LOSS]
    assert scored((None,) * 4, (NAN,) * 4) == {}


def test_losses_that_are_not_known_are_left_out() -> None:
    found = scored(("red",) * 4, (1.0, NAN, math.inf, 4.0))[LOSS]
    assert (found.value, found.n, found.scored.tolist()) == (2.5, 2, [True, False, False, True])
    assert found.low <= 2.5 <= found.high
    assert LOSS not in scored(("red",) * 4, (NAN,) * 4)


# Comparisons ------------------------------------------------------------------------------------------------------------


def compared(
    ours: tuple[str | None, ...],
    theirs: tuple[str | None, ...],
    our_losses: tuple[float, ...] = (1.0,) * 4,
    their_losses: tuple[float, ...] = (2.0,) * 4,
) -> dict[str, Comparison]:
    scores = {"ours": scored(ours, our_losses), "theirs": scored(theirs, their_losses)}
    found = compare("ours", ["theirs"], scores, CHOSEN, groups=None, draws=200, seed=0)
    return {one.metric: one for one in found}


def test_a_comparison_is_over_what_both_have() -> None:
    found = compared(("red", "green", None, "grey"), (None, "wrong", "blue", "grey"))
    # Both answered the second and the fourth: 100 against 50, where each alone scores 100 and 66.7.
    assert (found["exact_match"].difference, found["exact_match"].n) == (50.0, 2)
    assert (found[LOSS].difference, found[LOSS].n) == (-1.0, 4)
    unknown = compared(("red",) * 4, ("red",) * 4, our_losses=(1.0, NAN, 1.0, NAN), their_losses=(NAN, 5.0, 3.0, NAN))
    assert (unknown[LOSS].difference, unknown[LOSS].n) == (-2.0, 1)


def test_where_both_have_nothing_in_common_there_is_no_comparison() -> None:
    assert set(compared(("red", "green", None, None), (None, None, "blue", "grey"))) == {LOSS}
    assert set(compared((None,) * 4, ("red",) * 4)) == {LOSS}
    assert compared((None,) * 4, ("red",) * 4, their_losses=(NAN,) * 4) == {}


def test_groups_of_a_comparison_are_those_of_what_both_have() -> None:
    """Of two documents, only one has answers of both: a single cluster shows no spread, and is its own exchange."""
    ours, theirs = ("red", "green", None, "grey"), ("wrong", "wrong", "blue", None)
    scores = {"ours": scored(ours), "theirs": scored(theirs)}
    found, *_ = compare("ours", ["theirs"], scores, CHOSEN, groups=list("aabb"), draws=200, seed=0)
    assert (found.difference, found.low, found.high, found.p_value, found.n) == (100.0, 100.0, 100.0, 1.0, 2)


def test_holm_by_hand_each_metric_a_family() -> None:
    """Of three: 0.01 * 3, 0.02 * 2, 0.9; of two: 0.04 * 2, then 0.05, which may not be less than what came before it."""
    given = [("a", 0.02), ("b", 0.04), ("a", 0.9), ("a", 0.01), ("b", 0.05)]
    found = corrected([Comparison("ours", str(place), metric, 1.0, 0.0, 2.0, p, 9) for place, (metric, p) in enumerate(given)])
    assert [(one.baseline, one.metric, one.p_value) for one in found] == [(str(place), *one) for place, one in enumerate(given)]
    assert [one.p_holm for one in found] == pytest.approx([0.04, 0.08, 0.9, 0.03, 0.08], abs=1e-12)
    assert corrected([]) == []


# From the model on ------------------------------------------------------------------------------------------------------


def test_a_prompt_that_memory_does_not_hold_has_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone()
    forward = backbone.model.forward
    examples = (*EXAMPLES, Example("long", "x " * 50 + ":", " x", ("x",), "x"))

    def limited(input_ids: torch.Tensor, use_cache: bool = False, **state: Any) -> Any:
        if use_cache and input_ids.shape[1] > 60:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(input_ids=input_ids, use_cache=use_cache, **state)

    monkeypatch.setattr(backbone.model, "forward", limited)
    task = Summarization(max_new_tokens=4)
    found = answer(backbone, None, examples, task, batch_size=3, max_tokens=200, progress=Silent(), label="x")
    assert [text is None for text in found.texts] == [False] * 4 + [True]
    assert np.isfinite(found.losses).all()
    assert found.unended is not None
    assert found.unended <= 4
    scores = score(found, examples, CHOSEN, draws=200, seed=0)
    assert (scores["exact_match"].n, scores[LOSS].n) == (4, 5)
