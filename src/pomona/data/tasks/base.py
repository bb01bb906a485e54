"""What a task is: how a row becomes a prompt and a completion, how an answer is read, and which metrics judge it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from pomona.data.example import Example
from pomona.registry import Registry


class Task(ABC):
    """A preset. Subclasses are frozen dataclasses (language, prompt template, limits), one a file, registered in `tasks`.

    Nearly every task is a `PromptedTask`, which makes the example from the fields of a row.
    """

    metrics: ClassVar[tuple[str, ...]]
    """Names of the metrics that judge this task; the first is the one that headlines and comparisons use."""

    stops_at_line_end: ClassVar[bool] = True
    """Whether an answer is one line: generation may stop at the first line end after it has begun."""

    language: str
    """Language tag of the answers; metrics cut them into words by its rules."""

    max_new_tokens: int
    """How long an answer may get, in tokens; a field of each task, so that a recipe can change it."""

    stop: tuple[str, ...]
    """Texts that end an answer: generation may stop at the first of them after the answer has begun."""

    @abstractmethod
    def example(self, row: Mapping[str, object], id: str) -> Example:
        """An example from one row of data.

        Args:
            row: the parsed JSON object.
            id: used where the row has no `id` of its own.

        Raises:
            ValueError: a field is missing, empty or of the wrong type; the message names the field, what was found and what is
                expected. (The reader of the file adds the file and the line.)
        """

    @abstractmethod
    def parse(self, text: str) -> str:
        """The answer in a generated text. Any string is accepted; it never raises."""


tasks: Registry[Task] = Registry("task")
