"""Completion: a prompt and its continuation, both unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pomona.data.tasks.base import tasks
from pomona.data.tasks.fields import text_field
from pomona.data.tasks.prompted import PromptedTask, Reading


@tasks.register("completion")
@dataclass(frozen=True)
class Completion(PromptedTask):
    """The continuation of a prompt that the data contain in full.

    Rows: `prompt`, `completion`, and optionally `id`. In the base form both are used unchanged. Whitespace between them belongs
    to the completion, even if the data have it at the prompt's end, so that the prompt ends in a visible character; if there is
    none, one space is inserted. In the chat form the prompt is the user's turn. The beginning of a prompt that is too long is
    cut, because its end is what the completion continues.

    Args:
        template: text around the prompt, with {prompt}; None: the prompt unchanged.
        max_document_characters: the beginning of a longer prompt is cut; >= 1.
    """

    metrics: ClassVar[tuple[str, ...]] = ("rouge_l", "rouge_1", "rouge_2", "rouge_lsum", "bleu", "chrf")
    stops_at_line_end: ClassVar[bool] = False
    placeholders: ClassVar[tuple[str, ...]] = ("prompt",)
    templates: ClassVar[Mapping[str, Mapping[str, str]]] = {"base": {"en": "{prompt}"}, "chat": {"en": "{prompt}"}}
    sample_row: ClassVar[Mapping[str, object]] = {"prompt": "DOCUMENT", "completion": "ANSWER"}
    loses_its_beginning: ClassVar[bool] = True

    max_new_tokens: int = 256

    def read(self, row: Mapping[str, object]) -> Reading:
        """`prompt` and `completion`."""
        answer = text_field(row, "completion")
        text_field(row, "prompt")
        prompt, completion = str(row["prompt"]), str(row["completion"])
        body = prompt.rstrip()
        between = prompt[len(body) :] + completion[: len(completion) - len(completion.lstrip())]
        return Reading(body, (answer,), separator=between or " ")
