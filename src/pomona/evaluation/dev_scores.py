"""What a model with its adapters attached answers to the dev set, as one score an example."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pomona.backbone.attach import Attachment
from pomona.backbone.decoding import Decoding
from pomona.data import Example
from pomona.data.tasks import Task
from pomona.errors import PomonaError
from pomona.evaluation.evaluate import answering_prompts, decode, parsed
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
    backbone = attachment.backbone
    prompts = answering_prompts(backbone, examples, task, max_tokens)
    with attachment.folded():
        generated = decode(backbone, prompts, task, batch_size=batch_size, decoding=decoding)
    texts = parsed(generated, task)
    answered = [text for text in texts if text is not None]
    if len(answered) < len(texts):
        raise PomonaError(
            f"{len(texts) - len(answered)} dev examples could not be answered: memory does not hold one of them",
            mend="Lower tuning.max_tokens, or set select_by to loss",
        )
    table = metric.table(answered, [example.references for example in examples])
    return metric.aggregate(table, np.ones(len(table))).tolist()
