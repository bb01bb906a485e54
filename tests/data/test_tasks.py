from __future__ import annotations

import pytest

from pomona.data.tasks import ExtractiveQA, Summarization
from pomona.errors import InputError


def test_summarization_builds_prompt_target_and_references() -> None:
    row = {"id": 7, "document": " A long\ntext. ", "summary": "A\n text.", "references": ["A text.", "Text."]}
    example = Summarization().example(row, "unused")
    assert (example.id, example.prompt, example.target) == ("7", "A long\ntext.\n\nSummary:", " A text.")
    assert (example.references, example.document, example.group) == (("A text.", "Text."), "A long\ntext.", None)


def test_the_summary_is_always_a_reference() -> None:
    example = Summarization().example({"document": "d", "summary": "s", "references": ["other"]}, "row")
    assert (example.id, example.references) == ("row", ("s", "other"))


def test_a_long_document_loses_its_end_and_the_frame_stays() -> None:
    task = Summarization(template="<{document}>\nTL;DR:", max_document_characters=4)
    example = task.example({"document": "one two", "summary": "s"}, "row")
    assert (example.prompt, example.document) == ("<one>\nTL;DR:", "one two")


def test_braces_in_a_document_are_text() -> None:
    assert Summarization().example({"document": "{x} {document}", "summary": "{"}, "r").prompt == "{x} {document}\n\nSummary:"


def test_question_answering_groups_the_questions_on_one_context() -> None:
    task = ExtractiveQA()
    first = task.example({"context": "The sky is blue.", "question": "What  colour?", "answers": ["blue", "Blue", "blue"]}, "1")
    second = task.example({"context": "the sky  is blue.", "question": "Which?", "answers": ["sky"]}, "2")
    other = task.example({"context": "The sea is blue.", "question": "Which?", "answers": ["sea"]}, "3")
    assert first.prompt == "The sky is blue.\n\nQuestion: What colour?\nAnswer:"
    assert (first.target, first.references, first.document) == (" blue", ("blue", "Blue"), "The sky is blue.")
    assert first.group == second.group != other.group


def test_a_long_context_loses_its_end_and_the_question_stays() -> None:
    task = ExtractiveQA(max_document_characters=3)
    assert task.example({"context": "abcdef", "question": "q", "answers": ["a"]}, "1").prompt == "abc\n\nQuestion: q\nAnswer:"


@pytest.mark.parametrize("task", [Summarization(), ExtractiveQA()])
@pytest.mark.parametrize(
    ("text", "answer"), [("", ""), (" \n\t\n", ""), (" a b \nc", "a b"), ("\n\u2028 x\r\ny", "x"), ("\ud800\x00", "\ud800\x00")]
)
def test_the_answer_is_the_first_line_that_is_not_blank(task: Summarization | ExtractiveQA, text: str, answer: str) -> None:
    assert task.parse(text) == answer


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"template": "Summary:"}, r"^template: a template needs the placeholder \{document\} and no other \(got 'Summary:'\)"),
        ({"template": "{document} {title}:"}, "and no other"),
        ({"template": "{}:"}, "and no other"),
        ({"template": "{document!r}:"}, "and no other"),
        ({"template": "{document"}, "braces that do not match"),
        ({"template": "{document} "}, "must not end in whitespace"),
        ({"language": "English!"}, r"^language: not a language tag \(got 'English!'\)"),
        ({"max_new_tokens": 0}, r"^max_new_tokens: a whole number of at least 1 is expected \(got 0\)"),
        ({"max_document_characters": 1.5}, r"^max_document_characters: a whole number .* \(got 1.5\)"),
    ],
)
def test_a_preset_that_cannot_be_used_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Summarization(**fields)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "q", "answers": ["a"]}, "context: is missing"),
        ({"context": "c", "question": " ", "answers": ["a"]}, "question: is blank"),
        ({"context": "c", "question": None, "answers": ["a"]}, "question: is null: a text is expected"),
        ({"context": "c", "question": "q", "answers": []}, "answers: is empty: a list of one or more texts is expected"),
        ({"context": "c", "question": "q", "answers": "a"}, "answers: is 'a': a list"),
        ({"context": "c", "question": "q", "answers": ["a", 3]}, r"answers\[1\]: is 3: a text is expected"),
        ({"id": True, "context": "c", "question": "q", "answers": ["a"]}, "id: is True: a string or a whole number"),
    ],
)
def test_a_row_that_cannot_be_used_says_which_field(row: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExtractiveQA().example(row, "1")
