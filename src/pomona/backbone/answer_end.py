"""When an answer has ended: at one of the model's end tokens, at a line end, or at a text that the task names.

Thoughts that a model writes before its answer (`<think> ... </think>`) hold line ends and texts that end nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pomona.backbone.prompts import end_of_turn
from pomona.data.tasks.thoughts import answer_start, begins_with_thoughts
from pomona.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pomona.backbone.load import Backbone


@dataclass(frozen=True, eq=False)
class AnswerEnd:
    """Looks at the tokens of an answer so far.

    Args:
        tokenizer: of the model.
        tokens: ids that end any answer.
        line: end at the first line end after the white space that an answer may begin with.
        stop: texts that end an answer, after the white space that it may begin with.
    """

    tokenizer: PreTrainedTokenizerBase
    tokens: frozenset[int]
    line: bool
    stop: tuple[str, ...]
    _texts: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, backbone: Backbone, *, line: bool, stop: tuple[str, ...]) -> AnswerEnd:
        """With the end tokens of the tokenizer, of the model's own generation config, and of its chat template."""
        published = backbone.model.generation_config.eos_token_id if backbone.model.generation_config else None
        several = end_tokens(published)
        try:
            turn = end_of_turn(backbone.tokenizer)
        except InputError:  # a template that cannot render two turns ends no answer here
            turn = None
        found = (backbone.tokenizer.eos_token_id, turn, *several)
        return cls(backbone.tokenizer, frozenset(int(token) for token in found if token is not None), line, stop)  # pyright: ignore[reportArgumentType]

    def __call__(self, answer: Sequence[int]) -> bool:
        """Whether its last token ended it."""
        if answer[-1] in self.tokens:
            return True
        if self.line and "\n" in self._text(answer[-1]) and "\n" in _answer("".join(map(self._text, answer))):
            return True
        if self.stop:
            text = _answer(str(self.tokenizer.decode(list(answer))))
            return any(stop in text for stop in self.stop)
        return False

    def trimmed(self, answer: Sequence[int]) -> list[int]:
        """The answer up to the token that ended it: what a batch goes on to write after it is cut off."""
        length = next((place for place in range(1, len(answer) + 1) if self(answer[:place])), len(answer))
        return list(answer[:length])

    def text(self, answer: Sequence[int]) -> str:
        """The answer's text without special tokens, cut at the first text that ends an answer."""
        text = self._without_special(answer)
        begins = answer_start(text)
        if begins is None:
            return text
        return text[: min((place for stop in self.stop if (place := text.find(stop, begins)) >= 0), default=len(text))]

    def _without_special(self, answer: Sequence[int]) -> str:
        """Without special tokens but those that set thoughts apart from the answer, which some tokenizers count among them."""
        text = str(self.tokenizer.decode(list(answer), skip_special_tokens=True))
        if begins_with_thoughts(text):
            return text
        texts = list(map(self._text, answer))
        if not begins_with_thoughts("".join(texts[:2])):
            return text
        ends = next((place for place in range(len(texts) + 1) if answer_start("".join(texts[:place])) not in (None, 0)), len(texts))
        thoughts, rest = "".join(texts[:ends]), list(answer[ends:])
        return thoughts + str(self.tokenizer.decode(rest, skip_special_tokens=True))

    def _text(self, token: int) -> str:
        if token not in self._texts:
            self._texts[token] = str(self.tokenizer.decode([token]))
        return self._texts[token]


def end_tokens(published: object) -> list[int]:
    """The end tokens of a generation config's `eos_token_id`: an id, several, or none.

    Raises:
        InputError: it is something else.
    """
    several = published if isinstance(published, list) else [] if published is None else [published]
    found = [token for token in several if isinstance(token, int) and not isinstance(token, bool)]
    if len(found) < len(several):
        raise InputError(
            "a token's number, or a list of numbers, is expected",
            file="generation_config.json",
            field="eos_token_id",
            value=published,
            fix="Correct the model's generation config",
        )
    return found


def _answer(text: str) -> str:
    """What stands behind the thoughts and the white space that an answer may begin with."""
    start = answer_start(text)
    return "" if start is None else text[start:]
