"""Costs of micro dev examples: losses and scores of single answers, weighted, of whatever is attached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import sacrebleu
import torch
import torch.nn.functional as F
from tests.tiny import tiny_adapter, tiny_backbone

import pomona.evaluation.answers as module
from pomona.backbone.attach import attached
from pomona.backbone.batches import Encoded, encode
from pomona.backbone.decoding import Decoding
from pomona.backbone.generate import generate
from pomona.backbone.load import Backbone
from pomona.data import Example
from pomona.data.tasks import Summarization
from pomona.errors import PomonaError
from pomona.evaluation.micro_dev_costs import micro_dev_costs
from pomona.metrics import Chrf, RougeL

TASK = Summarization(max_new_tokens=12)
PROMPTS = ["Compute the mean of the tensor:", "A short", "Raise an error if the file is missing, and keep the order:", "Last one"]
EXAMPLES = [
    Example(str(place), prompt, " f(2)", ("the classes differ", "f(2) of all f"), prompt) for place, prompt in enumerate(PROMPTS)
]


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny_backbone()


def encoded(backbone: Backbone) -> list[Encoded]:
    return list(encode(EXAMPLES, backbone.tokenizer, 64)[0])


def costs(backbone: Backbone, positions: Sequence[int] = range(4), seed: int = 1, **weights: float) -> list[float]:
    metrics = {name: metric for name, metric in {"chrf": Chrf(), "rouge_l": RougeL()}.items() if name in weights}
    with attached(backbone, [tiny_adapter(backbone, seed=seed)]) as attachment:
        return micro_dev_costs(
            attachment,
            positions,
            examples=EXAMPLES,
            encoded=encoded(backbone),
            weights=weights,
            metrics=metrics,
            task=TASK,
            batch_size=3,
            max_tokens=64,
            decoding=Decoding(),
        )


@torch.no_grad()
def by_hand(backbone: Backbone, seed: int = 1) -> tuple[list[float], list[float]]:
    """Losses and chrF of the same adapter, an example at a time."""
    losses, scores = [], []
    with attached(backbone, [tiny_adapter(backbone, seed=seed)]):
        for example, one in zip(EXAMPLES, encoded(backbone), strict=True):
            tokens = torch.tensor(one.tokens)
            logits = backbone.model(input_ids=tokens[None]).logits[0].double()
            first = one.completion_start
            losses.append(float(F.cross_entropy(logits[first - 1 : -1], tokens[first:])))
            (given,) = generate(backbone, [example.prompt], max_new_tokens=12, batch_size=1)
            assert given is not None
            scores.append(sacrebleu.sentence_chrf(TASK.parse(given.text), list(example.references)).score)
    return losses, scores


def test_a_cost_is_the_weighted_sum_of_loss_and_minus_score_over_100(backbone: Backbone) -> None:
    losses, scores = by_hand(backbone)
    assert len(set(scores)) > 1
    assert costs(backbone, loss=1.0) == pytest.approx(losses, rel=1e-5)
    assert costs(backbone, chrf=1.0) == pytest.approx([-score / 100 for score in scores], abs=1e-8)
    mixed = [0.25 * loss - 3 * score / 100 for loss, score in zip(losses, scores, strict=True)]
    assert costs(backbone, loss=0.25, chrf=3.0) == pytest.approx(mixed, rel=1e-5)
    assert costs(backbone, seed=2, chrf=1.0) != costs(backbone, chrf=1.0)


def test_positions_give_the_costs_of_their_examples_in_their_order(backbone: Backbone) -> None:
    whole = costs(backbone, loss=1.0, chrf=1.0)
    assert costs(backbone, [3, 1], loss=1.0, chrf=1.0) == pytest.approx([whole[3], whole[1]], rel=1e-6)
    assert whole[3] != pytest.approx(whole[1], rel=1e-3)


def test_answers_are_given_once_for_all_metrics_and_not_for_the_loss(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    answered: list[int] = []

    def spy(backbone: Backbone, prompts: Sequence[Any], **options: Any) -> Any:
        answered.append(len(prompts))
        return generate(backbone, prompts, **options)

    monkeypatch.setattr(module, "generate", spy)
    both = costs(backbone, chrf=1.0, rouge_l=1.0)
    assert answered == [4]
    costs(backbone, loss=1.0)
    assert answered == [4]
    alone = zip(costs(backbone, chrf=1.0), costs(backbone, rouge_l=1.0), strict=True)
    assert both == pytest.approx([sum(pair) for pair in alone], abs=1e-12)


def test_an_answer_that_memory_does_not_hold_is_an_error_not_a_zero(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_the_last(backbone: Backbone, prompts: Sequence[Any], **options: Any) -> list[Any]:
        return [*generate(backbone, prompts, **options)[:-1], None]

    monkeypatch.setattr(module, "generate", without_the_last)
    with pytest.raises(PomonaError, match=r"^1 of the examples that reward judges by could not be answered.*set reward to loss"):
        costs(backbone, chrf=1.0)
