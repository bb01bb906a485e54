from __future__ import annotations

import pytest

from pomona.data.example import Turn
from pomona.data.tasks import DataToText, ExtractiveQA, Simplification, Summarization, TitleGeneration, Translation
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


@pytest.mark.parametrize(
    ("task", "row", "references"),
    [
        (Summarization(), {"document": "d", "references": ["one", "two"]}, ("one", "two")),
        (Summarization(), {"document": "d", "summary": None, "references": ["one"]}, ("one",)),
        (Summarization(), {"document": "d", "summary": "s", "references": None}, ("s",)),
        (TitleGeneration(), {"document": "d", "title": "t", "summary": "s"}, ("t",)),
        (DataToText(), {"input": "d", "references": ["a\n b", "a b", "c"]}, ("a b", "c")),
        (DataToText(), {"input": "d", "output": "o", "references": ["a", "o"]}, ("o", "a")),
        (Simplification(), {"source": "d", "target": "t"}, ("t",)),
        (Translation(), {"source": "d", "target": "t", "references": ["u"]}, ("t", "u")),
    ],
)
def test_right_answers_are_a_text_or_a_list_or_both(
    task: Summarization, row: dict[str, object], references: tuple[str, ...]
) -> None:
    example = task.example(row, "1")
    assert (example.references, example.target, example.document) == (references, f" {references[0]}", "d")


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        (
            TitleGeneration(),
            {"document": "d", "summary": "s"},
            "^title: is missing: a text is expected; the row has document, summary$",
        ),
        (DataToText(), {"input": "d", "output": None, "references": []}, "^references: is empty: a list"),
        (DataToText(), {"input": "d", "output": None, "references": None}, "^output: is null"),
        (DataToText(), {"input": "d", "references": "r"}, "^references: is 'r': a list"),
        (DataToText(), {"input": {"name": "Fig"}, "output": "o"}, r"^input: is \{'name': 'Fig'\}: a text"),
        (Translation(), {"source": "d", "target": "t", "references": ["u", None]}, r"^references\[1\]: is null: a text"),
    ],
)
def test_answers_that_cannot_be_used_are_refused(task: Summarization, row: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task.example(row, "1")


def test_a_title_s_prompt_is_the_summary_s_with_another_word() -> None:
    row = {"document": "d", "summary": "s", "title": "t"}
    assert TitleGeneration().example(row, "1").prompt == "d\n\nTitle:"
    assert Summarization(template="{document}\n\nTitle:").example(row, "1").prompt == "d\n\nTitle:"


@pytest.mark.parametrize(
    "answers",
    [
        ["blue", "Blue"],
        [{"text": "blue", "answer_start": 11}, {"text": "Blue"}],
        {"text": ["blue", "Blue", "blue"], "answer_start": [11, 11, 11]},
    ],
)
def test_answers_come_in_three_spellings(answers: object) -> None:
    example = ExtractiveQA().example({"context": "The sky is blue.", "question": "What colour?", "answers": answers}, "1")
    assert (example.target, example.references) == (" blue", ("blue", "Blue"))


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


def test_an_answer_ends_at_the_first_stop() -> None:
    task = Summarization(stop=("###", "\n\n", "END"))
    assert task.parse(" \n\n a END b ### c") == "a"
    assert task.parse("###") == ""
    assert task.parse("a\nb") == "a"


def test_the_chat_form_is_a_user_s_turn_and_an_answer_without_a_space() -> None:
    row = {"document": "A text.", "summary": "It is."}
    example = Summarization(form="chat").example(row, "1")
    prompt = "Summarize the following text in one sentence. Answer with the summary only.\n\nA text."
    assert (example.history, example.prompt, example.target, example.body) == ((), prompt, "It is.", (77, 84))
    told = Summarization(form="chat", system="Be brief.", template="{document}?").example(row, "1")
    assert (told.history, told.prompt, told.body) == ((Turn("system", "Be brief."),), "A text.?", (0, 7))


def test_a_system_turn_needs_the_chat_form() -> None:
    with pytest.raises(InputError, match=r"^system: must be a text, and only in the chat form \(got 'x'\). Set form to chat."):
        Summarization(system="x")


@pytest.mark.parametrize(
    ("language", "prompt"),
    [
        ("en", "Korean: 나무\nEnglish:"),
        ("ar", "الكورية: 나무\nالعربية:"),
        ("zh-hant", "韩语：나무\n繁体中文："),
        ("ja", "韓国語：나무\n日本語："),
        ("pt-BR", "Korean: 나무\nPortuguese:"),
        ("gsw", "Korean: 나무\ngsw:"),
    ],
)
def test_a_translation_s_prompt_names_both_languages_in_its_own(language: str, prompt: str) -> None:
    task = Translation(source_language="ko", language=language)
    assert task.example({"source": "나무", "target": "t"}, "1").prompt == prompt


def test_a_translation_s_own_template_may_leave_the_names_out() -> None:
    row = {"source": "tree", "target": "arbre"}
    assert Translation(template="{source} =").example(row, "1").prompt == "tree ="
    example = Translation(form="chat", template="{source} ({source_language}), {language}?").example(row, "1")
    assert (example.prompt, example.body) == ("tree (English), French?", (0, 4))
    with pytest.raises(InputError, match=r"needs the placeholder \{source\} and no other; it may have \{source_language\} and"):
        Translation(template="{language}: {text}")
    with pytest.raises(InputError, match=r"^source_language: is also the language of the target \(got 'en'\)"):
        Translation(language="en")


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
        ({"context": "c", "question": "q", "answers": {"text": []}}, r"^answers\.text: is empty: a list"),
        ({"context": "c", "question": "q", "answers": {"text": ["a", None]}}, r"^answers\.text\[1\]: is null"),
        ({"context": "c", "question": "q", "answers": {"start": [1]}}, r"^answers: is \{'start': \[1\]\}: a list"),
        ({"context": "c", "question": "q", "answers": [{"text": 3}]}, r"^answers\[0\]: is 3"),
        ({"context": "c", "question": "q", "answers": [{"answer": "a"}]}, r"^answers\[0\]: is \{'answer': 'a'\}: a text"),
        ({"id": True, "context": "c", "question": "q", "answers": ["a"]}, "id: is True: a string or a whole number"),
    ],
)
def test_a_row_that_cannot_be_used_says_which_field(row: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExtractiveQA().example(row, "1")
