"""Chat: a conversation whose last turn is the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pomona.data.example import Turn
from pomona.data.tasks.base import tasks
from pomona.data.tasks.fields import FieldError, require, shown, text
from pomona.data.tasks.prompted import PromptedTask, Reading


@tasks.register("chat")
@dataclass(frozen=True)
class Chat(PromptedTask):
    """The assistant's last turn of a conversation.

    Rows: `messages`, a list of `{"role": ..., "content": ...}`, and optionally `id`. A `system` message may come first; then `user`
    and `assistant` take turns, and the last one, the assistant's, is trained on. A content is a text or a list of
    `{"type": "text", "text": ...}`. There is only the chat form. The last message of the user is the prompt; if it is too long,
    its beginning is cut.

    Args:
        template: text around the user's last message, with {prompt}; None: the message unchanged.
        system: the system turn of rows without one; None: no such turn.
        max_document_characters: the beginning of a longer last message of the user is cut; >= 1.
    """

    metrics: ClassVar[tuple[str, ...]] = ("rouge_l", "rouge_1", "rouge_2", "rouge_lsum", "bleu", "chrf")
    stops_at_line_end: ClassVar[bool] = False
    placeholders: ClassVar[tuple[str, ...]] = ("prompt",)
    templates: ClassVar[Mapping[str, Mapping[str, str]]] = {"chat": {"en": "{prompt}"}}
    sample_row: ClassVar[Mapping[str, object]] = {
        "messages": [{"role": "user", "content": "DOCUMENT"}, {"role": "assistant", "content": "ANSWER"}]
    }
    loses_its_beginning: ClassVar[bool] = True

    form: Literal["base", "chat"] = "chat"
    max_new_tokens: int = 256

    def read(self, row: Mapping[str, object]) -> Reading:
        """`messages`."""
        *history, prompt, answer = _turns(require(row, "messages", "a list of messages"))
        return Reading(prompt.content, (answer.content,), history=tuple(history))


def _turns(messages: object) -> list[Turn]:
    """The turns: an optional system turn, then alternating turns of user and assistant; at least one of each.

    Raises:
        FieldError: an entry is not a message, or its role is not expected there.
    """
    if not isinstance(messages, list | tuple) or not messages:
        raise FieldError("messages", f"is {shown(messages)}: a list of messages is expected")
    turns: list[Turn] = []
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        if not isinstance(message, Mapping):
            raise FieldError(place, f"is {shown(message)}: an object with role and content is expected")
        role = message.get("role")
        expected = ("system", "user") if not turns else ("assistant",) if turns[-1].role == "user" else ("user",)
        if not isinstance(role, str) or role not in expected:
            raise FieldError(f"{place}.role", f"is {shown(role)}: {' or '.join(expected)} is expected here")
        turns.append(Turn(role, _content(message.get("content"), role, f"{place}.content")))
    if turns[-1].role != "assistant":
        raise FieldError(
            "messages", f"is a conversation that ends with the {turns[-1].role}'s turn: it must end with the assistant's"
        )
    return turns


def _content(content: object, role: str, place: str) -> str:
    """The text of a message. A system message may be blank, which prevents the default system message of a model's template."""
    if isinstance(content, list | tuple):
        content = "".join(_part(part, f"{place}[{index}]") for index, part in enumerate(content))
    if role == "system" and isinstance(content, str):
        return content.strip()
    return text(content, place)


def _part(part: object, place: str) -> str:
    if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise FieldError(place, f'is {shown(part)}: {{"type": "text", "text": ...}} is expected')
    return str(part["text"])
