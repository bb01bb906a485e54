from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pomona.data.tasks import PromptedTask, tasks
from pomona.data.tasks.languages import language_name
from pomona.data.tasks.templates import check_template, fill, prompt_language
from pomona.errors import InputError

SCRIPTS = {"ar": range(0x600, 0x700), "zh": range(0x4E00, 0xA000), "ja": (*range(0x3040, 0x3100), *range(0x4E00, 0xA000))}


def test_a_template_is_filled_by_parts() -> None:
    text, starts = fill("{{{a}}} {b}{{a}}{a}", {"a": "{b}", "b": "{a}{{"})
    assert text == "{{b}} {a}{{{a}{b}"
    assert starts == {"a": 1, "b": 6}


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(st.tuples(st.text(st.sampled_from("{}ab é木\n")), st.sampled_from(["x", "y"])), min_size=1, max_size=5),
    end=st.text(st.sampled_from("{}a")),
    values=st.fixed_dictionaries({"x": st.text("{}xy木"), "y": st.text("{}xy木")}),
)
def test_it_fills_as_str_format_does_and_says_where(parts: list[tuple[str, str]], end: str, values: dict[str, str]) -> None:
    doubled = str.maketrans({"{": "{{", "}": "}}"})
    template = "".join(f"{literal.translate(doubled)}{{{name}}}" for literal, name in parts) + end.translate(doubled)
    text, starts = fill(template, values)
    assert text == template.format(**values)
    expected: dict[str, int] = {}
    length = 0
    for literal, name in parts:
        expected.setdefault(name, length + len(literal))
        length += len(literal) + len(values[name])
    assert starts == expected
    assert all(text[start:].startswith(values[name]) for name, start in starts.items())


@pytest.mark.parametrize("template", ["{a} {b}", "{b}{a}{a}", "{{{a}}}{b}{c}"])
def test_a_template_with_its_placeholders_is_fine(template: str) -> None:
    check_template(template, ("a", "b"), ("c",))
    assert {name for _, name, _, _ in string.Formatter().parse(template) if name} >= {"a", "b"}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{a}", r"needs the placeholders \{a\} and \{b\} and no other; it may have \{c\} \(got '\{a\}'\). Double any other brace."),
        ("{a} {b} {d}", "and no other"),
        ("{a} {b[0]}", "and no other"),
        ("{a} {b.x}", "and no other"),
        ("{a} {b:>9}", "and no other"),
        ("{a} {b} {", "braces that do not match"),
        ("{a} {b}\u3000", "must not end in whitespace"),
        (None, "a text is expected"),
    ],
)
def test_a_template_that_could_not_be_filled_is_refused(template: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^template: .*{message}"):
        check_template(template, ("a", "b"), ("c",))


def test_the_prompt_s_language_is_the_text_s_where_there_is_a_template() -> None:
    templates = {"en": "", "zh": ""}
    assert [prompt_language(templates, one) for one in ("en-GB", "zh-hant", "ja", "sw")] == ["en", "zh", "en", "en"]


@pytest.mark.parametrize("language", ["ar", "de", "en", "sw", "zh", "zh-hans", "zh-Hant", "pt-BR"])
def test_names_of_languages_are_in_the_prompt_s_script(language: str) -> None:
    assert language_name(language, "en").isascii()
    for prompt, script in SCRIPTS.items():
        name = language_name(language, prompt)
        assert all(char == " " or char == "ー" or ord(char) in script for char in name), name


def test_names_of_languages() -> None:
    assert [language_name("de-AT", one) for one in ("en", "ar", "zh", "ja")] == ["German", "الألمانية", "德语", "ドイツ語"]
    assert [language_name(one, "en") for one in ("zh", "zh-Hant", "zh-TW")] == ["Chinese", "Traditional Chinese", "Chinese"]
    assert language_name("gsw-CH", "ja") == "gsw-CH"
    with pytest.raises(InputError, match="not a language tag"):
        language_name("Deutsch", "en")


def test_the_tasks_that_come_along_have_a_prompt_in_four_languages_or_one_for_all() -> None:
    own = ("data_to_text", "extractive_qa", "instruction", "simplification", "summarization", "title_generation", "translation")
    for name in own:
        kind = tasks[name]
        assert issubclass(kind, PromptedTask)
        for form, templates in kind.templates.items():
            assert set(templates) == ({"en"} if (name, form) == ("instruction", "chat") else {"en", "ar", "zh", "ja"}), (name, form)
