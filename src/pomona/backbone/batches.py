"""From examples to padded batches: tokens, which of them are completion, and an order of batches that wastes little padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from pomona.backbone.prompts import prompt_and_completion, prompt_tokens
from pomona.backbone.token_ids import refuse_unknown
from pomona.data.example import Example
from pomona.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

POOL_BATCHES = 4
"""Lengths are sorted within pools of this many batches: little padding, and still other batches in every epoch."""


@dataclass(frozen=True)
class Encoded:
    """One example as tokens: the prompt, then the completion from `completion_start` on, the end token last."""

    tokens: tuple[int, ...]
    completion_start: int

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, eq=False)
class Batch:
    """Tokens of some examples, right-padded (a row each) or packed (end to end in one row): B rows, T positions.

    Right padding needs no attention mask: causal attention never looks at what comes later, and nothing reads the outputs
    of padding.

    Args:
        tokens: [B, T].
        targets: places of the N tokens that are part of a completion, counted row by row, ascending. The host knows them from the
            examples: a device that makes them from a mask has to be waited for.
        content: True where the token is not padding, [B, T].
        lengths: tokens of each example where they are packed; None where they are padded.
    """

    tokens: Int[Tensor, "B T"]
    targets: Int[Tensor, " N"]
    content: Bool[Tensor, "B T"]
    lengths: tuple[int, ...] | None = None


class Truncation(NamedTuple):
    """How many prompts were too long, and how many tokens they lost together."""

    prompts: int
    tokens: int


def encode(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_tokens: int, rows: int | None = None
) -> tuple[tuple[Encoded, ...], Truncation]:
    """Prompt and completion of each example as tokens, split at their boundary as `prompt_boundary` says.

    A prompt that is too long is cut as `prompt_tokens` says; completions are kept whole.

    Args:
        examples: what to encode.
        tokenizer: adds its own special tokens to the prompt; its end token closes the completion.
        max_tokens: longest example, in tokens.
        rows: of the model's embedding: ids must be below; None: no model is there to be asked.

    Returns:
        The encoded examples, in order, and what was cut.

    Raises:
        InputError: a completion alone does not fit, a prompt has no token at all, or a token has no embedding.
    """
    encoded, cuts = [], []
    for example in examples:
        whole_prompt, completion = prompt_and_completion(tokenizer, example)
        room = max_tokens - len(completion)
        if room < 1:
            raise InputError(
                f"example {example.id!r}: its completion has {len(completion)} tokens, which leaves no room for a prompt",
                field="max_tokens",
                value=max_tokens,
                fix="Raise max_tokens, or shorten the completion",
            )
        prompt = prompt_tokens(tokenizer, example, room, whole_prompt)
        cuts.append(prompt.cut)
        encoded.append(Encoded((*prompt.tokens, *completion), len(prompt.tokens)))
        if rows is not None:
            refuse_unknown(encoded[-1].tokens, rows, tokenizer, f"example {example.id!r}")
    return tuple(encoded), Truncation(sum(cut > 0 for cut in cuts), sum(cuts))


def collate(examples: Sequence[Encoded], pad: int, device: torch.device) -> Batch:
    """Pad B encoded examples on the right to their longest."""
    longest = max(map(len, examples))
    tokens = torch.full((len(examples), longest), pad, dtype=torch.long)
    content = torch.zeros((len(examples), longest), dtype=torch.bool)
    for row, example in enumerate(examples):
        tokens[row, : len(example)] = torch.tensor(example.tokens)
        content[row, : len(example)] = True
    starts = [row * longest for row in range(len(examples))]
    return Batch(_sent(tokens, device), _sent(_targets(examples, starts), device), _sent(content, device))


def pack(examples: Sequence[Encoded], device: torch.device) -> Batch:
    """Lay encoded examples end to end in one row."""
    tokens = torch.tensor([[token for example in examples for token in example.tokens]])
    lengths = [len(example) for example in examples]
    targets = _targets(examples, [0, *accumulate(lengths)][:-1])
    content = torch.ones_like(tokens, dtype=torch.bool)
    return Batch(_sent(tokens, device), _sent(targets, device), _sent(content, device), tuple(lengths))


def _targets(examples: Sequence[Encoded], starts: Sequence[int]) -> Int[Tensor, " N"]:
    """`Batch.targets` of examples that start at these places."""
    own = (torch.arange(first + one.completion_start, first + len(one)) for one, first in zip(examples, starts, strict=True))
    return torch.cat([*own])


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; the host does not wait for a GPU to take a copy."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def training_order(lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> list[list[int]]:
    """One epoch's batches, as indices: shuffled, of similar lengths within a batch, the batches in random order.

    Args:
        lengths: tokens of each example.
        batch_size: examples a batch; the last one may be smaller.
        generator: the epoch's own random stream.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    pool = batch_size * POOL_BATCHES
    batches: list[list[int]] = []
    for start in range(0, len(order), pool):
        by_length = sorted(order[start : start + pool], key=lambda index: lengths[index])
        batches += [by_length[first : first + batch_size] for first in range(0, len(by_length), batch_size)]
    return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]


def evaluation_order(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Every index once, in batches of similar length, longest first (so that too large a batch fails at once)."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]


def similar_order(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Every index once, in batches of similar length, longest first, with little padding.

    A batch ends before it is full where the next prompt is less than 0.8 times as long as its longest, once it has a quarter of
    its rows: a few long prompts do not make a whole batch as long as they are.

    Args:
        lengths: tokens of each prompt.
        batch_size: prompts a batch, at most.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        last = batches[-1] if batches else None
        similar = last is not None and (4 * len(last) < batch_size or 10 * lengths[index] >= 8 * lengths[last[0]])
        if last is not None and similar and len(last) < batch_size:
            last.append(index)
        else:
            batches.append([index])
    return batches
