"""An example, and the four splits of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """One message of a conversation.

    Args:
        role: `system`, `user` or `assistant`.
        content: its text.
    """

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """A prompt, its completion for training, and the references for scoring.

    In the base form (`history` is None) the prompt is the unchanged text before the completion. In the chat form the
    conversation is the history followed by the prompt as the user's turn; the backbone renders it with the model's template.

    Args:
        id: unique within its data set.
        prompt: never scored, never trained on.
        target: the completion to learn.
        references: one or more correct answers, including the target.
        document: the raw input, for reports and for finding leaks between splits.
        group: examples that share a document share a group; intervals are clustered by it.
        history: the turns before the prompt, or None without a conversation.
        body: start and end of the part whose end is cut if the prompt is too long; None: the prompt's beginning is cut.
        template_arguments: arguments of the chat template besides the conversation: names and values, sorted by name.
        cut_characters: number of characters that the task cut from the document.
    """

    id: str
    prompt: str
    target: str
    references: tuple[str, ...]
    document: str
    group: str | None = None
    history: tuple[Turn, ...] | None = None
    body: tuple[int, int] | None = None
    cut_characters: int = 0
    template_arguments: tuple[tuple[str, bool | int | float | str | None], ...] = ()


@dataclass(frozen=True)
class Splits:
    """The four disjoint parts of the target data. `fit` gets only the first three."""

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
