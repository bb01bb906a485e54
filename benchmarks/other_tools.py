"""What PEFT's `add_weighted_adapter` and TRL's trainer do with the same adapters: the tables of docs/comparison.md.

A tiny Llama with random weights, adapters made by PEFT and by TRL, on a CPU, in seconds. `python -m benchmarks other_tools` prints
them; every figure is a share of the merged update's norm.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pomona.adapters import Adapter, read_adapter
from pomona.errors import PomonaError
from pomona.merging import merge

BOUND = 1e-4
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "cat": ("concat", {}),
    "svd": ("svd", {}),
    "linear": ("linear", {}),
    "magnitude_prune_svd": ("magnitude_prune", {"density": 0.5}),
    "magnitude_prune": ("magnitude_prune", {"density": 0.5, "on": "factors"}),
    "ties": ("ties", {"density": 0.5, "on": "factors"}),
    "ties_svd": ("ties", {"density": 0.5}),
}
"""PEFT's combination type -> Pomona's method. DARE draws, so it has no same result."""
WEIGHTED_VOTES = "ties_svd"
"""Where Pomona departs on purpose: its votes are weighted (decision 13)."""


def run() -> bool:
    """Print both tables; False where a method that both have gives another result."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        agree = _peft(Path(folder))
        trained = _trl(Path(folder))
    return agree and trained


def _model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48}
    return LlamaForCausalLM(LlamaConfig(**shape, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=512))


def _saved(folder: Path, name: str, rank: int, modules: Sequence[str]) -> Path:
    """A folder that PEFT wrote, with random factors."""
    import peft

    config = peft.LoraConfig(r=rank, lora_alpha=16, target_modules=list(modules), init_lora_weights=False, task_type="CAUSAL_LM")
    model = _model()
    torch.manual_seed(ord(name))
    peft.get_peft_model(model, config).save_pretrained(str(folder / name))
    return folder / name


def _peft(folder: Path) -> bool:
    pairs = {
        "one rank, the same modules": (_saved(folder, "a", 4, ["q_proj"]), _saved(folder, "b", 4, ["q_proj"])),
        "ranks 4 and 8": (_saved(folder, "c", 4, ["q_proj"]), _saved(folder, "d", 8, ["q_proj"])),
        "q_proj, and q_proj with v_proj": (_saved(folder, "e", 4, ["q_proj"]), _saved(folder, "f", 4, ["q_proj", "v_proj"])),
    }
    print(f"PEFT {importlib.metadata.version('peft')}, `add_weighted_adapter` with weights 1 and 0.5\n")
    print("| combination type | " + " | ".join(pairs) + " |\n" + "| --- " * (len(pairs) + 1) + "|")
    agree = True
    for kind, (method, given) in METHODS.items():
        cells = []
        for first, second in pairs.values():
            theirs = _merged_by_peft(folder, first, second, kind, given)
            ours = _merged_here(first, second, method, given)
            cell = _compared(theirs, ours)
            agree &= kind == WEIGHTED_VOTES or isinstance(theirs, str) or cell.startswith("same")
            cells.append(cell)
        print(f"| `{kind}` | " + " | ".join(cells) + " |")
    print()
    return agree


def _merged_by_peft(folder: Path, first: Path, second: Path, kind: str, given: dict[str, Any]) -> Adapter | str:
    """PEFT's merge, saved and read; or its error."""
    import peft

    model: Any = peft.PeftModel.from_pretrained(_model(), str(first), adapter_name="first")
    model.load_adapter(str(second), adapter_name="second")
    out = folder / f"{first.name}-{kind}"
    try:
        theirs = {name: value for name, value in given.items() if name != "on"}
        model.add_weighted_adapter(["first", "second"], [1.0, 0.5], "both", combination_type=kind, **theirs)
    except Exception as error:  # each kind of adapters has its own
        return f"refused ({type(error).__name__})"
    model.save_pretrained(str(out), selected_adapters=["both"])
    return read_adapter(out / "both")


def _merged_here(first: Path, second: Path, method: str, given: dict[str, Any]) -> Adapter | str:
    try:
        return merge([read_adapter(first), read_adapter(second)], method, [1.0, 0.5], **given)
    except PomonaError as error:
        return str(error)


def _compared(theirs: Adapter | str, ours: Adapter | str) -> str:
    if isinstance(theirs, str):
        return f"PEFT: {theirs}; Pomona {'merges' if isinstance(ours, Adapter) else 'refuses too'}"
    if isinstance(ours, str):
        return f"Pomona: {ours}"
    if set(theirs.modules) != set(ours.modules):
        return f"PEFT has {len(theirs)} modules, Pomona {len(ours)}"
    norm = sum(float(ours.delta(name).norm() ** 2) for name in ours.modules) ** 0.5
    apart = sum(float((ours.delta(name) - theirs.delta(name)).norm() ** 2) for name in ours.modules) ** 0.5 / norm
    return "same" if apart < BOUND else f"differ by {apart:.2f}"


def _trl(folder: Path) -> bool:
    """An adapter of TRL's trainer goes straight into a merge."""
    import datasets
    import peft
    from tests.tiny import tiny_tokenizer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    rows = [{"prompt": f"Add {i} and {i}.", "completion": f" {2 * i}"} for i in range(8)]
    settings = SFTConfig(
        str(folder / "trl"), max_steps=2, per_device_train_batch_size=4, report_to=[], use_cpu=True, logging_steps=9
    )
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        trainer = SFTTrainer(
            _model(),
            settings,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=tiny_tokenizer(),
            peft_config=config,
        )
        trainer.train()
        trainer.save_model(str(folder / "trl"))
    trained = read_adapter(folder / "trl")
    both = merge([trained, read_adapter(folder / "a")], "svd", [1.0, 0.5])
    moved = any(float(trained.delta(name).abs().max()) > 0 for name in trained.modules)
    print(
        f"TRL {importlib.metadata.version('trl')}: SFTTrainer, 2 steps: Pomona reads its adapter ({len(trained)} modules, trained:"
    )
    print(f"{moved}) and merges it with one of PEFT ({len(both)} modules)")
    return moved and len(both) == len(trained)
