"""What every registered task must do: on rows made for it, on hostile rows, and on real data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.real_data import DATA

from pomona.data import Example, examples, number_rows, read_jsonl
from pomona.data.tasks import PromptedTask, Task, tasks
from pomona.data.tasks.templates import check_template
from pomona.data.tasks.thoughts import begins_with_thoughts
from pomona.errors import InputError
from pomona.metrics import metrics

LANGUAGES = ("en", "ar", "zh", "ja")

# (task, its document's field, its answers' field, column of each field that is called otherwise in these sets, the sets)
REAL: list[tuple[str, str, str, dict[str, str], str]] = [
    ("summarization", "document", "summary", {}, "scitldr/en"),
    ("title_generation", "document", "title", {"title": "summary"}, "scitldr_title/en csl_title/zh"),
    ("data_to_text", "input", "references", {}, "e2e_nlg/en"),
    ("simplification", "source", "references", {"source": "input"}, "jsts_paraphrase/ja"),
    (
        "extractive_qa",
        "context",
        "answers",
        {},
        "xquad/en xquad/ar xquad/zh mlqa/en mlqa/ar mlqa/zh arcd/ar cmrc2018/zh drcd/zh-hant",
    ),
    ("extractive_qa", "context", "answers", {}, "tydiqa_goldp/en tydiqa_goldp/ar tydiqa_goldp/ko tydiqa_goldp/sw jsquad/ja"),
    ("extractive_qa", "context", "answers", {}, "mlqa_cross/ctx-ar_q-en mlqa_cross/ctx-en_q-ar mlqa_cross/ctx-zh_q-en"),
]

HOSTILE = {
    "a megabyte": "word " * 200_000,
    "a megabyte without a space": "木" * 350_000,
    "a million spaces": "a" + " " * 1_000_000 + "b",
    "only spaces": " " * 1_000_000,
    "line ends": "a\r\n\x0b\x0c\x1c\x85\u2028\u2029b",
    "control characters": "a\x00b\x1b[31m\x7f\x80c",
    "right to left": "\u202eabc\u200f \u0627\u0644 \u202c",
    "braces": "{document} {context}{0} {{ }} { %s \\",
    "half a pair": "a\ud800b\udc00",
    "marks alone": "\u0301\u0e31\u200d\ufe0f",
    "null": None,
    "a number": 10**30,
    "not a number": float("nan"),
    "a list": [[["x"]], None],
    "a deep list": [],
    "an object": {"text": None, "role": 3},
    "bytes": b"bytes",
}
for _ in range(800):
    HOSTILE["a deep list"] = [HOSTILE["a deep list"]]


@pytest.fixture(params=list(tasks))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def task(name: str) -> Task:
    return tasks.create(name)


def row_of(name: str, document: object, answer: object) -> dict[str, object]:
    """The task's sample row with this document and this answer."""
    kind = tasks[name]
    assert issubclass(kind, PromptedTask)
    return {field: _filled(value, {"DOCUMENT": document, "ANSWER": answer}) for field, value in kind.sample_row.items()}


def _filled(sample: object, texts: dict[str, object]) -> object:
    if isinstance(sample, dict):
        return {field: _filled(value, texts) for field, value in sample.items()}
    if isinstance(sample, list):
        return [_filled(value, texts) for value in sample]
    return texts.get(sample, sample) if isinstance(sample, str) else sample


def create(name: str, **parameters: Any) -> PromptedTask:
    """The task with these parameters; one of two languages has Korean as the other."""
    if "source_language" in tasks.parameters(name):
        parameters.setdefault("source_language", "ko")
    made = tasks.create(name, parameters)
    assert isinstance(made, PromptedTask)
    return made


def variants(name: str, **parameters: Any) -> Iterator[PromptedTask]:
    """The task in each of its forms and in each language that has templates."""
    kind = tasks[name]
    assert issubclass(kind, PromptedTask)
    for form in kind.templates:
        for language in LANGUAGES:
            yield create(name, form=form, language=language, **parameters)


def check(example: Example, task: PromptedTask, document: str) -> None:
    """The shape of an example whose row has `document`."""
    assert example.prompt == example.prompt.rstrip()
    answer = example.references[0]
    assert answer == answer.strip() != ""
    assert example.target == (answer if task.form == "chat" else f" {answer}")
    assert (example.history is None) == (task.form == "base")
    assert example.document.endswith(document)
    if example.body is None:
        kept = document[len(document) - min(len(document), task.max_document_characters) :].lstrip()
        assert example.prompt.endswith(kept)
    else:
        kept = document[: task.max_document_characters].rstrip()
        start, end = example.body
        assert example.prompt[start:end] == kept
    assert example.cut_characters == len(document) - len(kept)


