"""Averages over the settings of an experiment, such as several target tasks: does a system win on tasks like these?

Axes: G settings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from statistics import fmean, stdev
from typing import NamedTuple

from pomona.errors import InputError, suggest
from pomona.evaluation.scores import LOSS
from pomona.metrics.holm import holm
from pomona.metrics.student import student_quantile, student_tail
from pomona.runs.experiments.record import AverageContrast, AverageRecord, AverageScore, SettingRecord, SystemScore

PRIMARY = "primary"
"""The name of the average over each setting's primary metric."""

LEVEL = 0.05


def members(pattern: str, settings: Sequence[str], field: str) -> list[str]:
    """The settings that a pattern such as `*-12` matches; `*`, `?` and `[...]` as in file names.

    Raises:
        InputError: fewer than two match, so there is nothing to average.
    """
    found = [name for name in settings if fnmatchcase(name, pattern)]
    if len(found) < 2:
        problem = f"matches {len(found)} of the settings, and an average needs two"
        raise InputError(problem, field=field, value=pattern, fix=suggest(pattern, settings))
    return found


def average(settings: Mapping[str, SettingRecord], systems: Sequence[str], against: str | None) -> AverageRecord:
    """The averages of every system over settings, on the primary metric of each setting and on the loss.

    Args:
        settings: name -> a setting with its contrasts to `against`; two or more.
        systems: names of all systems.
        against: the system that the others are compared with.
    """
    primary = {name: next(iter(one.metrics)) for name, one in settings.items()}
    chosen = {
        PRIMARY: {name: one.metrics[primary[name]] for name, one in settings.items()},
        LOSS: {name: one.metrics[LOSS] for name, one in settings.items()},
    }
    metrics = {}
    for metric, scores_of in chosen.items():
        sign = -1.0 if metric == LOSS else 1.0
        metrics[metric] = _averages([scores_of[name] for name in settings], systems, against, sign)
    return AverageRecord(settings=list(settings), primary=primary, metrics=metrics)


def _averages(
    scores_G: Sequence[Mapping[str, SystemScore]], systems: Sequence[str], against: str | None, sign: float
) -> dict[str, AverageScore]:
    significant = _significant(scores_G, sign)
    found: dict[str, AverageScore] = {}
    for system in systems:
        means = [mean for scores in scores_G if (mean := scores[system].mean) is not None]
        contrast = None
        if against is not None and system != against:
            contrast = _contrast(scores_G, system, against, sign, significant)
        found[system] = AverageScore(mean=fmean(means) if means else None, settings=len(means), contrast=contrast)
    contrasts = {name: one.contrast for name, one in found.items() if one.contrast and one.contrast.p_value is not None}
    for (name, contrast), p in zip(contrasts.items(), holm([one.p_value or 0.0 for one in contrasts.values()]), strict=True):
        found[name].contrast = contrast.model_copy(update={"p_holm": p})
    return found


def _contrast(
    scores_G: Sequence[Mapping[str, SystemScore]],
    system: str,
    against: str,
    sign: float,
    significant: Mapping[tuple[int, str], float],
) -> AverageContrast | None:
    """A system minus `against`, averaged over the settings that have both; None where none has."""
    differences = [one.difference for scores in scores_G if (one := scores[system].contrast) is not None]
    if not differences:
        return None
    mean = over_settings(differences)
    worst = [_worst_seeds(scores[system], scores[against], sign) for scores in scores_G]
    return AverageContrast(
        difference=mean.value,
        low=mean.low,
        high=mean.high,
        p_value=mean.p_value,
        settings=len(differences),
        better=sum(direction > 0 for (_, name), direction in significant.items() if name == system),
        worse=sum(direction < 0 for (_, name), direction in significant.items() if name == system),
        better_worst_seed=sum(one > 0 for one in worst if one is not None),
    )


class OverSettings(NamedTuple):
    """A mean difference over settings, its 95 % interval and two-sided p-value; None of fewer than two settings."""

    value: float
    low: float | None
    high: float | None
    p_value: float | None


def over_settings(differences_G: Sequence[float]) -> OverSettings:
    """The mean of the settings' differences, with Student's interval and test: they hold for other settings like these.

    The differences vary between settings by the effect of the setting, of the seeds and of the examples, so their sample deviation
    has all three.
    """
    value, count = fmean(differences_G), len(differences_G)
    if count < 2:
        return OverSettings(value, None, None, None)
    error = stdev(differences_G) / math.sqrt(count)
    if error == 0.0:
        return OverSettings(value, value, value, 1.0 if value == 0.0 else 0.0)
    reach = student_quantile(0.975, count - 1) * error
    return OverSettings(value, value - reach, value + reach, 2.0 * student_tail(abs(value) / error, count - 1))


def _significant(scores_G: Sequence[Mapping[str, SystemScore]], sign: float) -> dict[tuple[int, str], float]:
    """The contrasts that are significant after Holm's correction over all settings and systems: 1.0 is better, -1.0 is worse."""
    contrasts = {
        (number, system): score.contrast
        for number, scores in enumerate(scores_G)
        for system, score in scores.items()
        if score.contrast is not None
    }
    adjusted = holm([one.p_value for one in contrasts.values()])
    return {
        key: math.copysign(1.0, sign * one.difference)
        for (key, one), p in zip(contrasts.items(), adjusted, strict=True)
        if p < LEVEL
    }


def _worst_seeds(ours: SystemScore, theirs: SystemScore, sign: float) -> float | None:
    """Our worst seed minus their worst seed, higher is better; None unless both have every seed."""
    a, b = ([sign * value for value in one.values if value is not None] for one in (ours, theirs))
    return None if not a or len(a) != len(b) else min(a) - min(b)
