"""What one example is, and the four splits that a run is given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """A prompt, the completion that is trained on, and every reference that an answer is scored against.

    Args:
        id: unique within its data set.
        prompt: the text before the completion; never scored, never trained on.
        target: the completion to learn.
        references: one or more right answers, the target among them.
        document: the raw input, for reports and for finding leaks between splits.
        group: examples that share a document share a group; intervals are clustered by it.
    """

    id: str
    prompt: str
    target: str
    references: tuple[str, ...]
    document: str
    group: str | None = None


@dataclass(frozen=True)
class Splits:
    """The four disjoint parts of the target data. `fit` is given the first three only."""

    train: tuple[Example, ...]
    micro_dev: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]

    def named(self) -> Iterator[tuple[str, tuple[Example, ...]]]:
        """(name, examples) of each split, in the order train, micro_dev, dev, test."""
        yield "train", self.train
        yield "micro_dev", self.micro_dev
        yield "dev", self.dev
        yield "test", self.test
