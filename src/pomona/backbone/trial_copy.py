"""A model's first layers in float32: what a loader's trials run on, so that rounding hides nothing.

The trials (is the model causal, can it be packed, can rows be left out) compare two results. In bfloat16 the rounding of a few
layers is a tenth of the largest value, so a state that leaks between examples or a bidirectional attention looks like rounding.
In float32 it is a millionth. Quantised modules are copied as the float32 matrices that they stand for.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pomona.backbone.quantised import dequantised, quantised_bits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_HEAD_ROWS = 64
"""Rows of the output head that are copied: enough for trials, whose tokens are few; the whole head is a large part of a model."""
_LEAST_LAYERS = 2
_EXACT = frozenset({torch.float32, torch.float64})
_NUMBERS = ("idx", "index", "layer_id", "layer_number", "name")
"""Parts of the names of attributes that number a layer and do not say of which kind it is."""


@torch.no_grad()
def trial_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A model to try things on: the model itself where it is in float32, else a copy of its first layers in float32.

    The layers are as many as it takes to have one of each kind, the last of the same kind as the model's last, and two at least.
    A model that does not run with fewer layers is copied whole.

    Args:
        model: frozen, in eval mode, without adapters.
    """
    if all(one.dtype in _EXACT for one in model.parameters()) and not any(map(quantised_bits, model.modules())):
        return model
    found = _copied(model, whole=False)
    try:
        found(input_ids=torch.zeros((1, 2), dtype=torch.long, device=model.device), use_cache=False)
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError):
        return _copied(model, whole=True)
    return found


def _copied(model: PreTrainedModel, *, whole: bool) -> PreTrainedModel:
    # What stands in the memo is taken as the copy of the object with that id.
    memo: dict[int, Any] = {}
    lists = [] if whole else _layer_lists(model)
    kept = [layers_of_each_kind(list(layers)) for layers in lists]
    rest = [layer for layers, count in zip(lists, kept, strict=True) for layer in layers[count:]]
    left_out = {id(module) for layer in rest for module in layer.modules()}
    for module in model.modules():
        if quantised_bits(module) and id(module) not in left_out:
            memo[id(module)] = _plain(module)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if isinstance(embedding, nn.Embedding):
        memo[id(embedding)] = _InFloat32(embedding)
    if isinstance(head, nn.Linear) and not whole and id(head) not in memo:
        memo[id(head)] = _first_rows(head)
    for layers, count in zip(lists, kept, strict=True):
        memo[id(layers)] = nn.ModuleList([copy.deepcopy(layer, memo) for layer in layers[:count]])
    found = copy.deepcopy(model, memo)
    nn.Module.float(found)  # a quantised model's own method refuses
    return found.requires_grad_(False).eval()


def layers_of_each_kind(layers: Sequence[nn.Module]) -> int:
    """How many of the first layers have every kind, and end with the kind of the last."""
    kinds = [_kind(layer) for layer in layers]
    for count in range(_LEAST_LAYERS, len(kinds)):
        if kinds[count - 1] == kinds[-1] and set(kinds[:count]) == set(kinds):
            return count
    return len(kinds)


def _kind(layer: nn.Module) -> tuple[object, ...]:
    """The classes of a layer's modules, and their switches, such as whether there is a sliding window."""
    return tuple((name, type(module), tuple(_switches(module))) for name, module in layer.named_modules())


def _switches(module: nn.Module) -> Iterator[tuple[str, object]]:
    for name, value in sorted(vars(module).items()):
        if not name.startswith("_") and not any(part in name for part in _NUMBERS):
            if isinstance(value, bool | str):
                yield name, value
            elif value is None or isinstance(value, int):
                yield name, value is None


def _layer_lists(model: nn.Module) -> list[nn.ModuleList]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    return [one for one in lists if all(isinstance(layer, GradientCheckpointingLayer) for layer in one)]


class _InFloat32(nn.Module):
    """An embedding that is not copied, with its output in float32."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self._own = (embedding,)  # in a tuple, so that it is no part of the copy
        self.embedding_dim, self.num_embeddings = embedding.embedding_dim, embedding.num_embeddings

    @property
    def weight(self) -> Tensor:
        return self._own[0].weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self._own[0](tokens).float()

    def __deepcopy__(self, memo: dict[int, Any]) -> _InFloat32:
        return self


def _first_rows(head: nn.Linear) -> nn.Linear:
    rows = min(_HEAD_ROWS, head.out_features)
    bias = None if head.bias is None else head.bias[:rows].float()
    return _linear(head.weight[:rows].float(), bias)


def _plain(module: nn.Module) -> nn.Linear:
    bias = module.bias
    return _linear(dequantised(module), bias.float() if isinstance(bias, Tensor) else None)


def _linear(weight_OI: Tensor, bias_O: Tensor | None) -> nn.Linear:
    made = nn.Linear(weight_OI.shape[1], weight_OI.shape[0], bias=bias_O is not None, device="meta")
    made.weight = nn.Parameter(weight_OI.clone(), requires_grad=False)
    if bias_O is not None:
        made.bias = nn.Parameter(bias_O.clone(), requires_grad=False)
    return made
