"""What the peers that train with transformers' Trainer have in common: two active PEFT adapters, and a clock of the epoch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


def two_adapters(folder: Path, adapters: Sequence[Path], dropout: float) -> Any:
    """The base model in float32 with both adapters active and trainable."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(adapters[0]), adapter_name="first", is_trainable=True)
    model.load_adapter(str(adapters[1]), adapter_name="second", is_trainable=True)
    model.base_model.set_adapter(["first", "second"])  # pyright: ignore[reportCallIssue]
    for module in model.modules():
        for one in getattr(module, "lora_dropout", {}).values():
            one.p = dropout
    return model


def epoch_clock() -> Any:
    """A callback whose `seconds` are those of the epoch, preparation left out."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        seconds = 0.0

        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            self.seconds = -time.perf_counter()

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            self.seconds += time.perf_counter()

    return Clock()
