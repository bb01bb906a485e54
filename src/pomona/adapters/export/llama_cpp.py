"""Export for llama.cpp: one GGUF file for `--lora`, used together with the GGUF file of the base.

llama.cpp computes `scale = alpha / r` for each pair from its own rank. So a pair keeps its rank, and the rest of its scaling is
multiplied into B. GGUF lists axes from the fastest: [R, I] here is [I, R] there.

Axes: R rank, I input features, O output features, D features a head.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pomona.adapters.experts import expert_of
from pomona.adapters.export.base import ARCHITECTURES, Architecture, Base
from pomona.adapters.export.output import appearing_file, refuse_output
from pomona.adapters.export.result import Export, refuse
from pomona.adapters.factors import Adapter, Factors
from pomona.adapters.full_tensors import factors_only
from pomona.adapters.shapes import shape_of
from pomona.adapters.tensors import all_finite, not_finite

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType
    from numpy.typing import NDArray

# Tensors for which llama.cpp's graphs look up a LoRA; a LoRA of any other tensor is ignored silently.
_LINEAR = frozenset({"attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "ffn_gate", "ffn_up", "ffn_down"})
_LAYER = re.compile(r"\.([0-9]{1,6})\.")
_EMBEDDING, _HEAD = "token_embd", "output"
_MERGED = "Export it with --for merged, and convert that model to GGUF"


def problems(adapter: Adapter, base: Base | None = None) -> list[str]:
    """The reasons why llama.cpp would not load an adapter, one sentence each; without `base`, for any known architecture."""
    expert = next((expert for path in adapter if (expert := expert_of(path)) is not None), None)
    if expert is not None:
        return [f"adapts {expert.parameter} as a bare parameter (target_parameters), which llama.cpp has no LoRA for. {_MERGED}."]
    if found := factors_only(adapter, "llama.cpp"):
        return found
    if base is None:
        unnamed = [_unnamed(adapter, known, None) for known in ARCHITECTURES.values()]
        fewest = min(unnamed, key=len)
        return [f"adapts {fewest[0]}, which llama.cpp has under no name in {_supported()}. {_MERGED}."] if fewest else []
    if base.architecture is None:
        return [f"is for a {base.name}; those that can be converted truly are {_supported()}. {_MERGED}."]
    unnamed_modules = _unnamed(adapter, base.architecture, base.layers)
    if unnamed_modules:
        return [f"adapts {unnamed_modules[0]}, where llama.cpp's {base.architecture.gguf} takes no LoRA. {_MERGED}."]
    names = _tensor_names(adapter, base.architecture, base.layers)
    return [problem for module, name in names.items() if (problem := _misfit(adapter, module, name, base))]


def export_llama_cpp(
    adapter: Adapter, output: Path, base: Base, *, dtype: torch.dtype | None = None, force: bool = False
) -> Export:
    """Write a LoRA as a GGUF file, which appears complete or not at all.

    The rows of B are permuted like those of the base weight. transformers rotates the features (i, i + D / 2) of a head together;
    llama.cpp's Llama-like architectures rotate (2 i, 2 i + 1), so they store `q_proj` and `k_proj` interleaved.

    Args:
        adapter: the adapter.
        output: the new file; missing parent folders are created.
        base: the base model (`read_base`).
        dtype: dtype of the file, fp32, fp16 or bf16; None: fp32.
        force: replace an existing GGUF file.

    Raises:
        InputError: llama.cpp would refuse the adapter or ignore a part of it (the error has the reason and the fix), `output`
            exists, or it cannot be written.
        PomonaError: a value to be written is NaN or infinite.
    """
    target = output.resolve()
    refuse_output("llama.cpp", target, force=force)
    refuse(adapter, "llama.cpp", problems(adapter, base))
    assert base.architecture is not None
    names = _tensor_names(adapter, base.architecture, base.layers)
    alpha = max(adapter[module].rank for module in adapter)

    from gguf import GGUFType, GGUFWriter, Keys

    with appearing_file(target) as partial, closing(GGUFWriter(partial, base.architecture.gguf)) as writer:
        writer.add_type(GGUFType.ADAPTER)
        writer.add_string(Keys.Adapter.TYPE, "lora")
        writer.add_float32(Keys.Adapter.LORA_ALPHA, float(alpha))
        for name, matrix in _pairs(adapter, names, base, alpha, dtype or torch.float32):
            data, raw_dtype = _plain(matrix)
            writer.add_tensor(name, data, raw_dtype=raw_dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    details = {"architecture": base.architecture.gguf, "alpha": float(alpha), "tensors": 2 * len(names)}
    return Export(output, len(adapter), alpha, f"Start llama.cpp with --lora {output} beside the base model's GGUF", details)


def permuted(B_OR: Tensor, heads: int) -> Tensor:
    """The rows of a `q_proj` or `k_proj` in llama.cpp's order: row i of a head becomes 2 i, and row i + D / 2 becomes 2 i + 1."""
    O, R = B_OR.shape  # noqa: E741 (an axis)
    return B_OR.view(heads, 2, O // heads // 2, R).transpose(1, 2).reshape(O, R)


def _rotated(architecture: Architecture, name: str) -> bool:
    return architecture.permuted and name.rpartition(".")[2] in {"attn_q", "attn_k"}


def _pairs(
    adapter: Adapter, names: Mapping[str, str], base: Base, alpha: float, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor]]:
    assert base.architecture is not None
    for module, name in names.items():
        factors: Factors = adapter[module]
        A_RI = factors.A.detach().float()
        B_OR = factors.B.detach().float() * (factors.scaling * factors.rank / alpha)
        kind = name.rpartition(".")[2]
        if _rotated(base.architecture, name):
            heads = base.heads if kind == "attn_q" else base.key_heads
            assert heads is not None
            B_OR = permuted(B_OR, heads)
        # An embedding is looked up by rows: its A is stored as [vocabulary, R].
        for side, matrix in (("a", A_RI.T if kind == _EMBEDDING else A_RI), ("b", B_OR)):
            written = matrix.to(dtype).cpu().contiguous()
            if not all_finite(written):
                raise not_finite([matrix], dtype, module)
            yield f"{name}.weight.lora_{side}", written


