"""The small runs of `golden_runs`: a tiny model, adapters and data on disk, and a recipe for each code path of the program.

transformers makes the model and PEFT the adapters, so they do not depend on the revision of Pomona. All paths in the recipes are
relative to the folder.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml


@dataclass(frozen=True)
class Case:
    """A run.

    Args:
        changes: what its recipe has in place of what `recipe` gives.
        ranks: how many processes share it.
        killed: it is killed after its first round, and resumed.
        needs: a package without which there is no such run.
    """

    changes: Mapping[str, Any]
    ranks: int = 1
    killed: bool = False
    needs: str | None = None

    @property
    def possible(self) -> bool:
        """Whether what it needs is installed."""
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


def _tuning(**changes: Any) -> dict[str, Any]:
    return {"epochs": 3, "batch_size": 4, "learning_rate": 0.01, "checkpoint_steps": 1} | changes


_PAPER = {
    "sources": [{"name": "alpha", "adapter": "adapters/alpha"}, {"name": "gamma", "adapter": "adapters/gamma"}],
    "merge": {"method": "linear", "target": True, "paper": True},
    "tuning": _tuning(batch_size=1, accumulation_steps=4, epochs=2, dropout=0, gradient_clip=None, weight_decay=0.01),
    "pruning": {"metric": "delta_sensitivity", "paper": True, "masks": "adapter", "prunes_ties": True},
}
_BAYES = {"controller": {"name": "bayes", "interval_steps": 3}}
_GRASP = {"controller": {"name": "grasp", "interval_steps": 3, "commit_level": 0, "mode": "two_pass"}}
_LAYERWISE = {
    "controller": {"name": "layerwise", "groups": 2, "interval_steps": 3, "commit_level": 0},
    "merge": {"method": "linear", "weights_learning_rate": 0.05},
    "pruning": {"metric": "gradient_smoothed"},
}

CASES: Mapping[str, Case] = {
    "concat, bayes, all baselines": Case(
        _BAYES
        | {
            "evaluation": {
                "baselines": [
                    "zero_shot",
                    "target_lora",
                    "concat",
                    "linear",
                    "svd",
                    "ties",
                    "dare_linear",
                    "knots",
                    "merge_finetune",
                ],
                "draws": 200,
            }
        }
    ),
    "linear, fixed, cubic": Case(
        {
            "merge": {"method": "linear"},
            "controller": {"name": "fixed", "prune_ratio": 0.4},
            "pruning": {"metric": "magnitude", "schedule": "cubic"},
            "evaluation": {"baselines": ["merge_finetune"], "draws": 200},
        }
    ),
    "linear as ALM published it": Case(_PAPER | {"controller": {"name": "fixed", "prune_ratio": 0.5}}),
    "grasp as published, search of another seed": Case(
        _PAPER
        | {
            "controller": {"name": "grasp", "paper": True, "mode": "two_pass", "interval_steps": 2},
            "search": {"metric": "magnitude", "accumulation_steps": 2, "patience_epochs": 2, "seed": 42},
        }
    ),
    "svd pair, grasp, accumulation": Case(
        {
            "merge": {"method": "svd", "rank": 4},
            "controller": {"name": "grasp", "interval_steps": 1, "proposals": 5, "race_level": 0.9},
            "tuning": _tuning(accumulation_steps=2),
        }
    ),
    "ties pair of a target LoRA": Case(
        {
            "merge": {"method": "ties", "parameters": {"density": 0.5}, "target": True},
            "controller": {"name": "fixed", "prune_ratio": 0.3},
        }
    ),
    "concat, trained weights, a frozen source": Case(
        {
            "merge": {"method": "concat", "weights_learning_rate": 0.05, "frozen": ["beta"]},
            "pruning": {"metric": "gradient"},
            **_BAYES,
        }
    ),
    "linear, trained weights, layerwise": Case(_LAYERWISE),
    "linear, a frozen source, a ratio a group of layers": Case(
        {
            "merge": {"method": "linear", "frozen": ["alpha"]},
            "controller": {"name": "fixed", "prune_ratio": [0.2, 0.6]},
            "pruning": {"interval_steps": 2, "forgetting": 0.5},
        }
    ),
    "grid, rank of a layer, linear schedule": Case(
        {
            "controller": {"name": "grid", "prune_ratios": [0.2, 0.5]},
            "pruning": {"granularity": "rank", "scope": "layer", "schedule": "linear", "metric": "gradient"},
        }
    ),
    "tpe, rank of all, once": Case(
        {
            "controller": {"name": "tpe", "trials": 3, "startup_trials": 2},
            "pruning": {"granularity": "rank", "scope": "global", "schedule": "once"},
            "tuning": _tuning(epochs=2),
        },
        needs="optuna",
    ),
    "modules, full pass, bayes in two passes": Case(
        {
            "controller": {"name": "bayes", "interval_steps": 5, "mode": "two_pass"},
            "pruning": {"granularity": "module", "activations": "full_pass"},
        }
    ),
    "rank of a tensor, grasp": Case(
        {"controller": {"name": "grasp", "interval_steps": 3}, "pruning": {"granularity": "rank", "metric": "activation"}}
    ),
    "entries of all, reset initial, recomputed": Case(
        {
            "controller": {"name": "bayes", "interval_steps": 4},
            "pruning": {"scope": "global", "reset": "initial", "metric": "gradient_activation"},
            "tuning": _tuning(gradient_checkpointing=True),
        }
    ),
    "entries of a layer, merged masks, bfloat16": Case(
        {"controller": {"name": "fixed", "prune_ratio": 0.5}, "pruning": {"scope": "layer", "masks": "merged"}, "dtype": "bfloat16"}
    ),
    "judged by metrics, patience": Case(
        {
            "select_by": "rouge_l",
            "reward": {"loss": 0.5, "token_f1": 0.5},
            "tuning": _tuning(patience_epochs=1),
            "pruning": {"metric": "delta_sensitivity"},
            **_BAYES,
        }
    ),
    "a source trained here": Case(
        {
            "sources": [
                {"name": "alpha", "adapter": "adapters/alpha", "weight": [0.5, 1.0]},
                {"name": "delta", "data": {"train": "source.jsonl"}, "tuning": {"epochs": 2, "batch_size": 4}},
            ],
            "merge": {"method": "concat", "target": True},
            "controller": {"name": "fixed", "prune_ratio": 0.5},
        }
    ),
    "grasp in two passes": Case(_GRASP),
    "concat on two ranks": Case(_BAYES, ranks=2),
    "trained weights by a full pass on two ranks": Case(
        {
            "merge": {"method": "linear", "weights_learning_rate": 0.05},
            "controller": {"name": "grasp", "interval_steps": 2, "commit_level": 0},
            "pruning": {"activations": "full_pass", "reset": "initial"},
        },
        ranks=2,
    ),
    "bayes, killed and resumed": Case(_BAYES | {"name": "bayes"}, killed=True),
    "grasp in two passes, killed and resumed": Case(_GRASP, killed=True),
    "layerwise, killed and resumed": Case(_LAYERWISE, killed=True),
}


def recipe(name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """18 steps on 24 examples unless `changes` say otherwise; a second or less on one core."""
    return {
        "name": name,
        "model": "model",
        "task": {"name": "summarization", "max_new_tokens": 6},
        "data": {"train": "data.jsonl"},
        "splits": {"train": 24, "micro_dev": 6, "dev": 4, "test": 6},
        "sources": [
            {"name": "alpha", "adapter": "adapters/alpha"},
            {"name": "beta", "adapter": "adapters/beta", "weight": 0.5},
        ],
        "lora": {"rank": 3, "alpha": 6},
        "tuning": _tuning(),
        "evaluation": {"baselines": ["zero_shot"], "draws": 200},
    } | dict(changes)


def file_name(name: str) -> str:
    """A case's name as that of a file."""
    return name.replace(",", "").replace(" ", "-")


