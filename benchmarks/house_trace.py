"""Print the files that one training step passes through, in the checkout in `PYTHONPATH`, as one JSON object.

    python -P benchmarks/house_trace.py SOURCES MODEL

SOURCES is the checkout's folder `src/pomona`, MODEL the folder of a tiny Llama. A short run of `fit` is traced, with the default
recipe's pruning and controller: wanda, a ratio learned in a single pass, a concatenation of two adapters. The events that `fit`
emits divide the trace into steps, so no class of the loop is named here. Each run is made twice and traced the second time, when
modules are imported and caches are full.

The only names of the package used here are `fit`, its settings, `attached` and `load_backbone`, found in the modules that define
them.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import torch

EXAMPLES, LENGTH, COMPLETION = 24, 8, 3
TARGETS = ("self_attn.q_proj", "self_attn.v_proj")
OUTCOMES = ("settled", "round")


class Trace:
    """Counts files and hops while it is the profiler; a hop is a call from a file of the package into another one of it."""

    def __init__(self, sources: str) -> None:
        self.sources = sources
        self.files: set[str] = set()
        self.hops = 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """See `sys.setprofile`."""
        file = frame.f_code.co_filename
        if event != "call" or not file.startswith(self.sources):
            return
        self.files.add(file)
        caller = frame.f_back and frame.f_back.f_code.co_filename
        self.hops += bool(caller and caller.startswith(self.sources) and caller != file)

    def taken(self) -> tuple[int, int]:
        """Files and hops since the last time."""
        found = len(self.files), self.hops
        self.files, self.hops = set(), 0
        return found


def main(sources: str, model: str) -> None:
    """Print {modules, direct, steps: {speed: {outcome: [(files, hops), ...]}}, names: {kind: [name, ...]}}."""
    module = importlib.import_module("pomona.tuning.fit")
    modules = sorted(name for name in sys.modules if name.split(".")[0] == "pomona")
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    direct = {
        node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pomona.")
    }
    load = importlib.import_module("pomona.backbone.load").load_backbone
    speeds = ("auto", "off") if "speed" in inspect.signature(load).parameters else ("auto",)
    steps = {}
    for speed in speeds:
        backbone = load(model, "cpu", **({"speed": speed} if len(speeds) > 1 else {}))
        run(backbone, Trace(sources))
        steps[speed] = run(backbone, Trace(sources))
    print(json.dumps({"modules": modules, "direct": len(direct), "steps": steps, "names": public_names()}))


def public_names() -> dict[str, list[str]]:
    """What the package exports, and what is in each registry."""
    import pomona
    from pomona.registry import Registry

    found = {"`pomona`": sorted(pomona.__all__)}
    for one in pkgutil.walk_packages(pomona.__path__, "pomona."):
        if not one.name.endswith("__main__"):
            for value in vars(importlib.import_module(one.name)).values():
                if isinstance(value, Registry):
                    found[value.kind] = list(value)
    return dict(sorted(found.items()))


def run(backbone: Any, trace: Trace) -> dict[str, list[tuple[int, int]]]:
    """(files, hops) of each step after the ratio has settled, and of each step with a round, from one step's event to the next."""
    import pomona.control as control
    from pomona.adapters import Adapter, Factors
    from pomona.backbone.attach import attached
    from pomona.backbone.batches import Encoded
    from pomona.tuning.fit import fit
    from pomona.tuning.settings import FitData, Pruning, Tuning

    generator = torch.Generator().manual_seed(0)

    def adapter(rank: int) -> Any:
        shapes = {path: shape for path, shape in backbone.shapes().items() if path.endswith(TARGETS)}
        return Adapter(
            {
                path: Factors(torch.randn(rank, i, generator=generator) * 0.1, torch.randn(o, rank, generator=generator) * 0.1, 2.0)
                for path, (o, i) in shapes.items()
            },
            backbone.name,
        )

    def examples(count: int) -> list[Any]:
        tokens = torch.randint(3, 60, (count, LENGTH), generator=generator).tolist()
        return [Encoded(tuple(row), LENGTH - COMPLETION) for row in tokens]

    found: dict[str, list[tuple[int, int]]] = {outcome: [] for outcome in OUTCOMES}
    since: list[str] = []
    settled = False

    def emit(event: dict[str, Any]) -> None:
        nonlocal settled
        sys.setprofile(None)
        if event["kind"] != "step":
            since.append(event["kind"])
        else:
            counts = trace.taken()
            if set(since) == {"round"}:
                found["round"].append(counts)
            elif not since and settled:
                found["settled"].append(counts)
            settled |= "settled" in since
            since.clear()
        sys.setprofile(trace)

    data = FitData(examples(EXAMPLES), examples(6), examples(4))
    tuning = Tuning(epochs=4, batch_size=4)
    controller: Any = control.controllers.create("bayes", {"interval_steps": 4})
    with attached(backbone, [adapter(3), adapter(2)], dropout=tuning.dropout) as attachment:
        try:
            fit(attachment, data, tuning, pruning=Pruning(), controller=controller, emit=emit)
        finally:
            sys.setprofile(None)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
