"""Batches that memory does not hold are halved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")


def each_batch(batches: Sequence[Sequence[int]], work: Callable[[Sequence[int]], T]) -> Iterator[tuple[Sequence[int], T | None]]:
    """Each batch with what `work` makes of it, in order.

    Where memory does not hold a batch, it and all later ones are halved; what does not fit by itself gets None.

    Args:
        batches: indices of examples.
        work: is given a batch; called again with a part of it where memory ran out.
    """
    pending = list(batches)
    while pending:
        indices = pending.pop(0)
        try:
            made = work(indices)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(indices) > 1:
                half = len(indices) // 2
                left = [index for batch in (indices, *pending) for index in batch]
                pending = [left[first : first + half] for first in range(0, len(left), half)]
                continue
            made = None
        yield indices, made


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether memory ran out. An accelerator's error has a class of its own; the CPU's is told by its text, by system."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text or "not enough memory" in text
