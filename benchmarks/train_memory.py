"""Peak memory of a training run above that of the loaded model, compared with Hugging Face Trainer with PEFT.

Every figure comes from a fresh process that reads its examples as tokens from a file. The baseline is the resident memory of a
process that has imported the training code and loaded the model; the others give their maximum. The reference trains the same two
adapters, both active, on the same batches, with transformers' own model, loss and loop. Pomona's processes allocate memory like its
command; the reference uses the defaults.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gemma import gemma_folder
from pomona.backbone.embedded import embedded_model
from pomona.cli.memory import large_tensors_apart

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "scitldr_title" / "en" / "train.jsonl"
STATUS = Path("/proc/self/status")
BATCH, TOKENS, STEPS = 8, 256, 3
RANK, ALPHA, DROPOUT = 8, 32, 0.05
TARGETS = ("q_proj", "v_proj")
PRUNE_RATIO = 0.5
GIB = 2**30


@dataclass(frozen=True)
class Setting:
    """A model, and how many bytes training may take beyond it; no bound where there is none."""

    label: str
    folder: Callable[[], Path]
    bounds: Mapping[str, float]


SETTINGS = (
    Setting("SmolLM2-135M", embedded_model, {"tune": 2.5, "recompute": 1.0}),
    Setting("Gemma 3 270M", gemma_folder, {}),
)


def run() -> bool:
    """Print base and peaks; whether the bounds are met and the peer takes no less."""
    if not STATUS.exists():
        print("no /proc here: peak memory is not measured")
        return True
    met = [_measure(setting) for setting in SETTINGS]
    return all(met)


def _measure(setting: Setting) -> bool:
    folder = setting.folder()
    print(f"{setting.label}, fp32, {BATCH} examples of {TOKENS} tokens a step, 2 adapters of rank {RANK} on q and v, {STEPS} steps")
    met, found = True, dict.fromkeys(JOBS, 0)
    with tempfile.TemporaryDirectory() as scratch:
        rows = Path(scratch) / "rows.json"
        rows.write_text(json.dumps(_rows(folder)), encoding="utf-8")
        for name, job in JOBS.items():
            found[name] = _in_fresh_process(name, folder, rows)
            beyond = (found[name] - found["base"]) / GIB
            bound = setting.bounds.get(name)
            limit = "" if bound is None else f" (bound {bound:+g})"
            print(f"  {job.title}: {found[name] / GIB:.2f} GiB, {beyond:+.3f}{limit}", flush=True)
            met &= bound is None or beyond <= bound
    share = found["tune"] / found["peer"]
    print(f"  training and pruning takes {share:.2f} of the peak of Trainer with PEFT (bound 1)", flush=True)
    return met and share <= 1


def _rows(folder: Path) -> list[dict[str, Any]]:
    """Examples of exactly `TOKENS` tokens: those whose prompt had to be cut."""
    from transformers import AutoTokenizer

    from pomona.backbone.batches import encode
    from pomona.data import examples, read_rows
    from pomona.data.tasks import TitleGeneration

    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded, _ = encode(examples(read_rows(DATA, {"title": "summary"}), TitleGeneration(language="en"), "train"), tokenizer, TOKENS)
    full = [one for one in encoded if len(one) == TOKENS][: STEPS * BATCH]
    assert len(full) == STEPS * BATCH, f"only {len(full)} examples are long enough"
    return [{"tokens": one.tokens, "completion_start": one.completion_start} for one in full]


def _in_fresh_process(job: str, folder: Path, rows: Path) -> int:
    """Bytes that the job reports, on the last line of its output."""
    command = [sys.executable, "-m", "benchmarks.train_memory", job, str(folder), str(rows)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[1])
    return int(done.stdout.splitlines()[-1])


def _base(folder: Path, _: Path) -> int:
    large_tensors_apart()

    import pomona.tuning.fit  # noqa: F401 (what training imports is part of the base)
    from pomona.backbone.load import load_backbone

    backbone = load_backbone(str(folder))
    resident = status_bytes("VmRSS")
    del backbone
    return resident


def _tune(folder: Path, rows: Path, *, recompute: bool = False) -> int:
    large_tensors_apart()

    from pomona.backbone.attach import attached, new_adapter
    from pomona.backbone.batches import Encoded
    from pomona.backbone.load import load_backbone
    from pomona.control import Fixed
    from pomona.seeding import stream
    from pomona.tuning.fit import fit
    from pomona.tuning.settings import FitData, Pruning, Tuning

    backbone = load_backbone(str(folder))
    train = [Encoded(tuple(row["tokens"]), row["completion_start"]) for row in json.loads(rows.read_text(encoding="utf-8"))]
    sources = [new_adapter(backbone, TARGETS, RANK, ALPHA, stream(0, "benchmark", index)) for index in range(2)]
    tuning = Tuning(epochs=1, batch_size=BATCH, dropout=DROPOUT, gradient_checkpointing=recompute)
    with attached(backbone, sources, dropout=DROPOUT) as attachment:
        fitted = fit(attachment, FitData(train), tuning, pruning=Pruning(), controller=Fixed(PRUNE_RATIO))
    assert fitted.tokens == STEPS * BATCH * TOKENS
    return status_bytes("VmHWM")


def _recompute(folder: Path, rows: Path) -> int:
    return _tune(folder, rows, recompute=True)


def _peer(folder: Path, rows: Path) -> int:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments, default_data_collator
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    warnings.simplefilter("ignore")
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=DROPOUT, target_modules=list(TARGETS), task_type="CAUSAL_LM")
    model: Any = get_peft_model(base, config, adapter_name="0")
    model.add_adapter("1", config)
    model.base_model.set_adapter(["0", "1"])
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert len(trained) == 8 * base.config.num_hidden_layers, "A and B of two adapters on two modules of each layer"
    train: Any = [
        {"input_ids": row["tokens"], "labels": [-100] * row["completion_start"] + row["tokens"][row["completion_start"] :]}
        for row in json.loads(rows.read_text(encoding="utf-8"))
    ]
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            report_to=[],
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=train, data_collator=default_data_collator)
        trainer.train()
    assert trainer.state.global_step == STEPS
    return status_bytes("VmHWM")


@dataclass(frozen=True)
class Job:
    """What a fresh process does, given the model's folder and the file of examples; it returns bytes."""

    title: str
    work: Callable[[Path, Path], int]


JOBS: Mapping[str, Job] = {
    "base": Job("model loaded", _base),
    "tune": Job("training and pruning, peak", _tune),
    "recompute": Job("with gradient checkpointing, peak", _recompute),
    "peer": Job("Trainer with PEFT, peak", _peer),
}


def status_bytes(field: str) -> int:
    """Bytes of a field of this process's status. `getrusage` would give its parent's peak, where that is higher."""
    return next(int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith(field + ":"))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        run()
    else:
        print(JOBS[sys.argv[1]].work(Path(sys.argv[2]), Path(sys.argv[3])))