def _plain(matrix: Tensor) -> tuple[NDArray[Any], GGMLQuantizationType | None]:
    """The tensor for numpy, which has no bf16."""
    if matrix.dtype != torch.bfloat16:
        return matrix.numpy(), None
    from gguf import GGMLQuantizationType

    return matrix.view(torch.uint8).numpy(), GGMLQuantizationType.BF16


def _misfit(adapter: Adapter, module: str, name: str, base: Base) -> str | None:
    kind = name.rpartition(".")[2]
    out_features, in_features = shape_of(adapter, module)
    if kind in {_EMBEDDING, _HEAD}:
        if (module in adapter.embeddings) != (kind == _EMBEDDING):
            return f"adapts {module} as another kind of module than {base.name} has there. Check the base model."
        if base.tied:
            return f"adapts {module}, which is one tensor with the other end of this model in llama.cpp. {_MERGED}."
    heads = {"attn_q": base.heads, "attn_k": base.key_heads}.get(kind)
    if heads is not None and base.head_size is not None and out_features != heads * base.head_size:
        return (
            f"adapts {out_features} rows of {module}, but {base.path} has {heads} heads of {base.head_size} there. "
            "Give the base model that it was trained on as --base."
        )
    shape = (in_features, out_features) if kind == _EMBEDDING else (out_features, in_features)
    if base.shapes is not None and base.shapes.get(f"{name}.weight") != shape:
        found = base.shapes.get(f"{name}.weight")
        has = f"{found[0]} x {found[1]}" if found else "no such tensor"
        return (
            f"adapts a weight of {shape[0]} x {shape[1]} at {module}, but {base.path} has {has} at {name}. "
            "Give the base model that it was trained on as --base."
        )
    return None


def _tensor_names(adapter: Adapter, architecture: Architecture, layers: int | None) -> dict[str, str]:
    """Module path -> name in llama.cpp (`blk.0.attn_q`), for the modules that have one; with `layers` None, of any layer."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    kind = next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == architecture.gguf)
    table = get_tensor_name_map(kind, 1)  # of one layer, which represents all: a path may contain any number
    names: dict[str, str] = {}
    for module in adapter:
        layer = next(iter(_LAYER.findall(module)), "0")
        name = table.get_name(_LAYER.sub(".0.", module, count=1))
        takes_lora = name is not None and name.rpartition(".")[2] in _LINEAR | {_EMBEDDING, _HEAD}
        if name is not None and takes_lora and (layers is None or int(layer) < layers):
            names[module] = name.replace("blk.0.", f"blk.{layer}.")
    return names


def _unnamed(adapter: Adapter, architecture: Architecture, layers: int | None) -> list[str]:
    names = _tensor_names(adapter, architecture, layers)
    return [module for module in adapter if module not in names]


def _supported() -> str:
    return ", ".join(sorted(ARCHITECTURES))
