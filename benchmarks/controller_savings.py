"""The savings of racing and screening on a model, and their effect on the answer: searches of whole runs on the same model,
examples and seed.

Probes are counted, so they do not depend on the machine; the seconds are those of the rounds. Screening uses the first-order
estimate, which costs no probe. How well it predicts a candidate's gain is measured on a search that tries all proposals.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import ClassVar

from benchmarks.controller_cost import Setting, given_setting
from pomona.backbone.attach import attached
from pomona.control import ControllerState, Grasp
from pomona.tuning.fit import fit
from pomona.tuning.settings import Fitted, Pruning

INTERVAL = 4
"""Steps between rounds: 7 of them in 28 steps."""


class Watched(Grasp):
    """Asks for the estimate of each candidate, notes it, and tries them all."""

    estimates: ClassVar[list[Sequence[float]]] = []

    @property
    def wants_estimates(self) -> bool:
        """Always."""
        return True

    def screen(self, state: ControllerState, estimates: Sequence[float]) -> tuple[bool, ...]:
        """None is left out."""
        self.estimates.append(estimates)
        return (True,) * len(estimates)


SEARCHES: Mapping[str, Grasp] = {
    "defaults": Grasp(mode="two_pass", interval_steps=INTERVAL),
    "no racing": Grasp(mode="two_pass", interval_steps=INTERVAL, race_level=0.0),
    "screening, 3 of 6, no racing": Grasp(mode="two_pass", interval_steps=INTERVAL, race_level=0.0, proposals=6),
    "all 6 tried, no racing": Watched(mode="two_pass", interval_steps=INTERVAL, race_level=0.0, candidates=6),
}


def run() -> bool:
    """Print each search's probes, seconds and answer, and the correlation of estimate and gain; there is no bound."""
    setting = given_setting()
    for name, controller in SEARCHES.items():
        fitted = _search(setting, controller)
        assert fitted.control is not None
        assert fitted.answer is not None
        rounds, answer = fitted.control.rounds, fitted.answer
        probes = sum(len(one.losses_before) + sum(candidate.seen for candidate in one.candidates) for one in rounds)
        print(
            f"  {name}: {probes} probes in {len(rounds)} rounds, {fitted.probe_seconds:.1f} s; answer {answer.prune_ratio:.3f} "
            f"({answer.low:.2f} to {answer.high:.2f}{', flat' if answer.flat else ''})",
            flush=True,
        )
        if isinstance(controller, Watched):
            _told(rounds=[[candidate.reward for candidate in one.candidates] for one in rounds], estimates=controller.estimates)
    return True


def _told(rounds: Sequence[Sequence[float]], estimates: Sequence[Sequence[float]]) -> None:
    """How well the estimated change of the loss goes with the gain that was measured, within a round."""
    found = [-statistics.correlation(gains, changes) for gains, changes in zip(rounds, estimates, strict=True)]
    shown = ", ".join(f"{one:.2f}" for one in found)
    print(f"  correlation of the first-order estimate with the measured change, by round: {shown}", flush=True)


def _search(setting: Setting, controller: Grasp) -> Fitted:
    with attached(setting.backbone, setting.sources, dropout=setting.tuning.dropout) as attachment:
        return fit(attachment, setting.data, setting.tuning, pruning=Pruning(), controller=controller)


if __name__ == "__main__":
    run()
