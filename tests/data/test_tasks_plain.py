"""The tasks that take rows as people have them: prompt and completion, instructions, conversations."""

from __future__ import annotations

from typing import Any

import pytest

from pomona.data.example import Turn
from pomona.data.tasks import Chat, Completion, Instruction
from pomona.errors import InputError


@pytest.mark.parametrize(
    ("prompt", "completion", "target"),
    [
        ("Q: a\nA:", "b", " b"),
        ("Q: a\nA:", " b", " b"),
        ("Q: a\nA: ", "b", " b"),
        ("Q: a\nA:", "\n  b\nc\n", "\n  b\nc"),
        ("Q: a\nA:\n", "b", "\nb"),
        ("Q: a\nA: ", " b", "  b"),
    ],
)
def test_prompt_and_completion_stand_as_they_are_with_the_whitespace_on_the_completion_s_side(
    prompt: str, completion: str, target: str
) -> None:
    example = Completion().example({"prompt": prompt, "completion": completion}, "1")
    assert (example.prompt, example.target) == ("Q: a\nA:", target)
    assert (example.references, example.body, example.history) == ((completion.strip(),), None, None)
    chat = Completion(form="chat").example({"prompt": prompt, "completion": completion}, "1")
    assert (chat.prompt, chat.target, chat.history) == ("Q: a\nA:", completion.strip(), ())


def test_a_prompt_keeps_its_indentation_and_loses_its_beginning() -> None:
    row = {"prompt": "  def f():\n    return", "completion": "1"}
    assert Completion().example(row, "1").prompt == "  def f():\n    return"
    cut = Completion(max_document_characters=9).example(row, "1")
    assert (cut.prompt, cut.cut_characters, cut.document) == ("return", 15, "  def f():\n    return")


def test_an_answer_of_several_lines_is_kept_and_ends_at_a_stop() -> None:
    assert Completion().parse("\n a\n\nb \n") == "a\n\nb"
    assert Completion(stop=("\n\n", "Q:")).parse("\n\na\nb\n\nc") == "a\nb"


def test_the_input_follows_the_instruction_and_is_the_document() -> None:
    row = {"instruction": " Translate. ", "input": "\nA tree.", "output": "Un\narbre."}
    example = Instruction().example(row, "1")
    assert example.prompt == "Instruction: Translate.\n\nA tree.\n\nResponse:"
    assert example.body == (25, 32)
    assert (example.target, example.document, example.references) == (" Un\narbre.", "Translate.\n\nA tree.", ("Un\narbre.",))
    chat = Instruction(form="chat", max_document_characters=3).example(row, "1")
    assert (chat.prompt, chat.body, chat.cut_characters) == ("Translate.\n\nA t", (12, 15), 4)


@pytest.mark.parametrize("without", [{}, {"input": ""}, {"input": " \n"}, {"input": None}])
def test_without_an_input_the_instruction_is_the_document(without: dict[str, object]) -> None:
    row = {"instruction": "Say it.", "output": "It."} | without
    example = Instruction().example(row, "1")
    assert (example.prompt, example.document, example.body) == ("Instruction: Say it.\n\nResponse:", "Say it.", (13, 20))


@pytest.mark.parametrize("value", [0, False, [], {"text": "x"}])
def test_an_input_that_is_not_text_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"^input: is .*: a text or nothing is expected"):
        Instruction().example({"instruction": "Say it.", "output": "It.", "input": value}, "1")


def turns(*contents: object) -> dict[str, Any]:
    """A row of turns: `s:`, `u:` or `a:` before a content, or a message as it stands."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    made = [{"role": roles[one[0]], "content": one[2:]} if isinstance(one, str) and one[1:2] == ":" else one for one in contents]
    return {"messages": made}


def test_the_last_turn_is_the_target_and_the_one_before_it_the_prompt() -> None:
    example = Chat().example(turns("s:Be brief.", "u:Hi", "a:Hello.", "u: A tree? ", "a: A plant.\nOf wood."), "7")
    assert example.history == (Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Hello."))
    assert (example.prompt, example.target, example.references) == ("A tree?", "A plant.\nOf wood.", ("A plant.\nOf wood.",))
    assert (example.id, example.document, example.body) == ("7", "Hi\n\nHello.\n\nA tree?", None)


def test_a_short_conversation_has_no_history() -> None:
    example = Chat().example(turns("u:Hi", "a:Hello."), "1")
    assert (example.history, example.prompt, example.target) == ((), "Hi", "Hello.")


@pytest.mark.parametrize(
    ("contents", "history"),
    [
        (("u:Hi", "a:Hello."), (Turn("system", "default"),)),
        (("s:own", "u:Hi", "a:Hello."), (Turn("system", "own"),)),
        (("s:", "u:Hi", "a:Hello."), (Turn("system", ""),)),
    ],
)
def test_a_row_s_own_system_turn_goes_first(contents: tuple[str, ...], history: tuple[Turn, ...]) -> None:
    assert Chat(system="default").example(turns(*contents), "1").history == history


def test_a_content_may_be_a_list_of_texts() -> None:
    parts = [{"type": "text", "text": "A "}, {"type": "text", "text": "tree?"}]
    assert Chat().example(turns({"role": "user", "content": parts}, "a:Yes."), "1").prompt == "A tree?"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (turns(), r"^messages: is empty: a list of messages is expected$"),
        ({"conversations": []}, r"^messages: is missing: a list of messages is expected; the row has conversations$"),
        (turns("u:Hi"), r"^messages: is a conversation that ends with the user's turn: it must end with the assistant's$"),
        (turns("s:Hi"), r"ends with the system's turn"),
        (turns("a:Hi"), r"^messages\[0\]\.role: is 'assistant': system or user is expected here$"),
        (turns("s:Hi", "a:Hi"), r"^messages\[1\]\.role: is 'assistant': user is expected here$"),
        (turns("u:Hi", "u:Hi"), r"^messages\[1\]\.role: is 'user': assistant is expected here$"),
        (turns("u:Hi", "a:Hi", "s:Hi"), r"^messages\[2\]\.role: is 'system': user is expected here$"),
        (turns({"role": "tool", "content": "x"}), r"^messages\[0\]\.role: is 'tool'"),
        (turns({"content": "x"}), r"^messages\[0\]\.role: is null"),
        (turns({"role": ["user"], "content": "x"}), r"^messages\[0\]\.role: is \['user'\]"),
        (turns("Hi"), r"^messages\[0\]: is 'Hi': an object with role and content is expected$"),
        (turns({"role": "user"}), r"^messages\[0\]\.content: is null: a text is expected$"),
        (turns({"role": "system", "content": 3}), r"^messages\[0\]\.content: is 3: a text is expected$"),
        (turns("u: ", "a:Hi"), r"^messages\[0\]\.content: is blank"),
        (turns("u:Hi", {"role": "assistant", "content": []}), r"^messages\[1\]\.content: is blank"),
        (
            turns({"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image", "url": "y"}]}),
            r"^messages\[0\]\.content\[1\]: is \{'type': 'image', 'url': 'y'\}: \{\"type\": \"text\", \"text\": \.\.\.\} is exp",
        ),
        (turns({"role": "user", "content": ["x"]}), r"^messages\[0\]\.content\[0\]: is 'x'"),
    ],
)
def test_a_conversation_that_cannot_be_used_says_which_message(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Chat().example(row, "1")


def test_a_conversation_has_the_chat_form_only() -> None:
    with pytest.raises(InputError, match=r"^form: no such form of this task \(got 'base'\). Known: chat."):
        Chat(form="base")
