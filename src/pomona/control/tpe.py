"""The `tpe` search: whole runs at prune ratios that a model of the runs before them proposes, the best by dev score."""

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
    """Whole runs at ratios that a tree-structured Parzen estimator proposes, and the best by mean dev score.

    With l the density of the ratios of the best tenth of the runs (of up to 10 runs: of the best one) and g that of the others,
    the next ratio is the one of the largest l / g among 24 draws from l (Bergstra et al., NeurIPS 2011; optuna's sampler, arXiv
    1907.10902). Only the runs' order by mean dev score counts.

    Ratios are whole multiples of 0.0001, no two the same. Where a ratio is proposed that has been run, the one farthest from all
    that have been is taken: a run beside an old one would tell next to nothing.

    The interval goes from the lowest to the highest ratio that is not significantly below the best one, and the answer is flat
    where none is: `best_trial` has the test.

    Args:
        prune_ratio_min, prune_ratio_max: range of the ratios, in [0, 1].
        trials: how many runs, at least 2.
        startup_trials: how many of them are at ratios drawn evenly before the model is asked, at least 1.

    Raises:
        InputError: a value is out of its range, or the range holds fewer ratios than runs.
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
                fix='Install it with `pip install "pomona[search]"`, or take grid',
            )

    def next(self, trials: Sequence[Trial], seed: int) -> float | None:
        """The model's ratio after these runs; each run has a random stream of its own, so a resumed search goes on the same."""
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
        """The multiples of 0.0001 in the range. Decimals, as 0.29 is a little less than 29 hundredths in binary."""
        low, high = (Decimal(str(one)) * _STEPS for one in (self.prune_ratio_min, self.prune_ratio_max))
        return range(math.ceil(low), math.floor(high) + 1)

    def _propose(self, tried: dict[int, float], seed: int) -> int:
        """One proposal of optuna's sampler after these mean scores."""
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
    """The step whose nearest tried one is farthest away, the lowest of equals."""
    return max(steps, key=lambda step: min(abs(step - one) for one in tried))
