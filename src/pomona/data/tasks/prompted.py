"""The base of nearly all tasks: a template makes the prompt from the fields of a row, in the base and the chat form."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pomona.data.example import Example, Turn
from pomona.data.tasks.answers import before_stop, first_line
from pomona.data.tasks.base import Task
from pomona.data.tasks.fields import check_at_least, id_field, one_line
from pomona.data.tasks.template_arguments import check_template_arguments
from pomona.data.tasks.templates import check_template, fill, prompt_language
from pomona.data.tasks.thoughts import after_thoughts
from pomona.errors import InputError
from pomona.metrics.text import primary_language


@dataclass(frozen=True)
class Reading:
    """The content of a row, as a task reads it.

    Args:
        body: the text that fills the task's first placeholder and may be shortened; it ends in a visible character.
        references: one or more correct answers; the first is the target.
        others: the texts of the other placeholders.
        lead: text before the body in its placeholder, which is never shortened.
        separator: the whitespace between prompt and completion, in the base form.
        history: earlier turns of a conversation.
        group: examples with one group go to one split.
    """

    body: str
    references: tuple[str, ...]
    others: Mapping[str, str] = field(default_factory=dict)
    lead: str = ""
    separator: str = " "
    history: tuple[Turn, ...] = ()
    group: str | None = None


@dataclass(frozen=True)
class PromptedTask(Task):
    """A task whose prompt is a template. A subclass gives placeholders, templates, metrics and a sample row, and reads a row.

    In the base form the prompt ends in a visible character and the completion begins with one space. Byte-level and
    sentence-piece tokenizers attach a space to the word that follows it, and no token spans a colon and a space, so prompt and
    completion give the same tokens separately as together. `Example.target` is therefore " " + answer, and the references do not
    have the space. In the chat form the prompt is the user's turn, and the target is the unchanged answer. The backbone adds the
    end token after the completion.

    Args:
        language: language tag of the text, for the metrics and for the language of the prompt.
        form: `base`, a text that the model goes on with, or `chat`, turns that the model's own chat template renders.
        template: the prompt, with the task's placeholders in braces; None: the task's own in the language (en, ar, zh or ja), or
            in English where it has none.
        system: the system's turn, in the chat form; None: no such turn.
        max_new_tokens: longest answer, in tokens, >= 1.
        max_document_characters: the end of a longer document is cut, never the template's text; >= 1.
        stop: texts that end an answer, besides the model's end token and the task's line end.
        template_arguments: arguments of the model's chat template besides the conversation, such as `{enable_thinking: false}`;
            chat form only.

    Raises:
        InputError: an invalid value.
    """

    placeholders: ClassVar[tuple[str, ...]]
    """The placeholders that a template must have; the first is the document's."""

    optional_placeholders: ClassVar[tuple[str, ...]] = ()
    """The placeholders that a template may have."""

    templates: ClassVar[Mapping[str, Mapping[str, str]]]
    """Form -> primary language -> template; every form has English."""

    sample_row: ClassVar[Mapping[str, object]]
    """A row that `read` accepts, with the text DOCUMENT as its document and ANSWER as a correct answer. The reference shows it, and
    the conformance suite replaces these two texts."""

    optional_fields: ClassVar[tuple[str, ...]] = ()
    """Fields of `sample_row` that a row may lack."""

    loses_its_beginning: ClassVar[bool] = False
    """Whether a prompt that is too long is cut at its beginning, not at the document's end: for tasks that ask at the end."""

    language: str = "en"
    form: Literal["base", "chat"] = "base"
    template: str | None = None
    system: str | None = None
    max_new_tokens: int = 64
    max_document_characters: int = 4000
    stop: tuple[str, ...] = ()
    template_arguments: dict[str, bool | int | float | str | None] | None = None

    def __post_init__(self) -> None:
        primary_language(self.language)
        if self.form not in self.templates:
            raise InputError("no such form of this task", field="form", value=self.form, fix=f"Known: {', '.join(self.templates)}")
        if self.template is not None:
            check_template(self.template, self.placeholders, self.optional_placeholders)
        if self.system is not None and not (isinstance(self.system, str) and self.form == "chat"):
            raise InputError("must be a text, and only in the chat form", field="system", value=self.system, fix="Set form to chat")
        check_at_least("max_new_tokens", self.max_new_tokens, 1)
        check_at_least("max_document_characters", self.max_document_characters, 1)
        if not isinstance(self.stop, tuple) or not all(isinstance(one, str) and one for one in self.stop):
            raise InputError("texts are expected, none of them empty", field="stop", value=self.stop)
        check_template_arguments(self.template_arguments, self.form)

    @abstractmethod
    def read(self, row: Mapping[str, object]) -> Reading:
        """The fields of a row.

        Args:
            row: the parsed JSON object.

        Raises:
            FieldError: a field is missing, empty or of the wrong type.
        """

    @property
    def prompt_language(self) -> str:
        """The primary language that the task's own template is written in."""
        return prompt_language(self.templates[self.form], self.language)

    @property
    def prompt_template(self) -> str:
        """The template that is used: the given one, or the task's own."""
        return self.templates[self.form][self.prompt_language] if self.template is None else self.template

    def example(self, row: Mapping[str, object], id: str) -> Example:
        """An example from one row of data; see the base class."""
        reading = self.read(row)
        body = self._shortened(reading.body)
        name = self.placeholders[0]
        prompt, starts = fill(self.prompt_template, {**reading.others, name: reading.lead + body})
        start = starts[name] + len(reading.lead)
        lines = map(one_line, reading.references) if self.stops_at_line_end else reading.references
        right = tuple(dict.fromkeys(lines))
        earlier = [turn.content for turn in reading.history if turn.role != "system"]
        chat = self.form == "chat"
        return Example(
            id=id_field(row, id),
            prompt=prompt,
            target=right[0] if chat else reading.separator + right[0],
            references=tuple(dict.fromkeys(after_thoughts(one) or one for one in right)),
            document="\n\n".join([*earlier, reading.lead + reading.body]),
            group=reading.group,
            history=self._history(reading) if chat else None,
            body=None if self.loses_its_beginning else (start, start + len(body)),
            cut_characters=len(reading.body) - len(body),
            template_arguments=tuple(sorted((self.template_arguments or {}).items())),
        )

    def parse(self, text: str) -> str:
        """The text before the first of the `stop` texts; if an answer is one line, the first non-blank line of that text.

        Thoughts before the answer (`<think> ... </think>`) are removed; if they have no end, there is no answer.
        """
        answer = before_stop(after_thoughts(text), self.stop)
        return first_line(answer) if self.stops_at_line_end else answer

    def _shortened(self, body: str) -> str:
        if len(body) <= self.max_document_characters:
            return body
        if self.loses_its_beginning:
            return body[-self.max_document_characters :].lstrip()
        return body[: self.max_document_characters].rstrip()

    def _history(self, reading: Reading) -> tuple[Turn, ...]:
        """The turns before the prompt; the row's own system turn takes precedence over the task's."""
        given = reading.history[:1]
        if self.system is None or (given and given[0].role == "system"):
            return reading.history
        return (Turn("system", self.system), *reading.history)
