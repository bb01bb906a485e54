"""A first use of an installed Pomona, with nothing but what it depends on: `python packaging/smoke.py`, by its interpreter.

In an empty folder: a tiny model with random weights, two adapters trained for it, their merge, the main job with its report, an
export, and what needs no model. Each command must exit with 0 and leave its files. Half a minute on one core.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

WORDS = [f"{first}{last}" for first in ("am", "bir", "ce", "du", "em") for last in ("ber", "ch", "dar", "ne")]
RECIPE = {
    "name": "titles",
    "model": "model",
    "task": {"name": "summarization", "max_new_tokens": 4},
    "data": {"train": "rows.jsonl"},
    "splits": {"train": 16, "micro_dev": 4, "dev": 4, "test": 6},
    "sources": [{"name": "news", "adapter": "adapters/news"}, {"name": "wiki", "adapter": "adapters/wiki", "weight": 0.5}],
    "tuning": {"epochs": 2, "batch_size": 4},
    "controller": {"name": "bayes", "interval_steps": 2},
    "evaluation": {"draws": 100, "baselines": ["zero_shot", "target_lora", "concat", "svd", "merge_finetune"]},
}


def main() -> int:
    """Run all commands; the exit code of this script."""
    print(f"pomona {importlib.metadata.version('pomona')} on Python {sys.version.split()[0]}:", _versions(), flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder)
        for command in (
            ("--version",),
            ("list", "--json"),
            ("env",),
            ("recipes", "single-pass", "--output", "single-pass.yaml"),
            ("train-adapter", "news.json", "--output", "adapters/news"),
            ("train-adapter", "news.json", "--set", "seed=1", "--output", "adapters/wiki"),
            ("inspect", "adapters/news", "adapters/wiki"),
            ("init", "first.yaml", "--data", "rows.jsonl", "--adapter", "adapters/news", "--model", "model"),
            ("merge", "adapters/news", "adapters/wiki", "--method", "svd", "--output", "adapters/both"),
            ("check", "adapters/news", "adapters/wiki", "titles.yaml", "--no-trial"),
            ("adapt", "titles.yaml"),
            ("export", "runs/titles/adapter", "--for", "vllm", "--output", "served"),
            ("export", "runs/titles/adapter", "--for", "merged", "--base", "model", "--output", "whole"),
            ("generate", "amber birch", "--adapter", "served", "--model", "model", "--max-new-tokens", "4"),
        ):
            _call(folder, *command)
        record = json.loads((folder / "runs/titles/record.json").read_text(encoding="utf-8"))
        assert record["status"] == "done", record["error"]
        assert set(record["metrics"]) == {"zero_shot", "target_lora", "concat", "svd", "merge_finetune", "pomona"}, record[
            "metrics"
        ]
        assert "<html" in (folder / "runs/titles/report.html").read_text(encoding="utf-8")[:200].lower()
        for path in ("served/adapter_model.safetensors", "whole/model.safetensors", "single-pass.yaml", "first.yaml"):
            assert (folder / path).stat().st_size > 0, path
    print("all commands ran")
    return 0


def _call(folder: Path, *arguments: str) -> None:
    print("pomona", *arguments, flush=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "error::DeprecationWarning:pomona", "-m", "pomona", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def _write(folder: Path) -> None:
    """A model, rows and recipes (JSON is YAML)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS)], trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>").save_pretrained(
        str(folder / "model")
    )
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(str(folder / "model"))
    rows = []
    for number in range(40):
        words = [WORDS[(number * step + step) % 20] for step in (1, 7, 3, 9)]
        rows.append({"document": f"{' '.join(words)} {number}", "summary": " ".join(words[:2])})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "titles.yaml").write_text(json.dumps(RECIPE), encoding="utf-8")
    train = {
        "name": "news",
        "model": "model",
        "task": RECIPE["task"],
        "data": RECIPE["data"],
        "examples": 8,
        "tuning": {"epochs": 1},
    }
    (folder / "news.json").write_text(json.dumps(train), encoding="utf-8")


def _versions() -> str:
    names = ("torch", "transformers", "safetensors", "pydantic", "typer", "numpy", "sacrebleu", "gguf", "jaxtyping")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


if __name__ == "__main__":
    sys.exit(main())
