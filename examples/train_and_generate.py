"""Train a plain LoRA, and compare what the model writes with it and without it.

python examples/train_and_generate.py RECIPE.yaml OUTPUT PROMPT...
"""

from __future__ import annotations

import sys

import pomona


def main(recipe: str, output: str, prompts: list[str]) -> None:
    """Train, then answer each prompt twice."""
    adapter = pomona.train_adapter(recipe, output, overrides=["tuning.epochs=1"])
    model = pomona.read_recipe(recipe, pomona.TrainRecipe).model
    bare = pomona.generate(prompts, model=model, max_new_tokens=16, line=True)
    tuned = pomona.generate(prompts, adapter, model=model, max_new_tokens=16, line=True)
    for prompt, before, after in zip(prompts, bare.texts, tuned.texts, strict=True):
        print(f"{prompt}\n  without the adapter: {before}\n  with it:             {after}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
