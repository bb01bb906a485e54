"""Score adapters on the test split of a recipe, with 95 % intervals, and compare every pair of them.

python examples/evaluate.py RECIPE.yaml ADAPTER...
"""

from __future__ import annotations

import sys

import pomona


def main(path: str, adapters: list[str]) -> None:
    """Load the recipe's model once, and score the bare model and each adapter."""
    recipe = pomona.read_recipe(path)
    backbone = pomona.load_backbone(recipe.model, recipe.device, recipe.dtype)
    test = pomona.read_splits(recipe).test
    record = pomona.evaluate(backbone, adapters, test, recipe.task, max_tokens=recipe.tuning.max_tokens)
    print(record)
    for one in record.comparisons:
        print(f"{one.system} - {one.baseline}: {one.metric} {one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}]")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
