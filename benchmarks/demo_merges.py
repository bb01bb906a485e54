"""The effect of each merge method on the demo's two source adapters, compared with delta*: error, rank, time."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pomona.adapters import Adapter, Factors
from pomona.adapters.measure import delta_norm
from pomona.backbone.load import load_backbone
from pomona.merging import merge, merge_methods
from pomona.merging.concat import Concat
from pomona.runs.demo import demo_recipe
from pomona.runs.sources import prepare_source
from pomona.seeding import stream
from pomona.tuning.progress import Silent

REPEATS = 3


def run() -> bool:
    """Print the table; there is no bound, these are properties of the methods."""
    recipe = demo_recipe()
    backbone = load_backbone(recipe.model)
    sources = [prepare_source(source, recipe, backbone, Silent()).adapter for source in recipe.sources]
    columns = "".join(f"{title:>14}" for title in ("off delta*", "of its norm", "rank", "ms a module"))
    print(f"  {len(sources)} adapters of {len(sources[0])} modules on {backbone.name}, weights 1\n  {'method':<40}{columns}")
    for method in merge_methods:
        for parameters in _variants(method):
            _row(method, parameters, sources)
    return True


def _variants(method: str) -> list[dict[str, Any]]:
    """The defaults, and the factors' variant where there is one."""
    return [{}, *([{"on": "factors"}] if "on" in merge_methods.parameters(method) else [])]


def _row(method: str, parameters: Mapping[str, Any], sources: Sequence[Adapter]) -> None:
    merged, seconds = merge(sources, method, **parameters), []
    for _ in range(REPEATS):
        start = time.perf_counter()
        merge(sources, method, **parameters)
        seconds.append((time.perf_counter() - start) / len(merged))
    exact = merge(sources, "concat")
    off = _norm(_difference(merged[module], exact[module]) for module in exact)
    norm, own = _norm(exact[module] for module in exact), _norm(merged[module] for module in exact)
    rank = max(merged[module].rank for module in merged)
    name = " ".join([method, *(f"({key}: {value})" for key, value in parameters.items())])
    print(f"  {name:<40}{off / norm:>14.3f}{own / norm:>14.3f}{rank:>14}{statistics.median(seconds) * 1e3:>14.2f}", flush=True)


def _difference(one: Factors, other: Factors) -> Factors:
    return Concat().merge([one, other], [1.0, -1.0], None, stream(0, "unused"))


def _norm(all_factors: Iterable[Factors]) -> float:
    return math.sqrt(sum(delta_norm(factors) ** 2 for factors in all_factors))


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
