"""Translation: from a text in one language to the same text in another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pomona.data.tasks.base import tasks
from pomona.data.tasks.fields import references_field, text_field
from pomona.data.tasks.languages import language_name
from pomona.data.tasks.prompted import PromptedTask, Reading
from pomona.errors import InputError
from pomona.metrics.text import primary_language

BASE = {
    "en": "{source_language}: {source}\n{language}:",
    "ar": "{source_language}: {source}\n{language}:",
    "zh": "{source_language}：{source}\n{language}：",
    "ja": "{source_language}：{source}\n{language}：",
}
CHAT = {
    "en": "Translate the following text from {source_language} into {language}. Answer with the translation only.\n\n{source}",
    "ar": "ترجم النص التالي من {source_language} إلى {language}. اكتب الترجمة فقط.\n\n{source}",
    "zh": "请将下面的文本从{source_language}翻译成{language}，只输出译文。\n\n{source}",
    "ja": "次の文章を{source_language}から{language}に翻訳してください。訳文だけを出力してください。\n\n{source}",
}


@tasks.register("translation")
@dataclass(frozen=True)
class Translation(PromptedTask):
    """A text in another language, on one line.

    Rows: `source`, and `target` or `references` (a list of correct translations) or both; optionally `id`. The target, or else the
    first reference, is trained on. The English prompt is the name of the source's language, a colon and the source, and on the
    next line the name of the target's language and a colon. Names of common languages are in the prompt's language; for other
    languages the tag is used.

    Args:
        language: language tag of the target, for the metrics and for the language of the prompt.
        source_language: language tag of the source; must differ from `language`.
        template: the prompt, with {source}; it may have {source_language} and {language}, which become the languages' names.
    """

    metrics: ClassVar[tuple[str, ...]] = ("chrf", "bleu")
    placeholders: ClassVar[tuple[str, ...]] = ("source",)
    optional_placeholders: ClassVar[tuple[str, ...]] = ("source_language", "language")
    templates: ClassVar[Mapping[str, Mapping[str, str]]] = {"base": BASE, "chat": CHAT}
    sample_row: ClassVar[Mapping[str, object]] = {"source": "DOCUMENT", "target": "ANSWER"}

    language: str = "fr"
    source_language: str = "en"
    max_new_tokens: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        primary_language(self.source_language)
        if self.source_language == self.language:
            raise InputError(
                "is also the language of the target", field="source_language", value=self.source_language, fix="Name both"
            )

    def read(self, row: Mapping[str, object]) -> Reading:
        """`source`, and `target` or `references`."""
        names = {tag: language_name(getattr(self, tag), self.prompt_language) for tag in self.optional_placeholders}
        return Reading(text_field(row, "source"), references_field(row, "target"), names)
