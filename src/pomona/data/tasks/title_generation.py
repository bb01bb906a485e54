"""Title generation: a document in, its title out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pomona.data.tasks.base import tasks
from pomona.data.tasks.fields import references_field, text_field
from pomona.data.tasks.prompted import PromptedTask, Reading

BASE = {
    "en": "{document}\n\nTitle:",
    "ar": "{document}\n\nالعنوان:",
    "zh": "{document}\n\n标题：",
    "ja": "{document}\n\nタイトル：",
}
CHAT = {
    "en": "Write a title for the following text. Answer with the title only.\n\n{document}",
    "ar": "اكتب عنوانًا للنص التالي. اكتب العنوان فقط.\n\n{document}",
    "zh": "请为下面的文本拟一个标题，只输出标题。\n\n{document}",
    "ja": "次の文章にタイトルを付けてください。タイトルだけを出力してください。\n\n{document}",
}


@tasks.register("title_generation")
@dataclass(frozen=True)
class TitleGeneration(PromptedTask):
    """The title of a document.

    Rows: `document`, and `title` or `references` (a list of correct titles) or both; optionally `id`. The title, or else the first
    reference, is trained on. A `summary` is never used as a title: if a file names its titles so, map the column. The
    English prompt is the document, a blank line, and `Title:`.
    """

    metrics: ClassVar[tuple[str, ...]] = ("rouge_l", "rouge_1", "rouge_2", "bleu", "chrf")
    placeholders: ClassVar[tuple[str, ...]] = ("document",)
    templates: ClassVar[Mapping[str, Mapping[str, str]]] = {"base": BASE, "chat": CHAT}
    sample_row: ClassVar[Mapping[str, object]] = {"document": "DOCUMENT", "title": "ANSWER"}

    max_new_tokens: int = 32

    def read(self, row: Mapping[str, object]) -> Reading:
        """`document`, and `title` or `references`."""
        return Reading(text_field(row, "document"), references_field(row, "title"))
