"""Extractive question answering: from a context and a question to a span of the context."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pomona.data.content import normalised
from pomona.data.tasks.base import tasks
from pomona.data.tasks.fields import FieldError, one_line, require, text_field, text_list
from pomona.data.tasks.prompted import PromptedTask, Reading
from pomona.errors import InputError

BASE = {
    "en": "{context}\n\nQuestion: {question}\nAnswer:",
    "ar": "{context}\n\nالسؤال: {question}\nالجواب:",
    "zh": "{context}\n\n问题：{question}\n答案：",
    "ja": "{context}\n\n質問：{question}\n答え：",
}
CHAT = {
    "en": "Read the text and answer the question in words copied from the text. Give the answer only.\n\n"
    "Text: {context}\n\nQuestion: {question}",
    "ar": "اقرأ النص ثم أجب عن السؤال بكلمات منقولة من النص كما هي. اكتب الجواب فقط.\n\nالنص: {context}\n\nالسؤال: {question}",
    "zh": "请阅读文本，并用文本中的原文回答问题，只输出答案。\n\n文本：{context}\n\n问题：{question}",
    "ja": "文章を読み、文章中の語句をそのまま使って質問に答えてください。答えだけを出力してください。\n\n"
    "文章：{context}\n\n質問：{question}",
}


@tasks.register("extractive_qa")
@dataclass(frozen=True)
class ExtractiveQA(PromptedTask):
    """A short answer to a question, found in a context.

    Rows: `context`, `question`, `answers`, and optionally `id`. The answers are a list of texts, a list of `{"text": ...}`, or
    SQuAD's `{"text": [...], "answer_start": [...]}`; all are correct; the first is the target. The context is the document:
    questions on one context share a group, which never crosses splits, and intervals are clustered by group. The English prompt is
    the context, a blank line, `Question:` with the question, and on the next line `Answer:`.

    Args:
        cut_answers: `keep` a row if `max_document_characters` cuts all its answers off the context, or `refuse` it, which
            `data.incomplete_rows: skip` turns into leaving it out.
    """

    metrics: ClassVar[tuple[str, ...]] = ("token_f1", "exact_match")
    placeholders: ClassVar[tuple[str, ...]] = ("context", "question")
    templates: ClassVar[Mapping[str, Mapping[str, str]]] = {"base": BASE, "chat": CHAT}
    sample_row: ClassVar[Mapping[str, object]] = {"context": "DOCUMENT", "question": "What bears fruit?", "answers": ["ANSWER"]}

    max_new_tokens: int = 32
    cut_answers: Literal["keep", "refuse"] = "keep"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cut_answers not in ("keep", "refuse"):
            raise InputError("must be keep or refuse", field="cut_answers", value=self.cut_answers)

    def read(self, row: Mapping[str, object]) -> Reading:
        """`context`, `question` and `answers`."""
        context = text_field(row, "context")
        question = one_line(text_field(row, "question"))
        group = hashlib.sha256(normalised(context).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        answers = _answers(row)
        if self.cut_answers == "refuse" and not any(answer in self._shortened(context) for answer in answers):
            raise FieldError(
                "answers",
                f"none is in the first {self.max_document_characters} characters of the context",
                "Set data.incomplete_rows to skip, or raise max_document_characters",
            )
        return Reading(context, answers, {"question": question}, group=group)


def _answers(row: Mapping[str, object]) -> tuple[str, ...]:
    """The answers in any of the three forms."""
    found = require(row, "answers", "a list of texts")
    if isinstance(found, Mapping) and "text" in found:
        return text_list(found["text"], "answers.text")
    if isinstance(found, list | tuple):
        found = [one["text"] if isinstance(one, Mapping) and "text" in one else one for one in found]
    return text_list(found, "answers")
