"""Data to text: from a record, a table row or a meaning representation to a text with the same content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pomona.data.tasks.base import tasks
from pomona.data.tasks.fields import references_field, text_field
from pomona.data.tasks.prompted import PromptedTask, Reading

BASE = {
    "en": "Data: {input}\n\nDescription:",
    "ar": "البيانات: {input}\n\nالوصف:",
    "zh": "数据：{input}\n\n描述：",
    "ja": "データ：{input}\n\n説明：",
}
CHAT = {
    "en": "Write a short text in full sentences that says everything in the following data and nothing else.\n\n{input}",
    "ar": "اكتب نصًا قصيرًا بجمل تامة يذكر كل ما في البيانات التالية من دون أي إضافة.\n\n{input}",
    "zh": "请用完整的句子写一段简短的文字，说明下面数据中的全部信息，不要添加其他内容。\n\n{input}",
    "ja": "次のデータの内容をすべて含み、それ以外のことを加えない短い文章を書いてください。\n\n{input}",
}


@tasks.register("data_to_text")
@dataclass(frozen=True)
class DataToText(PromptedTask):
    """A text on one line with the content of some data.

    Rows: `input` (the data, as a text), and `references` (a list of correct texts) or `output` or both; optionally `id`. The
    output, or else the first reference, is the target. The English prompt is `Data:` with the input, a blank line, `Description:`.
    """

    metrics: ClassVar[tuple[str, ...]] = ("bleu", "rouge_l", "chrf")
    placeholders: ClassVar[tuple[str, ...]] = ("input",)
    templates: ClassVar[Mapping[str, Mapping[str, str]]] = {"base": BASE, "chat": CHAT}
    sample_row: ClassVar[Mapping[str, object]] = {"input": "DOCUMENT", "output": "ANSWER"}

    max_new_tokens: int = 96

    def read(self, row: Mapping[str, object]) -> Reading:
        """`input`, and `references` or `output`."""
        return Reading(text_field(row, "input"), references_field(row, "output"))
