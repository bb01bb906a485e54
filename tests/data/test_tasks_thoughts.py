"""Thoughts before an answer are no part of it, in what a model wrote and in references."""

from __future__ import annotations

import pytest

from pomona.data import Example, fingerprint
from pomona.data.tasks import Chat, ExtractiveQA, Summarization
from pomona.data.tasks.thoughts import after_thoughts
from pomona.errors import InputError

ROW = {"context": "c", "question": "q", "answers": ["yes"]}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>\n\n</think>\n\nyes\nno", "yes"),
        ("\n<think>Is it?\n\nIt is.</think>yes", "yes"),
        ("[THINK]a[/THINK] yes", "yes"),
        ("<think>a\nb", ""),  # they have not ended: there is no answer
        ("yes <think>no</think> or so", "yes <think>no</think> or so"),
        ("A tag such as </think> is text", "A tag such as </think> is text"),
        ("yes", "yes"),
    ],
)
def test_the_answer_follows_the_thoughts(text: str, answer: str) -> None:
    assert ExtractiveQA().parse(text) == answer


def test_stops_count_behind_the_thoughts() -> None:
    assert Summarization(stop=("##",)).parse("<think>## a</think>b ## c") == "b"


def test_text_without_thoughts_stands() -> None:
    assert after_thoughts("  yes\n") == "  yes\n"


def test_thoughts_are_trained_on_and_not_scored_against() -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nyes"}]
    example = Chat().example({"messages": messages}, "r")
    assert (example.target, example.references) == ("<think>\nHm.\n</think>\n\nyes", ("yes",))
    assert Chat().parse(example.target) in example.references


def test_template_arguments_go_to_the_example_and_into_its_fingerprint() -> None:
    def made(**arguments: bool | int | float | str | None) -> Example:
        return ExtractiveQA(form="chat", template_arguments=arguments or None).example(ROW, "r")

    assert made(b="x", a=False).template_arguments == (("a", False), ("b", "x"))
    prints = {fingerprint([one]) for one in (made(), made(a=False), made(a=True), made(b=True))}
    assert len(prints) == 4


@pytest.mark.parametrize(
    ("form", "arguments", "problem"),
    [
        ("base", {"a": True}, "template_arguments: are for the chat form only"),
        ("chat", {"messages": "x"}, "template_arguments: not an allowed name of a template argument"),
        ("chat", {"a b": "x"}, "template_arguments: not an allowed name of a template argument"),
        ("chat", {"a": "no"}, "template_arguments.a: a template treats any text as true .* Write true or false"),
        ("chat", {"a": [1]}, "template_arguments.a: true, false, a number or a text is expected"),
    ],
)
def test_arguments_that_a_template_cannot_be_given(form: str, arguments: dict[str, object], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        ExtractiveQA(form=form, template_arguments=arguments)  # pyright: ignore[reportArgumentType]
