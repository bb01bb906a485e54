"""The interface of a task: a row becomes a prompt and a completion, an answer is parsed, and metrics score it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from pomona.data.example import Example
from pomona.registry import Registry


class Task(ABC):
    """A preset. Subclasses are frozen dataclasses (language, prompt template, limits), one per file, registered in `tasks`.

    Nearly every task is a `PromptedTask`, which builds the example from the fields of a row.
    """

    metrics: ClassVar[tuple[str, ...]]
    """Names of the task's metrics; the first is the primary metric of headlines and comparisons."""

    stops_at_line_end: ClassVar[bool] = True
    """Whether an answer is one line: generation may stop at the first line end within the answer."""

    language: str
    """Language tag of the answers; metrics split answers into words by the rules of the language."""

    max_new_tokens: int
    """Largest length of an answer, in tokens; a field of each task, so that a recipe can change it."""

    stop: tuple[str, ...]
    """Texts that end an answer: generation may stop at the first of them within the answer."""

    @abstractmethod
    def example(self, row: Mapping[str, object], id: str) -> Example:
        """An example from one row of data.

        Args:
            row: the parsed JSON object.
            id: the id of a row without an `id`.

        Raises:
            ValueError: a field is missing, empty or of the wrong type; the message names the field, the value found and the
                value expected. (The reader of the file adds the file and the line.)
        """

    @abstractmethod
    def parse(self, text: str) -> str:
        """The answer in a generated text. Any string is accepted; it never raises."""


tasks: Registry[Task] = Registry("task")
