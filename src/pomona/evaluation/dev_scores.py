"""What a model with its adapters attached answers to the dev set, as one score an example."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pomona.backbone.attach import Attachment
from pomona.backbone.decoding import Decoding
from pomona.data import Example
from pomona.data.tasks import Task
from pomona.errors import PomonaError
from pomona.evaluation.answers import answering_prompts, decode, parsed
from pomona.metrics import Metric


def dev_scores(
    attachment: Attachment,
    examples: Sequence[Example],
    task: Task,
    metric: Metric,
    *,
    batch_size: int,
    max_tokens: int,
    decoding: Decoding,
) -> list[float]:
    """The metric of each example's answer by itself, in [0, 100], in the examples' order.

    Args:
        attachment: what is judged; folded into the model meanwhile.
        examples: what to answer.
        task: how to stop and how to read an answer.
        metric: higher is better.
        batch_size: prompts a batch.
        max_tokens: longest prompt and answer together.
        decoding: how answers are decoded.

    Raises:
        PomonaError: memory does not hold an example.
    """
    texts = attached_answers(
        attachment, examples, task, batch_size=batch_size, max_tokens=max_tokens, decoding=decoding, key="select_by"
    )
    return single_scores(texts, examples, metric)


def attached_answers(
    attachment: Attachment,
    examples: Sequence[Example],
    task: Task,
    *,
    batch_size: int,
    max_tokens: int,
    decoding: Decoding,
    key: str,
) -> list[str]:
    """The answer to each example as the task reads it, in the examples' order.

    Args:
        attachment: what answers; folded into the model meanwhile.
        examples: what to answer.
        task: how to stop and how to read an answer.
        batch_size: prompts a batch.
        max_tokens: longest prompt and answer together.
        decoding: how answers are decoded.
        key: of the recipe, which asks for answers; for the error.

    Raises:
        PomonaError: memory does not hold an example.
    """
    backbone = attachment.backbone
    prompts = answering_prompts(backbone, examples, task, max_tokens)
    with attachment.folded():
        generated = decode(backbone, prompts, task, batch_size=batch_size, decoding=decoding)
    texts = [text for text in parsed(generated, task) if text is not None]
    if len(texts) < len(examples):
        raise PomonaError(
            f"{len(examples) - len(texts)} of the examples that {key} judges by could not be answered: memory does not hold one of "
            "them",
            fix=f"Lower tuning.max_tokens, or set {key} to loss",
        )
    return texts


def single_scores(texts: Sequence[str], examples: Sequence[Example], metric: Metric) -> list[float]:
    """The metric of each answer by itself, in [0, 100], also where it is one of a whole corpus."""
    table = metric.table(texts, [example.references for example in examples])
    return metric.aggregate(table, np.ones(len(table))).tolist()