def test_it_has_what_the_rest_of_the_program_asks_for(name: str, task: Task) -> None:
    assert set(tasks.parameters(name)) >= {
        "language",
        "form",
        "template",
        "system",
        "max_new_tokens",
        "max_document_characters",
        "stop",
    }
    assert (task.stop, isinstance(task.stops_at_line_end, bool)) == ((), True)


def test_prompt_and_completion_meet_in_every_form_and_language(name: str) -> None:
    for task in variants(name):
        example = task.example(row_of(name, "A long text\n about trees.", "Trees."), "row 1")
        assert example.id == "row 1"
        check(example, task, "A long text\n about trees.")


def test_the_templates_can_be_used_and_every_language_has_its_own(name: str) -> None:
    kind = tasks[name]
    assert issubclass(kind, PromptedTask)
    for form, templates in kind.templates.items():
        assert form in ("base", "chat")
        assert {"en"} <= set(templates) <= set(LANGUAGES)
        for template in templates.values():
            check_template(template, kind.placeholders, kind.optional_placeholders)
        prompts = {task.language: task.prompt_template for task in variants(name) if task.form == form}
        assert prompts == {language: templates.get(language, templates["en"]) for language in LANGUAGES}


def test_a_language_without_a_template_gets_the_english_one(name: str) -> None:
    for form in tasks.create(name).templates:  # pyright: ignore[reportAttributeAccessIssue]
        english, swahili = (create(name, form=form, language=language).prompt_template for language in ("en", "sw"))
        assert english == swahili
        traditional, chinese = (create(name, form=form, language=language).prompt_template for language in ("zh-hant", "zh"))
        assert traditional == chinese


@settings(max_examples=25, deadline=None)
@given(
    document=st.text(st.characters(), max_size=40).map(str.strip).filter(bool),
    answer=st.text(st.characters(), max_size=20).map(str.strip).filter(bool),
    limit=st.integers(1, 40),
)
def test_any_document_stands_whole_or_cut_in_the_prompt(document: str, answer: str, limit: int) -> None:
    for name in tasks:
        for task in variants(name, max_document_characters=limit):
            check(task.example(row_of(name, document, answer), "1"), task, document)


def test_a_document_of_any_length_leaves_the_frame_whole(name: str) -> None:
    for task in variants(name):
        short, long = (task.example(row_of(name, text, "Trees."), "1") for text in ("\ue000", "\ue000" * 100_000))
        head, tail = short.prompt.split("\ue000")
        assert long.prompt == head + "\ue000" * 4000 + tail
        assert (short.cut_characters, long.cut_characters) == (0, 96_000)
        assert long.document.count("\ue000") == 100_000


def test_the_prompt_does_not_hold_the_target(name: str) -> None:
    for task in variants(name):
        example = task.example(row_of(name, "A long text.", "TARGET"), "row 1")
        assert (example.references, "TARGET" in example.prompt, "TARGET" in example.document) == (("TARGET",), False, False)
        assert all("TARGET" not in turn.content for turn in example.history or ())


def test_a_template_and_a_system_turn_of_the_user_s_own(name: str) -> None:
    kind = tasks[name]
    assert issubclass(kind, PromptedTask)
    template = "<{{" + "".join(f"{{{one}}}|" for one in kind.placeholders) + "}}>"
    for form in kind.templates:
        task = create(name, form=form, template=template, **({"system": "Be {brief}."} if form == "chat" else {}))
        example = task.example(row_of(name, "A {document}", "Trees."), "1")
        check(example, task, "A {document}") if example.body else None
        assert example.prompt.startswith("<{")
        assert example.prompt.endswith("|}>")
        assert "A {document}|" in example.prompt
        if form == "chat":
            assert [(turn.role, turn.content) for turn in example.history or ()] == [("system", "Be {brief}.")]


def test_the_target_is_a_reference_that_parse_gives_back(name: str) -> None:
    for task in variants(name):
        example = task.example(row_of(name, "A long text.", "Trees {grow}: they do."), "row 1")
        assert task.parse(example.target) == example.references[0] == "Trees {grow}: they do."
        if task.stops_at_line_end:
            assert task.parse(f"{example.target}\n\nand more") == example.references[0]
        stopped = dataclasses.replace(task, stop=("<end>", "###"))
        assert stopped.parse(f"{example.target} ### <end>") == example.references[0]


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters()), stop=st.lists(st.text(st.characters(), min_size=1, max_size=3), max_size=3))
def test_parse_takes_any_string(text: str, stop: list[str]) -> None:
    assume(not begins_with_thoughts(text))  # which are no answer: see tests/data/test_tasks_thoughts.py
    for name in tasks:
        task = tasks.create(name)
        answer = task.parse(text)
        assert answer == answer.strip() == task.parse(answer)
        assert len(answer.splitlines()) <= 1 or not task.stops_at_line_end
        assert answer in text
        assert bool(answer) == bool(text.strip())
        stopped = tasks.create(name, {"stop": tuple(stop)}).parse(text)
        assert stopped == stopped.strip()
        assert answer.startswith(stopped)
        assert not any(one in stopped for one in stop)


