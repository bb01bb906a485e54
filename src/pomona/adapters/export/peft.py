"""For PEFT: one rank, alpha equal to it, no patterns."""

from __future__ import annotations

from pathlib import Path

import torch

from pomona.adapters.export.result import Export
from pomona.adapters.factors import Adapter
from pomona.adapters.write import write_adapter


def export_peft(adapter: Adapter, output: Path, *, dtype: torch.dtype | None = None, force: bool = False) -> Export:
    """Write the plain folder that PEFT loads without Pomona (`write_adapter`).

    Args:
        adapter: what to write.
        output: the folder to make.
        dtype: fp32, fp16 or bf16 of what is written; None: the factors' own.
        force: replace an adapter folder that stands there.

    Raises:
        InputError, PomonaError: as `write_adapter`.
    """
    write_adapter(adapter, output, force=force, dtype=dtype)
    rank = max(adapter[module].rank for module in adapter)
    return Export(output, len(adapter), rank, f"Load it with PeftModel.from_pretrained(model, {str(output)!r})")
