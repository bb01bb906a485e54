"""The transform that averages the parameters over optimizer steps; an epoch is then judged and exported with the average.

With theta_i the parameters after the i-th averaged step, and n steps so far:
    ema       avg_n = sum_i d^(n-i) theta_i / sum_i d^(n-i)      exponential moving average, bias-corrected
    uniform   avg_n = sum_i theta_i / n                          stochastic weight averaging (Izmailov et al., arXiv 1803.05407)
In both, avg_n = avg_(n-1) + w_n (theta_n - avg_(n-1)), with w_n = (1 - d) / (1 - d^n) or 1 / n: one operation and one more copy of
the parameters.

With pruning, the average begins when the exported ratio is in force, because parameters of the search or of a ramp are pruned at
other ratios. The average is judged and exported under the mask in force, so the number of pruned entries is exact. With feedback
(`pruning.feedback: always`) the dense weights are averaged, because these are trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor

from pomona.tuning.prune import Prune
from pomona.tuning.settings import Tuning
from pomona.tuning.state import HOLDS_TENSORS
from pomona.tuning.transform import Run, Transform


@dataclass
class AverageState:
    """The state of the transform.

    Args:
        steps: averaged steps so far, n.
        values: parameter name -> its average; empty before the first averaged step.
    """

    __pydantic_config__: ClassVar[ConfigDict] = HOLDS_TENSORS

    steps: int = 0
    values: dict[str, Tensor] = field(default_factory=dict)


class Average(Transform):
    """Averages every trained parameter, merge weights included, as `tuning.average` says.

    Args:
        prune: the run's pruning, if any. It must come before this transform.
    """

    state: AverageState
    state_type: ClassVar[Any] = AverageState

    def __init__(self, prune: Prune | None = None) -> None:
        self._prune = prune
        self.state = AverageState()

    @torch.no_grad()
    def after_step(self, run: Run) -> Mapping[str, object]:
        """Add the parameters to the average."""
        step, state = run.state.step, self.state
        if step <= run.tuning.steps_before_average(run.total_steps) or (self._prune and not self._prune.exports(step)):
            return {}
        state.steps += 1
        now = {name: parameter.detach() for name, parameter in run.parameters.items()}
        if self._prune and self._prune.trains_pruned:
            now |= self._prune.unpruned()
        if state.steps == 1:
            state.values = {name: value.clone() for name, value in now.items()}
        else:
            torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
                list(state.values.values()), [now[name] for name in state.values], latest_weight(run.tuning, state.steps)
            )
        return {}

    @contextmanager
    def in_force(self, run: Run) -> Iterator[None]:
        """Within the block the parameters are the average under the mask in force, if it has begun; leaving restores them."""
        values = self.state.values
        if self._prune and values:
            values = values | self._prune.masked(values)
        kept = {name: run.parameters[name].data for name in values}
        try:
            for name, value in values.items():
                run.parameters[name].data = value
            yield
        finally:
            for name, value in kept.items():
                run.parameters[name].data = value


def latest_weight(tuning: Tuning, steps: int) -> float:
    """The weight of the latest parameters in an average over `steps` steps, w_n; 1 for the first."""
    if tuning.average == "uniform":
        return 1 / steps
    return (1 - tuning.average_decay) / (1 - tuning.average_decay**steps)
