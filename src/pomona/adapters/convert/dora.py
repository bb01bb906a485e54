"""The weight difference of a DoRA: `delta = m (W + s B A) / ||W + s B A|| - W`, with the norm of each output feature's row.

Liu et al. 2024, equation 5, with PEFT's convention of one magnitude per output feature. For an embedding, PEFT has one magnitude
per hidden feature, and mlx-lm has one per token.

Axes: O output features, I input features, R rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.base_modules import nearest
from pomona.adapters.convert.weights import CONV1D, check_float, read_matrix, tied_embedding
from pomona.adapters.export.base_folder import BaseFolder
from pomona.adapters.export.checkpoint import BLOCK_ENTRIES, Stored
from pomona.adapters.factors import Adapter, Factors
from pomona.adapters.names import HEADS, last_part
from pomona.errors import InputError

_RIGHT_BASE = "Give --base with the model that it was trained on"


@dataclass(frozen=True)
class DoraParts:
    """The parts of a DoRA.

    Args:
        adapter: the factors.
        magnitudes: module -> its magnitudes.
        by_token: modules with one magnitude per input feature instead of per output feature: embeddings of mlx-lm.
    """

    adapter: Adapter
    magnitudes: Mapping[str, Float[Tensor, " _"]]
    by_token: frozenset[str]


@dataclass(frozen=True)
class BaseWeight:
    """A module's weight in the base.

    Args:
        stored: its location.
        transposed: whether the file stores it as [I, O].
    """

    stored: Stored
    transposed: bool


def find_weights(parts: DoraParts, base: BaseFolder) -> dict[str, BaseWeight]:
    """Find the weight of each module, and check magnitudes and shapes before any long work.

    Raises:
        InputError: a module has no magnitudes or a wrong number of them, or the base has no float weight of its shape.
    """
    for module in parts.magnitudes:
        if module not in parts.adapter:
            raise InputError("has a DoRA magnitude and no factors", field=module, fix="Copy the adapter again from its source")
    found: dict[str, BaseWeight] = {}
    for module in parts.adapter:
        if module not in parts.magnitudes:
            raise InputError("has factors and no DoRA magnitude", field=module, fix="Copy the adapter again from its source")
        factors = parts.adapter[module]
        features = factors.in_features if module in parts.by_token else factors.out_features
        shape = tuple(parts.magnitudes[module].shape)
        if shape != (features,):
            raise InputError(f"has magnitudes of shape {shape} and not ({features},)", field=module)
        one = _weight(base, module, embedding=module in parts.adapter.embeddings)
        expected = (factors.out_features, factors.in_features)
        if one.stored.shape != (expected[::-1] if one.transposed else expected):
            sizes = f"{' x '.join(map(str, expected))}, and the base's weight is stored as {' x '.join(map(str, one.stored.shape))}"
            raise InputError(f"{module}: adapts {sizes}", file=base.folder, fix=_RIGHT_BASE)
        found[module] = one
    return found


def dora_deltas(parts: DoraParts, weights: Mapping[str, BaseWeight]) -> Iterator[tuple[str, Float[Tensor, "O I"]]]:
    """The weight difference of each module in fp32, one at a time.

    Args:
        parts: the adapter.
        weights: the result of `find_weights`.
    """
    for module in parts.adapter:
        W_OI = read_matrix(weights[module].stored, transposed=weights[module].transposed)
        factors, magnitudes = parts.adapter[module], parts.magnitudes[module]
        if module in parts.by_token:
            yield module, dora_delta(W_OI.T, Factors(factors.B.T, factors.A.T, factors.scaling), magnitudes).T
        else:
            yield module, dora_delta(W_OI, factors, magnitudes)


def dora_delta(W_OI: Float[Tensor, "O I"], factors: Factors, magnitudes_O: Float[Tensor, " O"]) -> Float[Tensor, "O I"]:
    """One module's weight difference: computed in fp64 by blocks of rows, returned in fp32."""
    A_RI, B_OR = factors.A.double(), factors.B.double() * factors.scaling
    delta_OI = torch.empty(W_OI.shape, dtype=torch.float32)
    step = max(1, BLOCK_ENTRIES // W_OI.shape[1])
    for first in range(0, len(W_OI), step):
        rows = slice(first, first + step)
        before = W_OI[rows].double()
        after = before + B_OR[rows] @ A_RI
        after *= (magnitudes_O[rows].double() / after.norm(dim=1))[:, None]
        delta_OI[rows] = after - before
    return delta_OI


def _weight(base: BaseFolder, module: str, *, embedding: bool) -> BaseWeight:
    """The weight of a module; its orientation follows from the base's module, not from the adapter's `fan_in_fan_out`."""
    head = last_part(module) in HEADS
    path = base.modules.find(module)
    name = (base.weight_of(path) if path else None) or (tied_embedding(base.checkpoint) if head else None)
    if name is None:
        known = [name.removesuffix(".weight") for name in base.checkpoint.tensors if name.endswith(".weight")]
        raise InputError(f"has no such module. {nearest(module, known)}", file=base.folder, field=module, fix=_RIGHT_BASE)
    stored = base.checkpoint.tensors[name]
    check_float(stored, name)
    return BaseWeight(stored, embedding or (base.config.get("model_type") in CONV1D and not head))
