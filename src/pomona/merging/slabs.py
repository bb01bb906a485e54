"""Memory for results separate from temporaries, to avoid fragmentation of the heap."""

from __future__ import annotations

import torch
from torch import Tensor

# 8 MB of fp32: many modules' results in one block, with little waste at the end.
_SLAB_ENTRIES = 2**21


class Slabs:
    """Copies of fp32 tensors, contiguous in large blocks.

    For each module, a merge allocates a small result, which stays, and larger temporaries, which are freed. In one heap the results
    would lie between unusable gaps, and a merge of many adapters would need half of its output's size again for them.
    """

    def __init__(self) -> None:
        self._slab = torch.empty(0)
        self._used = 0

    def keep(self, tensor: Tensor) -> Tensor:
        """A copy of the tensor in a slab on the same device."""
        count = tensor.numel()
        if self._slab.device != tensor.device or self._used + count > self._slab.numel():
            self._slab = torch.empty(max(_SLAB_ENTRIES, count), device=tensor.device)
            self._used = 0
        kept = self._slab[self._used : self._used + count].view(tensor.shape)
        self._used += count
        return kept.copy_(tensor)