def write_setting(folder: Path, cases: Mapping[str, Case]) -> None:
    """Fill `folder` with what the cases' recipes name, and with the recipes."""
    from tests.end_to_end.setting import rows, write_rows
    from tests.tiny import save_tiny_model

    save_tiny_model(folder / "model")
    write_rows(folder / "data.jsonl", rows(40))
    write_rows(folder / "source.jsonl", rows(12, first=100))
    _write_adapter(folder / "adapters" / "alpha", folder / "model", ["q_proj", "v_proj"], rank=3, seed=1)
    _write_adapter(folder / "adapters" / "beta", folder / "model", ["q_proj", "v_proj", "down_proj"], rank=2, seed=2)
    _write_adapter(folder / "adapters" / "gamma", folder / "model", ["q_proj", "v_proj"], rank=2, seed=3)
    for name, case in cases.items():
        text = yaml.safe_dump(recipe(file_name(name), case.changes), sort_keys=False)
        (folder / f"{file_name(name)}.yaml").write_text(text, encoding="utf-8")


def _write_adapter(folder: Path, model: Path, targets: list[str], rank: int, seed: int) -> None:
    """A LoRA as PEFT saves it, with random factors that matter."""
    import transformers as hf
    from peft import LoraConfig, get_peft_model

    base = hf.AutoModelForCausalLM.from_pretrained(model)
    adapted: Any = get_peft_model(base, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.15
    adapted.save_pretrained(folder)
