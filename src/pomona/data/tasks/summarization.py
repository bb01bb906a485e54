"""Summarization: a document in, one line out. Titles and docstring summaries are the same task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pomona.data.example import Example
from pomona.data.tasks.answers import first_line
from pomona.data.tasks.base import Task, tasks
from pomona.data.tasks.fields import check_at_least, check_template, id_field, one_line, text_field, text_list_field
from pomona.metrics.text import primary_language


@tasks.register("summarization")
@dataclass(frozen=True)
class Summarization(Task):
    """A one-line summary of a document.

    Rows: `document`, `summary`, and optionally `id` and `references` (all right summaries; the summary is added where it is not
    among them).

    The prompt ends in a visible character and the completion begins with one space. Byte-level and sentence-piece tokenizers
    attach a space to the word that follows it and never carry a token from a colon into a space, so prompt and completion give
    the same tokens apart as together, and the completion's mask is exact. `Example.target` is therefore " " + summary, and the
    references are without the space. The model's end-of-text token after the completion is the backbone's to add.

    Args:
        language: language tag of the text, for the metrics.
        template: the prompt, with {document}.
        max_new_tokens: longest answer, in tokens, >= 1.
        max_document_characters: a longer document loses its end, never the frame around it; >= 1.

    Raises:
        InputError: a value that cannot be used.
    """

    metrics: ClassVar[tuple[str, ...]] = ("rouge_l", "rouge_1", "rouge_2", "bleu", "chrf")

    language: str = "en"
    template: str = "{document}\n\nSummary:"
    max_new_tokens: int = 64
    max_document_characters: int = 4000

    def __post_init__(self) -> None:
        primary_language(self.language)
        check_template(self.template, ("document",))
        check_at_least("max_new_tokens", self.max_new_tokens, 1)
        check_at_least("max_document_characters", self.max_document_characters, 1)

    def example(self, row: Mapping[str, object], id: str) -> Example:
        """An example from a row with `document` and `summary`; see the base class."""
        document = text_field(row, "document")
        summary = one_line(text_field(row, "summary"))
        others = text_list_field(row, "references") if row.get("references") is not None else ()
        return Example(
            id=id_field(row, id),
            prompt=self.template.format(document=document[: self.max_document_characters].rstrip()),
            target=f" {summary}",
            references=tuple(dict.fromkeys((summary, *map(one_line, others)))),
            document=document,
        )

    def parse(self, text: str) -> str:
        """The first line that is not blank."""
        return first_line(text)
