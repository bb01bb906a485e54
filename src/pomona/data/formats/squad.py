"""SQuAD's nested form: articles of paragraphs, paragraphs of questions; flattened to one row per question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pomona.errors import InputError


def is_squad(records: Sequence[object]) -> bool:
    """Whether the objects of a list are articles."""
    return bool(records) and isinstance(records[0], dict) and isinstance(records[0].get("paragraphs"), list)


def squad_rows(articles: Sequence[object], path: Path) -> list[object]:
    """Rows `id`, `context`, `question`, `answers` (the texts) and `title`, as far as the file has them, in its order.

    Raises:
        InputError: an article, paragraph, question or answer has another form; the message names it.
    """
    rows: list[object] = []
    for article, at_article in _objects(articles, "article", path):
        for paragraph, at_paragraph in _objects(article.get("paragraphs"), f"{at_article}.paragraphs", path):
            shared = {"context": paragraph.get("context"), "title": article.get("title")}
            for question, at_question in _objects(paragraph.get("qas"), f"{at_paragraph}.qas", path):
                fields = {"id": question.get("id"), **shared, "question": question.get("question")}
                row = {name: value for name, value in fields.items() if value is not None}
                if "answers" in question:
                    answers = _objects(question["answers"], f"{at_question}.answers", path)
                    row["answers"] = [answer.get("text") for answer, _ in answers]
                rows.append(row)
    if not rows:
        raise InputError("has no rows: its articles hold no questions", file=path)
    return rows


def _objects(values: object, name: str, path: Path) -> Iterator[tuple[dict[str, object], str]]:
    """(object, its place within the file) of each entry of a list."""
    if not isinstance(values, list):
        raise InputError(f"a list is expected, this is {_kind(values)}", file=path, field=name)
    for index, value in enumerate(values, start=1):
        where = f"{name} {index}" if name == "article" else f"{name}[{index - 1}]"
        if not isinstance(value, dict):
            raise InputError(f"an object is expected, this is {_kind(value)}", file=path, field=where)
        yield value, where


def _kind(value: object) -> str:
    return "null or missing" if value is None else f"a {type(value).__name__}"
