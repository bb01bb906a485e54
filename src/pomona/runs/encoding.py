"""Examples as tokens before anything is trained, with warnings: what was cut unasked, and what the chat template does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pomona.backbone.batches import Encoded, Truncation, encode
from pomona.backbone.chat_template import template_warnings
from pomona.backbone.load import Backbone
from pomona.data import Example, Splits
from pomona.data.tasks import Task
from pomona.errors import InputError
from pomona.evaluation.answers import answering_prompts
from pomona.runs.recipe import Recipe
from pomona.runs.record import CutRecord
from pomona.tuning.settings import FitData


@dataclass(frozen=True)
class EncodedExamples:
    """Some examples as tokens.

    Args:
        encoded: in order.
        truncation: prompts that were too long.
        warnings: what a user should know of them.
    """

    encoded: tuple[Encoded, ...]
    truncation: Truncation
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Encoding:
    """The splits of a run as tokens.

    Args:
        data: the three that training may see.
        cut: what was cut of all four, by name.
        warnings: what a user should know of them.
    """

    data: FitData
    cut: dict[str, CutRecord]
    warnings: list[str]


def encode_examples(
    examples: Sequence[Example], backbone: Backbone, max_tokens: int, name: str, section: str = "tuning."
) -> EncodedExamples:
    """The examples as tokens, with warnings that call them `name`, and the limit by the `section` that it stands in.

    Raises:
        InputError: a completion that leaves no room for a prompt; a conversation that the chat template refuses.
    """
    try:
        encoded, found = encode(examples, backbone.tokenizer, max_tokens, backbone.embedding_rows)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    warnings = _cut(name, found, len(examples), f"{section}max_tokens = {max_tokens}")
    return EncodedExamples(encoded, found, warnings + template_warnings(backbone.tokenizer, examples))


def encode_splits(recipe: Recipe, splits: Splits, backbone: Backbone) -> Encoding:
    """All that a run will encode.

    Raises:
        InputError: see `encode_examples`; no room for a prompt before the longest answer.
    """
    limit = recipe.tuning.max_tokens
    found = {name: encode_examples(part, backbone, limit, name) for name, part in splits.named()}
    cut = {}
    for name, part in splits.named():
        characters = [example.cut_characters for example in part]
        cut[name] = CutRecord(
            documents=sum(count > 0 for count in characters),
            characters=sum(characters),
            prompts=found[name].truncation.prompts,
            tokens=found[name].truncation.tokens,
        )
    warnings = [warning for one in found.values() for warning in one.warnings]
    warnings += answering_warnings(splits.test, backbone, recipe.task, limit, "test", ("tuning.", "task."))
    data = FitData(found["train"].encoded, found["micro_dev"].encoded, found["dev"].encoded)
    return Encoding(data, cut, list(dict.fromkeys(warnings)))


def answering_warnings(
    examples: Sequence[Example], backbone: Backbone, task: Task, max_tokens: int, name: str, sections: tuple[str, str] = ("", "")
) -> list[str]:
    """What is cut of the prompts that are answered: the longest answer needs room too.

    Raises:
        InputError: there is no room for a prompt.
    """
    cuts = [prompt.cut for prompt in answering_prompts(backbone, examples, task, max_tokens) if prompt.cut]
    limit = f"{sections[0]}max_tokens = {max_tokens} with {sections[1]}max_new_tokens = {task.max_new_tokens}"
    return _cut(f"{name}, when answered", Truncation(len(cuts), sum(cuts)), len(examples), limit)


def _cut(name: str, found: Truncation, count: int, limit: str) -> list[str]:
    """What was cut though nobody asked for it: the task's limit on a document is the recipe's own choice."""
    if not found.prompts:
        return []
    return [f"too long for {limit}, and cut: {found.prompts} of the {count} prompts of {name}, by {found.tokens} tokens in all"]
