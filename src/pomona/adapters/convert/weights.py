"""A base model's weights as [O, I], independent of their orientation in the file.

Axes: O output features, I input features.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.export.checkpoint import Checkpoint, Stored
from pomona.adapters.names import EMBEDDINGS, last_part
from pomona.adapters.tensors import DTYPES
from pomona.errors import InputError

CONV1D = frozenset({"gpt2", "openai-gpt"})
"""Model types whose linear modules are transformers' `Conv1D`, which stores its weight as [I, O]."""


def read_matrix(stored: Stored, *, transposed: bool) -> Float[Tensor, "O I"]:
    """A whole matrix in the file's dtype.

    Args:
        stored: location of a matrix.
        transposed: whether the file stores it as [I, O].
    """
    W = torch.empty(stored.shape, dtype=DTYPES[stored.dtype])
    for first, block in stored.row_blocks():
        W[first : first + len(block)] = block
    return W.T if transposed else W


def as_matrix(stored: Stored) -> Stored:
    """A tensor of any shape as a matrix: the slices along its first dimension are the rows, and a vector is one row."""
    if len(stored.shape) == 2:
        return stored
    count = torch.Size(stored.shape).numel()
    rows = stored.shape[0] if len(stored.shape) > 2 else 1
    return replace(stored, shape=(rows, count // max(rows, 1)))


def check_float(stored: Stored, name: str) -> None:
    """Refuse a quantised weight: one that is not fp32, fp16, bf16 or fp64.

    Raises:
        InputError: names the file and the tensor.
    """
    if stored.dtype not in DTYPES:
        fix = "Give the model in bf16, fp16 or fp32, as it was before it was quantised"
        raise InputError("is not a float weight", file=stored.file, field=name, value=stored.dtype, fix=fix)


def tied_embedding(checkpoint: Checkpoint) -> str | None:
    """The name of the only token embedding, to which a head that is not in the files is tied; None if there are several or none."""
    found = [name for name in checkpoint.tensors if last_part(name.removesuffix(".weight")) in EMBEDDINGS]
    return found[0] if len(found) == 1 else None
