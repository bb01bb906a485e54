"""Write a recipe in Python, without a YAML file, and run it for two prune ratios.

    python examples/recipe_in_python.py DATA.jsonl MODEL OUTPUT ADAPTER...

The data have the fields `document` and `summary`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pomona


def main(data: str, model: str, output: str, adapters: list[str]) -> None:
    """Compare two given prune ratios on one small split."""
    for prune_ratio in (0.0, 0.5):
        recipe = pomona.read_recipe(
            {
                "name": f"ratio-{prune_ratio}",
                "model": model,
                "task": {"name": "summarization", "max_new_tokens": 8},
                "data": {"train": data},
                "splits": {"train": 16, "micro_dev": 4, "dev": 4, "test": 6},
                "sources": [{"name": Path(path).name, "adapter": path} for path in adapters],
                "tuning": {"epochs": 1, "batch_size": 4},
                "controller": {"name": "fixed", "prune_ratio": prune_ratio},
                "evaluation": {"baselines": ["zero_shot"], "draws": 200},
            }
        )
        record = pomona.adapt(recipe, Path(output) / recipe.name)
        print(
            f"{recipe.name}: sparsity {record.sparsity}, {record.primary_metric} {record.metrics['pomona'][record.primary_metric]}"
        )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
