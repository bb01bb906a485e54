"""Completion: a prompt and what follows it, both as they stand."""

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
    """What follows a prompt that is written out in the data.

    Rows: `prompt`, `completion`, and optionally `id`. In the base form both are taken as they stand. Whitespace between them
    belongs to the completion, also where the data have it at the prompt's end, so that the prompt ends in a visible character;
    where there is none, one space is put in. In the chat form the prompt is the user's turn. A prompt that is too long loses its
    beginning: its end is what is completed.

    Args:
        template: the prompt with more around it, with {prompt}; None: the prompt as it stands.
        max_document_characters: a longer prompt loses its beginning; >= 1.
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
