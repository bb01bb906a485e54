"""Export for PEFT: one rank, alpha equal to it, no patterns."""

from __future__ import annotations

from pathlib import Path

import torch

from pomona.adapters.export.mixture import TRANSLATED, model_type_of, single_experts_doubt, single_experts_problem
from pomona.adapters.export.plan import vocabulary
from pomona.adapters.export.result import Export, refuse
from pomona.adapters.factors import Adapter
from pomona.adapters.write import write_adapter


def export_peft(
    adapter: Adapter, output: Path, base: Path | None = None, *, dtype: torch.dtype | None = None, force: bool = False
) -> Export:
    """Write the plain folder that PEFT loads without Pomona (`write_adapter`).

    Args:
        adapter: the adapter.
        output: the new folder.
        base: the base model's folder, if it is known.
        dtype: dtype of the file, fp32, fp16 or bf16; None: that of the factors.
        force: replace an existing adapter folder.

    Raises:
        InputError: PEFT would not apply the adapter on this base; the error has the reason and the fix.
        InputError, PomonaError: as `write_adapter`.
    """
    problem = single_experts_problem(adapter, base)
    refuse(adapter, "peft", [] if problem is None else [f"it {problem}"])
    write_adapter(adapter, output, force=force, dtype=dtype, mixture=base is not None and model_type_of(base) in TRANSLATED)
    rank = max(adapter[module].rank for module in adapter)
    doubt = single_experts_doubt(adapter, base)
    use = f"Load it with PeftModel.from_pretrained(model, {str(output)!r})"
    return Export(output, len(adapter), rank, use, warnings=(*(() if doubt is None else (doubt,)), *_resizing(adapter)))


def _resizing(adapter: Adapter) -> tuple[str, ...]:
    """The call that resizes the base, if a whole embedding or head may have another number of rows than the base's."""
    rows = vocabulary(adapter)
    if rows is None:
        return ()
    told = f"it brings an embedding or head of {rows} rows: where the base has another number, call "
    return (f"{told}model.resize_token_embeddings({rows}) before PEFT loads it",)
