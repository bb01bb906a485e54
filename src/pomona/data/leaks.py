"""Leaks between splits: equal or nearly equal content in two splits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pomona.data.content import normalised
from pomona.data.example import Example, Splits
from pomona.data.near import near_duplicates as near_pairs
from pomona.errors import InputError


class NearDocuments(NamedTuple):
    """Two documents by their `content_keys`, and the share of the shorter document that they have in common."""

    first: str
    second: str
    share: float


def content_keys(example: Example) -> tuple[str, ...]:
    """The keys that examples of two splits must not share: the normalised document, and the group if there is one."""
    document = f"document:{normalised(example.document)}"
    return (document,) if example.group is None else (document, f"group:{example.group}")


def near_documents(examples: Sequence[Example]) -> list[NearDocuments]:
    """The pairs of nearly, but not exactly, equal documents, as defined by `near_duplicates`."""
    pairs = near_pairs([example.document for example in examples])
    keyed = ((content_keys(examples[first])[0], content_keys(examples[second])[0], share) for first, second, share in pairs)
    return [NearDocuments(first, second, share) for first, second, share in keyed if first != second]


def check_leaks(splits: Splits, near_duplicates: bool = True) -> None:
    """Refuse splits that share content: a document or a group that is in two of them.

    Documents are shared if they are equal after NFKC and folding of case and whitespace, or near-duplicates: more than half of
    the shorter one's 24-character sequences occur in the other. A shared context with another question is also a leak.

    Args:
        splits: the four splits.
        near_duplicates: whether near-duplicates are also refused.

    Raises:
        InputError: shared content, with both splits and both ids; or an empty split.
    """
    every = [example for _, examples in splits.named() for example in examples]
    refuse_leaks(splits, near_documents(every) if near_duplicates else [])


def refuse_leaks(splits: Splits, near: Iterable[NearDocuments]) -> None:
    """`check_leaks` with near-duplicates that are already known."""
    home: dict[str, tuple[str, str]] = {}
    for name, examples in splits.named():
        if not examples:
            raise InputError(f"the {name} split is empty", field=name, fix="Give it 1 example or more")
        for example in examples:
            for key in content_keys(example):
                other_name, other_id = home.setdefault(key, (name, example.id))
                if other_name != name:
                    raise InputError(
                        f"{other_name} and {name} share a document: {other_name} has it in {other_id!r}, {name} in {example.id!r}",
                        fix="Remove it from one split, or give one pool from which Pomona draws the splits",
                    )
    order = [name for name, _ in splits.named()]
    for first, second, share in near:
        if first not in home or second not in home:
            continue
        (name, id), (other_name, other_id) = sorted((home[first], home[second]), key=lambda one: order.index(one[0]))
        if name != other_name:
            raise InputError(
                f"{name} and {other_name} have nearly the same document: {id!r} in {name} and {other_id!r} in {other_name} "
                f"have {share:.0%} of the shorter one in common",
                fix="Remove one, give one pool from which Pomona draws the splits, or set data.near_duplicates to allow",
            )
