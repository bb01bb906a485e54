"""Instructions: an instruction, an optional input, and the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pomona.data.tasks.base import tasks
from pomona.data.tasks.fields import FieldError, shown, text_field
from pomona.data.tasks.prompted import PromptedTask, Reading

BASE = {
    "en": "Instruction: {instruction}\n\nResponse:",
    "ar": "التعليمات: {instruction}\n\nالإجابة:",
    "zh": "指令：{instruction}\n\n回答：",
    "ja": "指示：{instruction}\n\n回答：",
}


@tasks.register("instruction")
@dataclass(frozen=True)
class Instruction(PromptedTask):
    """The answer to an instruction, with the rows of Alpaca.

    Rows: `instruction`, `output`, and optionally `input` (blank or null counts as missing) and `id`. The input follows the
    instruction and a blank line. The input is the document, or the instruction if there is no input. The English prompt is
    `Instruction:` with the instruction, a blank line, and `Response:`; in the chat form it is the instruction alone.

    Args:
        template: the prompt, with {instruction}, which the input follows.
        max_document_characters: the end of a longer input (or instruction without input) is cut; >= 1.
    """

    metrics: ClassVar[tuple[str, ...]] = ("rouge_l", "rouge_1", "rouge_2", "rouge_lsum", "bleu", "chrf")
    stops_at_line_end: ClassVar[bool] = False
    placeholders: ClassVar[tuple[str, ...]] = ("instruction",)
    templates: ClassVar[Mapping[str, Mapping[str, str]]] = {"base": BASE, "chat": {"en": "{instruction}"}}
    sample_row: ClassVar[Mapping[str, object]] = {"instruction": "Say it in a word.", "input": "DOCUMENT", "output": "ANSWER"}
    optional_fields: ClassVar[tuple[str, ...]] = ("input",)

    max_new_tokens: int = 256

    def read(self, row: Mapping[str, object]) -> Reading:
        """`instruction`, `input` and `output`."""
        instruction, output = text_field(row, "instruction"), text_field(row, "output")
        given = "" if row.get("input") is None else row["input"]
        if not isinstance(given, str):
            raise FieldError("input", f"is {shown(given)}: a text or nothing is expected")
        body = given.strip()
        return Reading(body, (output,), lead=f"{instruction}\n\n") if body else Reading(instruction, (output,))
