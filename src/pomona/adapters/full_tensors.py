"""Full tensors in an adapter besides its factors: in PEFT each replaces a tensor of the base model.

They come from `modules_to_save` (a trained head), from a vocabulary that was resized before the training, or from
`save_embedding_layers`, which saves embeddings that may not have been trained at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from pomona.adapters.factors import Adapter
from pomona.adapters.tensors import TensorFile, TensorInfo, tensor_info
from pomona.errors import InputError


class FileTensors(Mapping[str, Tensor]):
    """Tensors in a file under other names, read on access, without a cache.

    Args:
        tensors: the file.
        keys: name -> key in the file.
    """

    def __init__(self, tensors: TensorFile, keys: Mapping[str, str]) -> None:
        self._tensors = tensors
        self._keys = keys

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors.read(self._keys[name])[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, name: object) -> bool:
        return name in self._keys

    def info(self, name: str) -> TensorInfo:
        """Its shape and dtype, without reading it."""
        return self._tensors.info[self._keys[name]]


def info_of(adapter: Adapter, name: str) -> TensorInfo:
    """The shape and dtype of one of an adapter's whole tensors; from the header if the adapter is in a folder."""
    return adapter.whole.info(name) if isinstance(adapter.whole, FileTensors) else tensor_info(adapter.whole[name])


def merged_whole(named: Sequence[tuple[str, Adapter]]) -> tuple[dict[str, Tensor], list[str]]:
    """The full tensors of a merged adapter; for each parameter all sources must agree, because there is no sum without the base.

    Args:
        named: the adapters, each with its name in messages.

    Returns:
        Parameter -> tensor; and a warning for each tensor that some adapters lack.

    Raises:
        InputError: two adapters have different tensors for one parameter.
    """
    found: dict[str, Tensor] = {}
    warnings: list[str] = []
    for parameter in dict.fromkeys(parameter for _, one in named for parameter in one.whole):
        having = [(name, one) for name, one in named if parameter in one.whole]
        first_name, first = having[0]
        found[parameter] = first.whole[parameter]
        for name, other in having[1:]:
            if not _equal(found[parameter], other.whole[parameter]):
                raise InputError(
                    f"{_task(other)}brings a whole {parameter} of its own, unlike that of {first_name}, and whole tensors have no "
                    "low-rank sum",
                    file=name,
                    field=parameter,
                    fix="Merge adapters that share it, or turn one into factors: pomona convert --to lora",
                )
        if len(having) < len(named):
            without = next(name for name, one in named if parameter not in one.whole)
            warnings.append(f"{parameter} is taken over whole from {first_name}; {without} was trained on the base's own")
    return found, warnings


def factors_only(adapter: Adapter, program: str) -> list[str]:
    """The problem of loading only the factors of an adapter; none if it has no full tensors."""
    if not adapter.whole:
        return []
    first, more = next(iter(adapter.whole)), len(adapter.whole) - 1
    rest = f" and {more} more" if more else ""
    return [f"{_task(adapter)}brings whole tensors ({first}{rest}), and {program} loads factors only. Export it with --for merged."]


def is_copy(tensor: Tensor, own: Tensor) -> bool:
    """Whether a full tensor equals the model's, in the model's dtype."""
    return tensor.shape == own.shape and bool(torch.equal(tensor.to(own.dtype), own))


def _equal(one: Tensor, two: Tensor) -> bool:
    return one.dtype == two.dtype and bool(torch.equal(one, two))


def _task(adapter: Adapter) -> str:
    """The task, if it has its own head."""
    task = adapter.provenance.get("task_type")
    return f"has the task_type {task} and " if task in ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS") else ""
