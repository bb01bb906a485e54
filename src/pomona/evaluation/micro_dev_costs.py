"""What a model with its adapters attached costs on micro dev examples: a controller's reward is the fall of their mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pomona.backbone.attach import Attachment
from pomona.backbone.batches import Encoded
from pomona.backbone.decoding import Decoding
from pomona.backbone.loss import example_losses
from pomona.data import Example
from pomona.data.tasks import Task
from pomona.evaluation.answers import LOSS_BATCH_SIZE
from pomona.evaluation.dev_scores import attached_answers, single_scores
from pomona.evaluation.scores import LOSS
from pomona.metrics import Metric


def micro_dev_costs(
    attachment: Attachment,
    positions: Sequence[int],
    *,
    examples: Sequence[Example],
    encoded: Sequence[Encoded],
    weights: Mapping[str, float],
    metrics: Mapping[str, Metric],
    task: Task,
    batch_size: int,
    max_tokens: int,
    decoding: Decoding,
) -> list[float]:
    """A cost of each example, lower is better: `cost_i = sum_m weights[m] c_mi`.

    `c_mi` is the loss in nats per token where m is `loss`, and `-score / 100`, in [-1, 0], where it is a metric of the answer to
    example i by itself. Answers are decoded once, whatever the number of metrics, and not at all where there is none.

    Args:
        attachment: what is judged; folded into the model while it answers.
        positions: which of the examples, in the order of the result.
        examples: the micro dev set.
        encoded: the same as tokens.
        weights: m -> weight, > 0; `loss` or a name in `metrics`.
        metrics: those among the weights, by name; higher is better.
        task: how to stop and how to read an answer.
        batch_size: prompts a batch.
        max_tokens: longest prompt and answer together.
        decoding: how answers are decoded.

    Raises:
        PomonaError: memory does not hold an example.
    """
    terms: list[tuple[float, list[float]]] = []
    if LOSS in weights:
        losses = example_losses(attachment.backbone, [encoded[place] for place in positions], LOSS_BATCH_SIZE)
        terms.append((weights[LOSS], losses))
    if metrics:
        chosen = [examples[place] for place in positions]
        texts = attached_answers(
            attachment, chosen, task, batch_size=batch_size, max_tokens=max_tokens, decoding=decoding, key="reward"
        )
        terms += [(-weights[name] / 100, single_scores(texts, chosen, metric)) for name, metric in metrics.items()]
    return [math.fsum(weight * row[place] for weight, row in terms) for place in range(len(positions))]
