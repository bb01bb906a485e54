"""Run a recipe: merge, fine-tune, prune, evaluate; then read the results in Python.

python examples/adapt.py RECIPE.yaml OUTPUT
"""

from __future__ import annotations

import sys

import pomona


def main(recipe: str, output: str) -> None:
    """Run the recipe and print the scores of every system."""
    checked = pomona.check(recipe)
    if not checked.ok:
        sys.exit(repr(checked))
    record = pomona.adapt(recipe, output)
    print(record)
    for system, scores in record.metrics.items():
        found = scores[record.primary_metric]
        print(f"{record.systems[system].label}: {found.value:.2f} [{found.low:.2f}, {found.high:.2f}]")
    print(f"the adapter is in {output}/adapter, the report is {output}/report.html")


if __name__ == "__main__":
    main(*sys.argv[1:])
