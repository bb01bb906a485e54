"""Extractive question answering: a context and a question in, a span of the context out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pomona.data.content import normalised
from pomona.data.example import Example
from pomona.data.tasks.answers import first_line
from pomona.data.tasks.base import Task, tasks
from pomona.data.tasks.fields import check_at_least, check_template, id_field, one_line, text_field, text_list_field
from pomona.metrics.text import primary_language


@tasks.register("extractive_qa")
@dataclass(frozen=True)
class ExtractiveQA(Task):
    """A short answer to a question, found in a context.

    Rows: `context`, `question`, `answers` (a list; the first is trained on), and optionally `id`. The context is the document:
    questions on one context share a group, which never crosses splits and by which intervals are clustered.

    The border between prompt and completion is as in `Summarization`: the completion begins with one space.

    Args:
        language: language tag of the text, for the metrics.
        template: the prompt, with {context} and {question}.
        max_new_tokens: longest answer, in tokens, >= 1.
        max_document_characters: a longer context loses its end, never the question or the frame around it; >= 1.

    Raises:
        InputError: a value that cannot be used.
    """

    metrics: ClassVar[tuple[str, ...]] = ("token_f1", "exact_match")

    language: str = "en"
    template: str = "{context}\n\nQuestion: {question}\nAnswer:"
    max_new_tokens: int = 32
    max_document_characters: int = 4000

    def __post_init__(self) -> None:
        primary_language(self.language)
        check_template(self.template, ("context", "question"))
        check_at_least("max_new_tokens", self.max_new_tokens, 1)
        check_at_least("max_document_characters", self.max_document_characters, 1)

    def example(self, row: Mapping[str, object], id: str) -> Example:
        """An example from a row with `context`, `question` and `answers`; see the base class."""
        context = text_field(row, "context")
        question = one_line(text_field(row, "question"))
        answers = tuple(dict.fromkeys(map(one_line, text_list_field(row, "answers"))))
        return Example(
            id=id_field(row, id),
            prompt=self.template.format(context=context[: self.max_document_characters].rstrip(), question=question),
            target=f" {answers[0]}",
            references=answers,
            document=context,
            group=hashlib.sha256(normalised(context).encode("utf-8", "surrogatepass")).hexdigest()[:16],
        )

    def parse(self, text: str) -> str:
        """The first line that is not blank."""
        return first_line(text)