def test_each_missing_blank_or_mistyped_field_is_named(name: str, task: Task) -> None:
    row = row_of(name, "A long text.", "Trees.")
    kind = tasks[name]
    assert issubclass(kind, PromptedTask)
    assert row.keys() > set(kind.optional_fields)
    for field in row.keys() - set(kind.optional_fields):
        without = {key: value for key, value in row.items() if key != field}
        for bad in (without, row | {field: " "}, row | {field: 7}, row | {field: None}, row | {field: {}}):
            with pytest.raises(ValueError, match=rf"^{field}: is "):
                task.example(bad, "row 1")


def test_an_optional_field_may_be_missing_blank_or_null(name: str, task: Task) -> None:
    kind = tasks[name]
    assert issubclass(kind, PromptedTask)
    row = row_of(name, "A long text.", "Trees.")
    for field in kind.optional_fields:
        without = {key: value for key, value in row.items() if key != field}
        made = [task.example(one, "row 1") for one in (without, row | {field: " "}, row | {field: None})]
        assert made[0] == made[1] == made[2] != task.example(row, "row 1")


def outcome(task: Task, row: dict[str, object]) -> Example | str:
    """The example of a row, or what is wrong with it."""
    try:
        return task.example(row, "row 1")
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_row_is_an_example_or_an_error_that_names_its_field(name: str, kind: str) -> None:
    value = HOSTILE[kind]
    task = create(name)
    plain = row_of(name, "A long text.", "Trees.")
    rows = [
        row_of(name, value, "Trees."),
        row_of(name, "A long text.", value),
        *(plain | {field: value} for field in (*plain, "id")),
    ]
    for row in rows:
        made = outcome(task, row)
        if isinstance(made, str):
            assert made.startswith(tuple(row)), made
            assert len(made) < 200
        else:
            assert isinstance(value, str | int | type(None))
            assert len(made.prompt) < 4100 or row is not rows[0]
            assert made.references[0].strip()


def test_the_names_of_a_wide_row_are_shortened(task: Task) -> None:
    with pytest.raises(ValueError, match=r"is missing: .* is expected; the row has column 0, .*\.\.\.$") as caught:
        task.example({f"column {number}": "" for number in range(10_000)}, "row 1")
    assert len(str(caught.value)) < 250


def test_its_metrics_exist_and_take_its_language(task: Task) -> None:
    assert task.metrics
    for metric in task.metrics:
        assert metrics.create(metric, {"language": "zh-hant"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 0),
        ("max_document_characters", 0),
        ("language", "English!"),
        ("form", "poem"),
        ("template", "no placeholder"),
        ("template", 3),
        ("system", 3),
        ("stop", ("a", "")),
        ("stop", "###"),
    ],
)
def test_it_says_what_it_is_and_refuses_what_it_cannot_use(name: str, field: str, value: object) -> None:
    assert len(tasks.describe(name)) > 20
    with pytest.raises(InputError, match=rf"^{field}: .*\(got "):
        create(name, **{field: value})


@pytest.mark.parametrize("form", ["base", "chat"])
@pytest.mark.parametrize(
    ("name", "document", "answers", "columns", "path"),
    [pytest.param(*one[:4], path, id=path) for one in REAL for path in one[4].split()],
)
def test_real_rows_become_examples(name: str, document: str, answers: str, columns: dict[str, str], path: str, form: str) -> None:
    file = DATA / path / "test.jsonl"
    language = path.split("/")[1].removeprefix("ctx-").partition("_")[0]
    task = create(name, form=form, language=language)
    rows: list[dict[str, Any]] = [
        dict(row.fields) | {field: row.fields[column] for field, column in columns.items()} for row in read_jsonl(file)
    ]
    made = examples(number_rows(rows), task, file)
    assert [example.id for example in made] == [row["id"] for row in rows]
    for example, row in zip(made, rows, strict=True):
        first = row[answers] if isinstance(row[answers], str) else row[answers][0]
        assert example.target.split() == first.split()
        assert example.document == row[document].strip()
        check(example, task, example.document)
        assert all(task.parse(reference) == reference for reference in example.references)
