"""Summarization: from a document to one line. Docstring summaries are the same task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pomona.data.tasks.base import tasks
from pomona.data.tasks.fields import references_field, text_field
from pomona.data.tasks.prompted import PromptedTask, Reading

BASE = {
    "en": "{document}\n\nSummary:",
    "ar": "{document}\n\nالملخص:",
    "zh": "{document}\n\n摘要：",
    "ja": "{document}\n\n要約：",
}
CHAT = {
    "en": "Summarize the following text in one sentence. Answer with the summary only.\n\n{document}",
    "ar": "لخّص النص التالي في جملة واحدة. اكتب الملخص فقط.\n\n{document}",
    "zh": "请用一句话概括下面的文本，只输出概括的内容。\n\n{document}",
    "ja": "次の文章を一文で要約してください。要約だけを出力してください。\n\n{document}",
}


@tasks.register("summarization")
@dataclass(frozen=True)
class Summarization(PromptedTask):
    """A one-line summary of a document.

    Rows: `document`, and `summary` or `references` (a list of correct summaries) or both; optionally `id`. The summary, or else the
    first reference, is trained on. The English prompt is the document, a blank line, and `Summary:`.
    """

    metrics: ClassVar[tuple[str, ...]] = ("rouge_l", "rouge_1", "rouge_2", "bleu", "chrf")
    placeholders: ClassVar[tuple[str, ...]] = ("document",)
    templates: ClassVar[Mapping[str, Mapping[str, str]]] = {"base": BASE, "chat": CHAT}
    sample_row: ClassVar[Mapping[str, object]] = {"document": "DOCUMENT", "summary": "ANSWER"}

    def read(self, row: Mapping[str, object]) -> Reading:
        """`document`, and `summary` or `references`."""
        return Reading(text_field(row, "document"), references_field(row, "summary"))
