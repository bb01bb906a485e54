"""How many bytes of tensors a function holds at once."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves


class _Meter(TorchFunctionMode):
    """Adds up the storages of the live tensors that Python's operations made; what an operation holds inside is not seen."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self._known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self._holders: Counter[int] = Counter()
        self._live = 0
        self.peak = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outcome = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(outcome):
            if isinstance(tensor, Tensor):
                self._hold(tensor)
        self.peak = max(self.peak, self._live)
        return outcome

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place, count = storage.data_ptr(), storage.nbytes()
        if count and place not in self._known:
            self._live += 0 if self._holders[place] else count
            self._holders[place] += 1
            weakref.finalize(tensor, self._release, place, count)

    def _release(self, place: int, count: int) -> None:
        self._holders[place] -= 1
        self._live -= 0 if self._holders[place] else count


def peak_bytes(function: Callable[[], object], known: Iterable[Tensor]) -> int:
    """The most bytes of new tensors that were alive at once in a call; `known` tensors were there before it."""
    with _Meter(known) as meter:
        function()
    return meter.peak
