"""A system trained at every point of a grid, and the point that the dev set chooses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass

from pomona.errors import InputError, PomonaError
from pomona.runs.tune import Point, without_point
from pomona.tuning.choice import Judged, ranked
from pomona.tuning.settings import Fitted


@dataclass(frozen=True)
class TriedPoint:
    """A system's training at one point.

    Args:
        point: of the grid.
        dev_loss: nats per token in the kept epoch; None: not known.
        score: mean over the dev examples by which the point was judged, higher is better; None: the training failed.
        epoch: the kept epoch, from 1.
        runs: whole trainings: those at several ratios, and the pass that learned the ratio, are counted.
        tokens: training tokens of all of them.
        seconds: of training and probes of all of them.
        chosen: whether the system is this one.
        error: why the training failed; empty where it did not.
    """

    point: Point
    dev_loss: float | None = None
    score: float | None = None
    epoch: int | None = None
    runs: int = 1
    tokens: int | None = None
    seconds: float | None = None
    chosen: bool = False
    error: str = ""


def tune(
    points: Sequence[Point],
    train: Callable[[Point], Fitted],
    trained: MutableMapping[str, Fitted],
    belongs: Callable[[str], bool],
    tolerance: float = 0.0,
) -> list[TriedPoint]:
    """Train at every point, and choose one by the dev scores, and by the dev loss within the tolerance; of equals the first.

    A training whose loss is not finite counts as the worst. The chosen trainings lose the point in their names and their events.

    Args:
        points: one or more.
        train: the whole system at a point.
        trained: every training so far, by name.
        belongs: whether a training, named without its point, is one of the system's.
        tolerance: standard errors of the score within which the loss chooses; see `pomona.tuning.choice`.

    Returns:
        What was tried, in order.

    Raises:
        PomonaError: all trainings failed.
    """
    tried: list[TriedPoint] = []
    judged: dict[int, Judged] = {}
    for point in points:
        try:
            fitted = train(point)
        except InputError:
            raise
        except PomonaError as error:
            if len(points) == 1:
                raise
            tried.append(TriedPoint(point, error=str(error)))
            continue
        if fitted.dev_scores:
            judged[len(tried)] = Judged(fitted.dev_scores, fitted.dev_loss or 0.0)
        parts = [one for name, one in trained.items() if belongs(without_point(name)) and name == point.named(without_point(name))]
        tried.append(
            TriedPoint(
                point,
                dev_loss=fitted.dev_loss,
                score=math.fsum(fitted.dev_scores) / len(fitted.dev_scores) if fitted.dev_scores else None,
                epoch=fitted.epoch,
                runs=len(parts),
                tokens=sum(one.tokens for one in parts),
                seconds=sum(one.train_seconds + one.probe_seconds for one in parts),
            )
        )
    if not judged:
        raise PomonaError(f"no point of the grid could be trained; the first: {tried[0].error}", field="evaluation.tune")
    best = list(judged)[ranked(list(judged.values()), tolerance)[0]]
    tried[best] = dataclasses.replace(tried[best], chosen=True)
    _adopt(tried[best].point, trained, belongs)
    return tried


def _adopt(point: Point, trained: MutableMapping[str, Fitted], belongs: Callable[[str], bool]) -> None:
    """Give the trainings at a point the system's own names."""
    items = list(trained.items())
    trained.clear()
    for name, fitted in items:
        plain = without_point(name)
        if belongs(plain) and name == point.named(plain):
            history = [event | {"system": without_point(str(event["system"]))} for event in fitted.history]
            trained[plain] = dataclasses.replace(fitted, history=history)
        else:
            trained[name] = fitted
