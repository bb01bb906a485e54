"""The location of expert weights in a model's files, for adapters of bare parameters.

In the files, a parameter of all experts is one tensor, [E, O, I] or [E, I, O], or one matrix per expert, as transformers writes
most models. In the second case `gate_up_proj` is two matrices, with the gate's rows first.

Axes: E experts, I input features, O output features.
"""

from __future__ import annotations

from typing import NamedTuple

from pomona.adapters.experts import Expert
from pomona.adapters.export.checkpoint import Checkpoint, Stored

# Model types whose files have [E, I, O]; needed only if O equals I, otherwise the shape decides.
_TRANSPOSED = frozenset({"gpt_oss", "openai_privacy_filter", "qwen3_vl_moe", "qwen3_vl_moe_text"})
# Name of a parameter -> names of the modules of an expert that have its rows.
_SINGLE = {"gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")), "down_proj": (("down_proj",), ("w2",))}


class Home(NamedTuple):
    """A tensor with all or some of the rows of an expert.

    Args:
        name: name of the tensor.
        source: location of the expert's matrix in it.
        slab: number of the expert in a tensor of all experts; None if the tensor has only this expert.
        first, last: range of the O rows of B that belong to it.
        transposed: whether it is stored as [I, O].
    """

    name: str
    source: Stored
    slab: int | None
    first: int
    last: int
    transposed: bool


def homes_of(expert: Expert, shape: tuple[int, int], checkpoint: Checkpoint, model_type: object) -> list[Home]:
    """The tensors with the rows of one expert of a parameter; none if the files lack them or have another shape.

    Args:
        expert: the expert and its parameter.
        shape: (O, I) of its factors.
        checkpoint: the model's tensors.
        model_type: `model_type` in `config.json`.
    """
    stored = checkpoint.tensors.get(expert.parameter)
    if stored is not None and len(stored.shape) == 3 and stored.shape[0] == expert.total:
        own = Stored(
            stored.file,
            stored.dtype,
            stored.shape[1:],
            stored.start + expert.number * stored.nbytes // expert.total,
            stored.nbytes // expert.total,
        )
        transposed = own.shape != shape or (shape[0] == shape[1] and model_type in _TRANSPOSED)
        fits = own.shape in (shape, shape[::-1])
        return [Home(expert.parameter, own, expert.number, 0, shape[0], transposed)] if fits else []
    if stored is not None:
        return [Home(expert.parameter, stored, None, 0, shape[0], transposed=False)] if stored.shape == shape else []
    for module in (expert.module, expert.module.replace(".mlp.", ".block_sparse_moe.")):
        for names in _SINGLE.get(expert.name, ()):
            tensors = [f"{module}.{expert.number}.{name}.weight" for name in names]
            if all(tensor in checkpoint.tensors for tensor in tensors) and _count(module, names[0], checkpoint) == expert.total:
                return _single(tensors, shape, checkpoint)
    return []


def _single(tensors: list[str], shape: tuple[int, int], checkpoint: Checkpoint) -> list[Home]:
    rows = shape[0] // len(tensors)
    homes = [
        Home(name, checkpoint.tensors[name], None, place * rows, (place + 1) * rows, transposed=False)
        for place, name in enumerate(tensors)
    ]
    return homes if all(home.source.shape == (rows, shape[1]) for home in homes) and rows * len(tensors) == shape[0] else []


def _count(module: str, name: str, checkpoint: Checkpoint) -> int:
    count = 0
    while f"{module}.{count}.{name}.weight" in checkpoint.tensors:
        count += 1
    return count
