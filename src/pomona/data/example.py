"""What one example is, and the four splits that a run is given."""

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
    """A prompt, the completion that is trained on, and every reference that an answer is scored against.

    In the base form (`history` is None) the prompt is the text before the completion, as it stands. In the chat form the
    conversation is the history and then the prompt as the user's turn; the backbone renders it with the model's own template.

    Args:
        id: unique within its data set.
        prompt: never scored, never trained on.
        target: the completion to learn.
        references: one or more right answers, the target among them.
        document: the raw input, for reports and for finding leaks between splits.
        group: examples that share a document share a group; intervals are clustered by it.
        history: the turns before the prompt, or None where there is no conversation.
        body: start and end of the part of the prompt that may lose its end where the prompt is too long; None: the prompt loses
            its beginning.
        template_arguments: what the chat template is given beside the conversation: names and values, in the order of the names.
        cut_characters: what the task left out of the document, in characters.
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
