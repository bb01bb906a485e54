"""DoRA as differences of weights: `delta = m (W + s B A) / ||W + s B A|| - W`, the norm over each output feature's row.

Liu et al. 2024, equation 5, with PEFT's convention: a magnitude is one an output feature. An embedding's output features are the
hidden ones (PEFT), or its tokens are scaled instead (mlx-lm).

Axes: O output features, I input features, R rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from pomona.adapters.base_fit import BaseFolder, misfits
from pomona.adapters.convert.plain import Plain
from pomona.adapters.convert.weights import check_float, read_matrix, tied_embedding
from pomona.adapters.export.base import HEADS, last_part, stored_transposed
from pomona.adapters.export.checkpoint import BLOCK_ENTRIES, Stored
from pomona.adapters.factors import Adapter, Factors
from pomona.errors import InputError


def check_dora(adapter: Adapter, plain: Plain, base: BaseFolder) -> Mapping[str, Stored]:
    """Whether all that is needed is there, before any long work.

    Returns:
        Module -> its weight in the base.

    Raises:
        InputError: a module without magnitudes or with too many, or without a float weight of its shape in the base.
    """
    for module in plain.magnitudes:
        if module not in adapter:
            raise InputError("has a DoRA magnitude and no factors", field=module, mend="Copy the adapter again from its source")
    for misfit in misfits(adapter, base):
        raise InputError(misfit.message, file=base.folder, mend="Give --base with the model that it was trained on")
    found: dict[str, Stored] = {}
    for module in adapter:
        if module not in plain.magnitudes:
            raise InputError("has factors and no DoRA magnitude", field=module, mend="Copy the adapter again from its source")
        factors = adapter[module]
        features = factors.in_features if module in plain.by_token else factors.out_features
        shape = tuple(plain.magnitudes[module].shape)
        if shape != (features,):
            raise InputError(f"has magnitudes of shape {shape} and not ({features},)", field=module)
        found[module] = _weight(base, module)
    return found


def dora_deltas(
    adapter: Adapter, plain: Plain, base: BaseFolder, weights: Mapping[str, Stored]
) -> Iterator[tuple[str, Float[Tensor, "O I"]]]:
    """Every module's difference of weights in fp32, one at a time.

    Args:
        adapter: the factors.
        plain: the magnitudes.
        base: the base model.
        weights: as `check_dora` found them.
    """
    for module in adapter:
        transposed = stored_transposed(adapter, module, base.config.get("model_type"))
        W_OI = read_matrix(weights[module], transposed=transposed)
        magnitudes = plain.magnitudes[module]
        if module in plain.by_token:
            factors = adapter[module]
            yield module, dora_delta(W_OI.T, Factors(factors.B.T, factors.A.T, factors.scaling), magnitudes).T
        else:
            yield module, dora_delta(W_OI, adapter[module], magnitudes)


def dora_delta(W_OI: Float[Tensor, "O I"], factors: Factors, magnitudes_O: Float[Tensor, " O"]) -> Float[Tensor, "O I"]:
    """One module's difference of weights, made in fp64 by blocks of rows, in fp32."""
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


def _weight(base: BaseFolder, module: str) -> Stored:
    name = base.checkpoint.name_of(module)
    if name is None and last_part(module) in HEADS:
        name = tied_embedding(base.checkpoint)
    if name is None:
        raise InputError("has no such module", file=base.folder, field=module, mend="Give the model that it was trained on")
    stored = base.checkpoint.tensors[name]
    check_float(stored, name)
    return stored
