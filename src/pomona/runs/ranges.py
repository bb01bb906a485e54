"""What no recipe can mean, whatever its types allow: numbers out of all proportion, true for 1, text that is none."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from pomona.errors import InputError
from pomona.merging.weights import LARGEST_WEIGHT


class Most(NamedTuple):
    """The largest value that a key can mean, and why."""

    value: int
    reason: str


_OF_A_BATCH = "no memory holds a batch of so many examples"
MOST: Mapping[str, Most] = {
    "rank": Most(2**16, "no matrix of a model has so many rows"),
    "alpha": Most(10**6, "the update is multiplied by alpha / rank"),
    "batch_size": Most(2**16, _OF_A_BATCH),
    "accumulation_steps": Most(2**16, "a step would take so many batches"),
    "epochs": Most(10_000, "a run would not end"),
    "max_tokens": Most(2**24, "no model has a context of so many tokens"),
    "max_new_tokens": Most(2**20, "an answer would not end"),
    "max_document_characters": Most(2**32, "no document has so many"),
    "draws": Most(10**6, "the bootstrap would not end, and 2000 draws give two digits of an interval"),
    "learning_rate": Most(10**3, "training would diverge at the first step"),
    "weight": Most(int(LARGEST_WEIGHT), "the update is multiplied by it"),
    "weights_learning_rate": Most(10**3, "training would diverge at the first step"),
    "weight_decay": Most(10**3, "it would erase the weights at the first step"),
    "num_beams": Most(2**10, "every beam is a row of the batch"),
    "trials": Most(10_000, "every trial is a whole run"),
}
_ANY = Most(2**53, "no setting is so large")
_SEED = Most(2**63 - 1, "a seed is a whole number of 64 bits")


def check_texts(content: object, file: Path | str | None) -> None:
    """Refuse texts that no file, tokenizer or record can hold.

    Raises:
        InputError: a key or a text has a NUL character, or half of a surrogate pair.
    """
    for place, value in _leaves(content):
        for text in (*place, value):
            if isinstance(text, str) and ("\0" in text or (not text.isascii() and _has_half_pair(text))):
                problem = "holds a NUL character or half of a surrogate pair, which no file's name and no tokenizer takes"
                raise InputError(problem, file=file, field=_name(place), value=text, fix="Write the text without it")


def check_numbers(content: object, read: object, file: Path | str | None) -> None:
    """Refuse numbers that cannot be meant, and true or false in the place of a number.

    Args:
        content: what the recipe says.
        read: the recipe that was made of it.
        file: the recipe's, for messages.

    Raises:
        InputError: names the key, the largest value that it can have, and the reason.
    """
    for place, value in _leaves(content):
        found = _at(read, place)
        if isinstance(value, bool) and isinstance(found, int | float) and not isinstance(found, bool):
            raise InputError("a number is expected, and not true or false", file=file, field=_name(place), value=value)
        if isinstance(found, bool) or not isinstance(found, int | float):
            found = value
        if isinstance(found, bool) or not isinstance(found, int | float):
            continue
        key = next((part for part in reversed(place) if isinstance(part, str)), "")
        most = _SEED if key == "seed" or key == "seeds" else MOST.get(key, _ANY)
        if math.isinf(found) or abs(found) > most.value:
            problem = f"must be at most {most.value:,}: {most.reason}"
            raise InputError(problem, file=file, field=_name(place), value=value, fix="Lower it")


def _leaves(value: object, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], object]]:
    """Every plain value with the keys and positions that lead to it."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*place, key))
    elif isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            yield from _leaves(inner, (*place, position))
    else:
        yield place, value


def _at(read: Any, place: tuple[str | int, ...]) -> object:
    """What stands at a place of the recipe that was read; None where it has another shape there than the file."""
    for part in place:
        if isinstance(read, Mapping):
            read = read.get(part)
        elif isinstance(read, BaseModel) or dataclasses.is_dataclass(read):
            read = getattr(read, str(part), None)
        elif isinstance(read, list | tuple) and isinstance(part, int) and part < len(read):
            read = read[part]
        else:
            return None
    return read


def _has_half_pair(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _name(place: tuple[str | int, ...]) -> str | None:
    return ".".join(map(str, place)) or None
