"""Results kept apart from the temporaries that made them, so that the heap has no holes between them."""

from __future__ import annotations

import torch
from torch import Tensor

# 8 MB of fp32: many modules' results in one piece, and little is left over at the end.
_SLAB_ENTRIES = 2**21


class Slabs:
    """Copies of fp32 tensors, one behind the other in large blocks.

    A merge makes small results that stay, from larger temporaries that go, module after module. In one heap the results come to
    lie between holes that fit nothing, and a merge of many adapters holds half of its output again in them.
    """

    def __init__(self) -> None:
        self._slab = torch.empty(0)
        self._used = 0

    def keep(self, tensor: Tensor) -> Tensor:
        """The same values, in a slab on the tensor's device."""
        count = tensor.numel()
        if self._slab.device != tensor.device or self._used + count > self._slab.numel():
            self._slab = torch.empty(max(_SLAB_ENTRIES, count), device=tensor.device)
            self._used = 0
        kept = self._slab[self._used : self._used + count].view(tensor.shape)
        self._used += count
        return kept.copy_(tensor)
