"""An exact number of entries of largest magnitude, of a matrix that is read in blocks and never in memory as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_LOW_BITS = 15
_HIGH_BINS, _LOW_BINS = 2 ** (31 - _LOW_BITS), 2**_LOW_BITS
_GROUP = 256


class Largest:
    """Marks the `count` entries of largest magnitude; of ties, the first.

    The bit patterns of floats >= 0, read as integers, have the same order as the floats. So two passes find the count-th largest
    magnitude exactly (radix selection): a histogram of the patterns' upper 16 bits gives its bin, and a histogram of the lower 15
    bits within this bin gives its pattern. Called on the same blocks in the same order, the object marks all entries above this
    magnitude, and then ties in order until `count` is reached.

    Args:
        blocks: fp32; iterated twice, so a list or another iterable that restarts with the same bits.
        count: number of entries to mark; none if <= 0, all if there are fewer.
    """

    def __init__(self, blocks: Iterable[Float[Tensor, "_ I"]], count: int) -> None:
        self._above, self._equal_left = 2**31 - 1, 0
        if count <= 0:
            return
        high = sum(torch.bincount((_bits(block) >> _LOW_BITS).flatten(), minlength=_HIGH_BINS) for block in blocks)
        assert isinstance(high, Tensor)
        if count >= int(high.sum()):
            self._above = -1
            return
        top, wanted = _bin_of(high, count)
        low = high.new_zeros(_LOW_BINS)
        for block in blocks:
            bits = _bits(block)
            low += torch.bincount(bits[bits >> _LOW_BITS == top] & (_LOW_BINS - 1), minlength=_LOW_BINS)
        bottom, wanted = _bin_of(low, wanted)
        self._above = (top << _LOW_BITS) + bottom
        if wanted == int(low[bottom]):
            self._above -= 1
        else:
            self._equal_left = wanted

    def __call__(self, block: Float[Tensor, "N I"]) -> Bool[Tensor, "N I"]:
        """The next block's marks."""
        bits = _bits(block)
        marked = bits > self._above
        if self._equal_left > 0:
            equal = bits == self._above
            marked |= equal & (equal.flatten().cumsum(0).view_as(equal) <= self._equal_left)
            self._equal_left -= int(equal.sum())
        return marked


def keep_largest(blocks: Iterable[Float[Tensor, "_ I"]], count: int) -> Callable[[Tensor], Tensor]:
    """A function that sets all but the `count` largest entries to zero, for the same blocks in the same order."""
    largest = Largest(blocks, count)
    return lambda block: largest(block).to(block.dtype).mul_(block)


def _bits(block: Float[Tensor, "N I"]) -> Int[Tensor, "N I"]:
    return block.abs().view(torch.int32)


def _bin_of(histogram: Int[Tensor, " Bins"], count: int) -> tuple[int, int]:
    """The bin of the count-th largest entry, and its position among the bin's entries, from 1."""
    groups = histogram.view(-1, _GROUP)  # two short cumulative sums cost far less than a long one
    group, wanted = _place(groups.sum(dim=1), count)
    place, wanted = _place(groups[group], wanted)
    return group * _GROUP + place, wanted


def _place(counts: Int[Tensor, " Bins"], count: int) -> tuple[int, int]:
    from_top = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_top, count))
    above = int(from_top[place - 1]) if place > 0 else 0
    return len(counts) - 1 - place, count - above
