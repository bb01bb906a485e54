"""An epoch of TRL's SFTTrainer over two PEFT adapters, with the flags that are fastest on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.trainer_peer import epoch_clock, two_adapters
from pomona.backbone.batches import Encoded

CONFIGURATIONS: Mapping[str, Mapping[str, Any]] = {
    "padded": {},
    "grouped by length": {"train_sampling_strategy": "group_by_length"},
    "padding-free": {"padding_free": True},
    "grouped, bf16": {"train_sampling_strategy": "group_by_length", "bf16": True},
}
"""Of SFTTrainer, all with `completion_only_loss`. Padding-free batches are for flash attention, and run without it here."""


@dataclass(frozen=True)
class SftTrainer:
    """The peer.

    Args:
        folder: of the base model.
        adapters: folders of two PEFT adapters, both trained.
        batch_size, dropout, learning_rate: as ours.
        scratch: where the trainer may write.
    """

    folder: Path
    adapters: Sequence[Path]
    batch_size: int
    dropout: float
    learning_rate: float
    scratch: Path

    def fastest(self, encoded: Sequence[Encoded]) -> str:
        """The name of the fastest of `CONFIGURATIONS` on these examples; prints the seconds of each."""
        seconds = {name: self.seconds(encoded, name) for name in CONFIGURATIONS}
        print("  SFTTrainer, seconds: " + ", ".join(f"{name} {found:.1f}" for name, found in seconds.items()), flush=True)
        return min(seconds, key=lambda name: seconds[name])

    def seconds(self, encoded: Sequence[Encoded], configuration: str) -> float:
        """Seconds of an epoch in a configuration, its preparation left out."""
        from datasets import Dataset
        from transformers import AutoTokenizer
        from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportPrivateImportUsage]

        clock = epoch_clock()
        tokenizer = AutoTokenizer.from_pretrained(self.folder)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        SFTTrainer(
            model=two_adapters(self.folder, self.adapters, self.dropout),
            args=SFTConfig(
                output_dir=str(self.scratch),
                per_device_train_batch_size=self.batch_size,
                num_train_epochs=1,
                learning_rate=self.learning_rate,
                weight_decay=0.0,
                max_grad_norm=1.0,
                gradient_checkpointing=False,
                completion_only_loss=True,
                max_length=None,
                report_to=[],
                dataloader_pin_memory=False,
                logging_strategy="no",
                save_strategy="no",
                disable_tqdm=True,
                use_cpu=not torch.cuda.is_available(),
                **{"bf16": False, **CONFIGURATIONS[configuration]},
            ),
            processing_class=tokenizer,
            train_dataset=Dataset.from_list([_masked(example) for example in encoded]),
            callbacks=[clock],
        ).train()
        return clock.seconds


def _masked(example: Encoded) -> dict[str, list[int]]:
    completion = len(example) - example.completion_start
    return {"input_ids": list(example.tokens), "completion_mask": [0] * example.completion_start + [1] * completion}
