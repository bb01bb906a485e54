"""Run every benchmark, or the named ones: `python -m benchmarks step_overhead`.

Commands with arguments are not part of `every`; their help describes them: `python -m benchmarks golden_runs --help`.
"""

from __future__ import annotations

import importlib
import sys

NAMES = (
    "architectures",
    "frozen_products",
    "step_overhead",
    "other_tools",
    "by_hand",
    "merge_exact",
    "merge_speed",
    "merge_io",
    "demo_merges",
    "leaks",
    "scoring",
    "coverage",
    "generation",
    "train_speed",
    "published_step",
    "controller_cost",
    "controller_savings",
    "controller_toy",
    "controller_policy",
    "probe_batching",
    "train_memory",
    "scale",
    "busy_machine",
    "launches",
)
COMMANDS = ("golden_runs", "house", "judges", "mutation")


def main(chosen: list[str]) -> int:
    """Print each benchmark's figures; 1 where one misses its bound."""
    if chosen and chosen[0] in COMMANDS:
        return 0 if importlib.import_module(f"benchmarks.{chosen[0]}").run(chosen[1:]) else 1
    unknown = [name for name in chosen if name not in NAMES]
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; known: {', '.join((*NAMES, *COMMANDS))}", file=sys.stderr)
        return 2
    met = True
    for name in chosen or NAMES:
        print(f"== {name}", flush=True)
        met &= importlib.import_module(f"benchmarks.{name}").run()
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
