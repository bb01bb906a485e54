"""The `tpe` search: whole runs at prune ratios proposed by a model of the earlier runs, and the best by dev score."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal

from pomona.control.base import controllers
from pomona.control.best_trial import best_trial
from pomona.control.rounds import check_settings
from pomona.control.search import Search, Trial
from pomona.errors import InputError, MissingPackageError
from pomona.ratios import Answer
from pomona.seeding import derive_seed, stream

_STEPS = 10_000
_PARAMETER = "prune_ratio"


@controllers.register("tpe")
@dataclass(frozen=True)
class Tpe(Search):
    """Whole runs at ratios proposed by a tree-structured Parzen estimator, and the best by mean dev score.

    With l the density of the ratios of the best tenth of the runs (up to 10 runs: of the best run) and g that of the others,
    the next ratio has the largest l / g among 24 draws from l (Bergstra et al., NeurIPS 2011; optuna's sampler, arXiv
    1907.10902). Only the ranking of the runs by mean dev score counts.

    Ratios are distinct integer multiples of 0.0001. If the proposed ratio was run before, the ratio farthest from all earlier runs
    is used, because a run near an old one gives almost no information.

    The interval goes from the lowest to the highest ratio that is not significantly worse than the best; the answer is flat if no
    ratio is significantly worse. `best_trial` has the test.

    Args:
        prune_ratio_min, prune_ratio_max: range of the ratios, in [0, 1].
        trials: number of runs, at least 2.
        startup_trials: number of runs at uniformly drawn ratios before the model is used, at least 1.

    Raises:
        InputError: a value is out of its range, or the range contains fewer ratios than runs.
        MissingPackageError: optuna is not installed.
    """

    prune_ratio_min: float = 0.10
    prune_ratio_max: float = 0.80
    trials: int = 8
    startup_trials: int = 4

    def __post_init__(self) -> None:
        low, high = self.prune_ratio_min, self.prune_ratio_max
        check_settings(
            self,
            ("prune_ratio_min", 0 <= low < 1, "must be in [0, 1)"),
            ("prune_ratio_max", low < high <= 1, f"must be above prune_ratio_min {low} and at most 1"),
            ("trials", self.trials >= 2, "must be at least 2"),
            ("startup_trials", self.startup_trials >= 1, "must be at least 1"),
        )
        if len(self._steps) < self.trials:
            problem = f"must be farther above prune_ratio_min {low}: {self.trials} ratios of 4 decimals do not fit between them"
            raise InputError(problem, field="prune_ratio_max", value=high)
        if importlib.util.find_spec("optuna") is None:
            raise MissingPackageError(
                "the search tpe needs optuna, which is not installed",
                fix='Install it with `pip install "pomona[search]"`, or use grid',
            )

    def next(self, trials: Sequence[Trial], seed: int) -> float | None:
        """The model's ratio after these runs; each run has its own random stream, so a resumed search proposes the same."""
        if len(trials) >= self.trials:
            return None
        tried = {round(trial.prune_ratio * _STEPS): trial.mean for trial in trials}
        step = self._propose(tried, derive_seed(seed, "tpe", len(trials)))
        return (_farthest(self._steps, tried) if step in tried else step) / _STEPS

    def choose(self, trials: Sequence[Trial], seed: int) -> Answer:
        """`best_trial` of the runs."""
        return best_trial(trials, stream(seed, "tpe"))

    @property
    def _steps(self) -> range:
        """The multiples of 0.0001 in the range. Uses Decimal, because the binary 0.29 is slightly less than 29 hundredths."""
        low, high = (Decimal(str(one)) * _STEPS for one in (self.prune_ratio_min, self.prune_ratio_max))
        return range(math.ceil(low), math.floor(high) + 1)

    def _propose(self, tried: dict[int, float], seed: int) -> int:
        """One proposal of optuna's sampler for these mean scores."""
        import optuna

        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(max(verbosity, optuna.logging.WARNING))
        try:
            sampler = optuna.samplers.TPESampler(n_startup_trials=self.startup_trials, seed=seed % 2**32)
            study = optuna.create_study(sampler=sampler, direction="maximize")
            steps = optuna.distributions.IntDistribution(self._steps[0], self._steps[-1])
            space: dict[str, optuna.distributions.BaseDistribution] = {_PARAMETER: steps}
            for step, mean in tried.items():
                study.add_trial(optuna.create_trial(params={_PARAMETER: step}, distributions=space, value=mean))
            return int(study.ask(space).params[_PARAMETER])
        finally:
            optuna.logging.set_verbosity(verbosity)


def _farthest(steps: range, tried: Collection[int]) -> int:
    """The step with the largest distance to its nearest tried step, the lowest of equals."""
    return max(steps, key=lambda step: min(abs(step - one) for one in tried))
