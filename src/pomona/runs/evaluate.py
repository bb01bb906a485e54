"""Score adapters on data, without a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pomona.adapters import check_compatible, check_finite, read_adapter
from pomona.backbone.load import Backbone
from pomona.data import Example
from pomona.data.tasks import Task
from pomona.evaluation.evaluate import answer, make_metrics, score
from pomona.runs.record import Estimate
from pomona.tuning.progress import Progress, Silent

ZERO_SHOT = "zero_shot"


def evaluate(
    backbone: Backbone,
    adapters: Sequence[Path | str],
    examples: Sequence[Example],
    task: Task,
    *,
    metrics: Sequence[str] | None = None,
    batch_size: int = 20,
    max_tokens: int = 512,
    draws: int = 2000,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, dict[str, Estimate]]:
    """The scores of the bare model and of each adapter on it, with 95 % bootstrap intervals.

    Args:
        backbone: the model.
        adapters: PEFT folders; the path is the system's name.
        examples: what to answer, one or more.
        task: how to stop, how to read an answer, and which metrics judge it.
        metrics: names; the task's own by default.
        batch_size: examples a batch.
        max_tokens: longest example when losses are measured.
        draws: bootstrap draws.
        seed: of the bootstrap.
        progress: shown to a person.

    Raises:
        InputError: an adapter that cannot be read or does not fit the model; an unknown metric.
    """
    chosen = make_metrics(metrics or task.metrics, str(getattr(task, "language", "en")))
    systems = {ZERO_SHOT: None} | {str(path): read_adapter(path) for path in adapters}
    for adapter in systems.values():
        if adapter is not None:
            check_finite(adapter)
            check_compatible([adapter], backbone.shapes(), backbone.name)
    results = {}
    for name, adapter in systems.items():
        answers = answer(
            backbone,
            adapter,
            examples,
            task,
            batch_size=batch_size,
            max_tokens=max_tokens,
            progress=progress or Silent(),
            label=name,
        )
        scores = score(answers, examples, chosen, draws=draws, seed=seed)
        results[name] = {key: Estimate(value=one.value, low=one.low, high=one.high, n=len(examples)) for key, one in scores.items()}
    return results
