"""Simplification: from a text to the same content in simpler words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pomona.data.tasks.base import tasks
from pomona.data.tasks.fields import references_field, text_field
from pomona.data.tasks.prompted import PromptedTask, Reading

BASE = {
    "en": "{source}\n\nIn simpler words:",
    "ar": "{source}\n\nبعبارة أبسط:",
    "zh": "{source}\n\n简单来说：",
    "ja": "{source}\n\nやさしく言い換えると：",
}
CHAT = {
    "en": "Rewrite the following text in simpler words and shorter sentences without changing what it means. "
    "Answer with the new text only.\n\n{source}",
    "ar": "أعد كتابة النص التالي بكلمات أبسط وجمل أقصر دون تغيير معناه. اكتب النص الجديد فقط.\n\n{source}",
    "zh": "请在不改变原意的前提下，用更简单的词语和更短的句子改写下面的文本，只输出改写后的文本。\n\n{source}",
    "ja": "次の文章を、意味を変えずに、よりやさしい言葉と短い文で書き換えてください。"
    "書き換えた文章だけを出力してください。\n\n{source}",
}


@tasks.register("simplification")
@dataclass(frozen=True)
class Simplification(PromptedTask):
    """The same text in simpler words, on one line. Paraphrases use the same rows with another template.

    Rows: `source`, and `target` or `references` (a list of correct texts) or both; optionally `id`. The target, or else the first
    reference, is trained on. The English prompt is the source, a blank line, and `In simpler words:`. The metrics use only
    the references; SARI, which also uses the source, is not available.
    """

    metrics: ClassVar[tuple[str, ...]] = ("rouge_l", "bleu", "chrf")
    placeholders: ClassVar[tuple[str, ...]] = ("source",)
    templates: ClassVar[Mapping[str, Mapping[str, str]]] = {"base": BASE, "chat": CHAT}
    sample_row: ClassVar[Mapping[str, object]] = {"source": "DOCUMENT", "target": "ANSWER"}

    max_new_tokens: int = 128

    def read(self, row: Mapping[str, object]) -> Reading:
        """`source`, and `target` or `references`."""
        return Reading(text_field(row, "source"), references_field(row, "target"))
