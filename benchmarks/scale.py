"""How time and memory of a training step grow: with tokens, adapters, rank, the model's width, and masks on trial in a round.

A Llama with random weights (8 layers, fp32) is trained in fresh processes of one thread. One setting is the base; each row of the
table changes one quantity of it. Seconds are the process's own, of an optimizer step with pruning (the median of some) or of a
round's losses; bytes are the process's peak beyond the loaded model. A straight line is fitted to each column: what is there
anyway, and what each unit adds.

The second table is arithmetic, not measurement: what Llama 3 8B in bfloat16 holds with more and more adapters.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.llama import ALL, LAYERS, QV
from benchmarks.train_memory import STATUS, status_bytes
from pomona.backbone.embedded import embedded_model
from pomona.cli.memory import large_tensors_apart

if TYPE_CHECKING:
    from pomona.backbone.attach import Attachment
    from pomona.backbone.batches import Encoded

MODEL_LAYERS, COMPLETION, STEPS, MICRO_DEV = 8, 24, 5, 16
MIB, GB = 2**20, 1e9
_TRAINED_BYTES = 16 + 8
"""Of each trained entry: factor, gradient and two moments; the stash of what is pruned, and the best epoch's copy."""
_WEIGHTS_GB = 16.1
"""Of Llama 3 8B in bfloat16: 8.03 billion parameters."""


@dataclass(frozen=True)
class Setting:
    """What a process trains.

    Args:
        width: of the hidden states.
        examples, tokens: of a step.
        adapters, rank: on q and v.
        masks: on trial in a round; 0: no round is timed.
    """

    width: int = 512
    examples: int = 8
    tokens: int = 128
    adapters: int = 2
    rank: int = 8
    masks: int = 0


AXES: Mapping[str, Sequence[int]] = {
    "width": (256, 512, 768, 1024),
    "examples": (4, 8, 16, 32),
    "tokens": (64, 128, 256, 512),
    "adapters": (1, 2, 4, 8, 16),
    "rank": (4, 8, 16, 32, 64),
    "masks": (1, 2, 4, 8),
}


@dataclass(frozen=True)
class Taken:
    """Seconds of a step or a round, and bytes beyond the loaded model."""

    seconds: float
    bytes: int


def run() -> bool:
    """Print both tables."""
    if not STATUS.exists():
        print("no /proc here: peak memory is not measured")
        return True
    base = Setting()
    print(f"Llama, {MODEL_LAYERS} layers; the base: {base}")
    with tempfile.TemporaryDirectory() as scratch:
        for axis, values in AXES.items():
            found = [_in_fresh_process(dataclasses.replace(base, **{axis: value}), Path(scratch)) for value in values]
            for value, one in zip(values, found, strict=True):
                print(f"  {axis:<9} {value:5}   {one.seconds:7.3f} s   {one.bytes / MIB:8.1f} MiB", flush=True)
            seconds = _line(values, [one.seconds for one in found])
            memory = _line(values, [one.bytes / MIB for one in found])
            print(f"  {axis:<9} line:   {seconds}, s   {memory}, MiB", flush=True)
    print_eight_billion()
    return True


def print_eight_billion() -> None:
    """What Llama 3 8B holds beyond activations: weights in bfloat16, and all that a trained entry takes, in GB."""
    for label, shapes in (("q and v", QV), ("all linear modules", ALL)):
        entries = LAYERS * sum(sum(shape) for shape in shapes.values()) * 8
        print(f"Llama 3 8B, rank 8 on {label}: {entries / 1e6:.1f} million entries an adapter")
        for adapters in (1, 2, 10, 100):
            factors = adapters * entries * _TRAINED_BYTES / GB
            whole = factors + _WEIGHTS_GB
            print(f"  {adapters:4} adapters: {factors:6.1f} GB of factors, optimizer and copies; with the weights {whole:6.1f} GB")


def _line(x: Sequence[float], y: Sequence[float]) -> str:
    slope, start = np.polyfit(x, y, 1)
    left = np.asarray(y) - (start + slope * np.asarray(x))
    spread = float(np.var(y))
    return f"{start:.4g} + {slope:.4g} x (R2 {1 - float(np.var(left)) / spread if spread else 1:.3f})"


def _in_fresh_process(setting: Setting, scratch: Path) -> Taken:
    model = scratch / f"width-{setting.width}"
    if not model.exists():
        _save_model(model, setting.width)
    given = json.dumps(dataclasses.asdict(setting))
    command = [sys.executable, "-m", "benchmarks.scale", str(model), given]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[1])
    return Taken(**json.loads(done.stdout.splitlines()[-1]))


def _save_model(folder: Path, width: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    given = embedded_model()
    vocabulary = json.loads((given / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=MODEL_LAYERS,
            num_attention_heads=width // 64,
            num_key_value_heads=width // 128,
        )
    ).save_pretrained(folder)
    for path in given.glob("*token*"):
        shutil.copy(path, folder)


def _child(folder: Path, setting: Setting) -> Taken:
    large_tensors_apart()

    import torch

    from pomona.backbone.attach import attached, new_adapter
    from pomona.backbone.batches import Encoded
    from pomona.backbone.load import load_backbone
    from pomona.control import Fixed
    from pomona.seeding import stream
    from pomona.tuning.fit import fit
    from pomona.tuning.settings import FitData, Pruning, Tuning

    torch.set_num_threads(1)  # so the process's seconds are those of one core, whatever else the machine does
    backbone = load_backbone(str(folder))
    drawn = torch.randint(10, 1000, (STEPS * setting.examples, setting.tokens), generator=stream(0, "scale")).tolist()
    train = [Encoded(tuple(tokens), setting.tokens - COMPLETION) for tokens in drawn]
    targets = ("q_proj", "v_proj")
    sources = [new_adapter(backbone, targets, setting.rank, 32, stream(0, "scale", place)) for place in range(setting.adapters)]
    resident = status_bytes("VmRSS")
    ticks: list[float] = []
    with attached(backbone, sources) as attachment:
        if setting.masks:
            ticks += _round(attachment, train[:MICRO_DEV], setting.masks)
        else:
            tuning = Tuning(epochs=1, batch_size=setting.examples, dropout=0.0)
            told = lambda _: ticks.append(time.process_time())  # noqa: E731
            fit(attachment, FitData(train), tuning, pruning=Pruning(), controller=Fixed(0.5), emit=told)
    steps = [after - before for before, after in itertools.pairwise(ticks)]
    return Taken(statistics.median(steps), status_bytes("VmHWM") - resident)


def _round(attachment: Attachment, examples: Sequence[Encoded], masks: int) -> list[float]:
    """The times between which the losses of some masks were measured."""
    from pomona.backbone.candidates import candidate_losses

    candidates = [
        {name: values.detach() * (1 - place / (2 * masks)) for name, values in attachment.parameters().items()}
        for place in range(masks)
    ]
    ticks = [time.process_time()]
    for _ in range(STEPS):
        candidate_losses(attachment, examples, candidates, 2048)
        ticks.append(time.process_time())
    return ticks


if __name__ == "__main__":
    if len(sys.argv) == 1:
        run()
    else:
        print(json.dumps(dataclasses.asdict(_child(Path(sys.argv[1]), Setting(**json.loads(sys.argv[2]))))))
