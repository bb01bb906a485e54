"""Kernel launches and synchronisations of a training step, with pruning and without, by layers and modules, on a pretended device.

No GPU is needed: every operation is counted and done on the CPU, on Llamas of tiny width (`tests/support/pretended_device.py`). A
layer adds as many launches as the one before it, so the counts of 32 and 80 layers follow from those of 2 and 4.
"""

from __future__ import annotations

BOUND = 1.15
"""Launches of a settled step with pruning for one of a step without."""
LAYERS = (32, 80)


def run() -> bool:
    """Print the table; whether each settled step is within the bound, and no step waits."""
    from tests.tuning.launches import ALL_LINEAR, Q_AND_V, measured

    from pomona.tuning.settings import Pruning

    ways = {
        "without pruning": None,
        "a settled step": Pruning(),
        "a settled step, scope global": Pruning(scope="global"),
        "a settled step with feedback": Pruning(feedback="always"),
    }
    few, more = 2, 4
    print("Llama of tiny width, two adapters of one rank, one microbatch a step")
    print("| modules | step | launches, 32 layers | 80 layers | synchronisations | for one without |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    met = True
    for name, targets in (("q, v", Q_AND_V), ("all linear", ALL_LINEAR)):
        plain: list[float] = []
        for way, pruning in ways.items():
            steps = [measured(layers, pruning, targets=targets).settled for layers in (few, more)]
            slope = (steps[1].kernels - steps[0].kernels) / (more - few)
            launches = [steps[0].kernels + slope * (layers - few) for layers in LAYERS]
            plain = plain or launches
            ratios = [one / other for one, other in zip(launches, plain, strict=True)]
            waits = max(one.synchronisations for one in steps)
            print(f"| {name} | {way} | {launches[0]:,.0f} | {launches[1]:,.0f} | {waits} | {max(ratios):.3f} |", flush=True)
            met &= max(ratios) <= BOUND and waits == 0
    return met


if __name__ == "__main__":
    run()
