"""Greedy answers, in batches of similar length, with the key-value cache and the update folded into the weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pomona.backbone.batches import evaluation_order
from pomona.backbone.load import Backbone
from pomona.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class _LineEnd:
    """Stops a row at the first line end after its answer has begun; a stopping criterion of transformers' `generate`."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rows: int, device: torch.device) -> None:
        blank, ends = (torch.tensor(ids, device=device) for ids in _line_tokens(tokenizer))
        self._blank, self._ends = blank, ends
        self._begun = torch.zeros(rows, dtype=torch.bool, device=device)

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        last = input_ids[:, -1]
        done = self._begun & torch.isin(last, self._ends)
        self._begun |= ~torch.isin(last, self._blank)
        return done


@functools.lru_cache(maxsize=4)
def _line_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Ids of the tokens that are white space alone, and of those that hold a line end."""
    texts = [tokenizer.decode([token]) for token in range(len(tokenizer))]
    blank = [token for token, text in enumerate(texts) if isinstance(text, str) and not text.strip()]
    ends = [token for token, text in enumerate(texts) if "\n" in text]
    return blank, ends


@contextmanager
def _own_settings_aside(model: PreTrainedModel) -> Iterator[None]:
    """Put the settings that a model was published with away.

    transformers fills whatever a call leaves open from them, and a repetition penalty or a banned token makes another text
    than the likeliest one.
    """
    from transformers import GenerationConfig

    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


@torch.no_grad()
def generate(
    backbone: Backbone,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    stop_at_line_end: bool = True,
    on_batch: Callable[[int], None] = lambda finished: None,
) -> list[str]:
    """Greedy completions of the prompts, in their order.

    Attach adapters and fold them before the call; this knows the model only.

    Args:
        backbone: the model, as it stands.
        prompts: texts to go on from.
        max_new_tokens: longest answer, in tokens.
        batch_size: prompts a batch.
        stop_at_line_end: stop an answer at its first line end.
        on_batch: told how many prompts each finished batch had.

    Raises:
        InputError: a prompt has no token at all.
    """
    from transformers import GenerationConfig, StoppingCriteriaList

    tokenizer = backbone.tokenizer
    pad = int(tokenizer.pad_token_id)  # pyright: ignore[reportArgumentType]
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        pad_token_id=pad,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    encoded: list[list[int]] = tokenizer(list(prompts))["input_ids"] if prompts else []  # pyright: ignore[reportAssignmentType]
    if not all(encoded):
        raise InputError("an empty prompt, which this model has nothing to go on from", field="prompt", value="")
    answers = [""] * len(prompts)
    for indices in evaluation_order([len(tokens) for tokens in encoded], batch_size):
        longest = len(encoded[indices[0]])
        tokens = torch.full((len(indices), longest), pad, device=backbone.device)
        content = torch.zeros_like(tokens)
        for row, index in enumerate(indices):
            length = len(encoded[index])
            tokens[row, longest - length :] = torch.tensor(encoded[index], device=backbone.device)
            content[row, longest - length :] = 1
        stops = [_LineEnd(tokenizer, len(indices), backbone.device)] if stop_at_line_end else []
        with _own_settings_aside(backbone.model):
            output = backbone.model.generate(  # pyright: ignore[reportCallIssue]
                input_ids=tokens,
                attention_mask=content,
                generation_config=config,
                stopping_criteria=StoppingCriteriaList(stops),
            )
        for index, row in zip(indices, output[:, longest:], strict=True):
            answers[index] = str(tokenizer.decode(row, skip_special_tokens=True))
        on_batch(len(indices))
    return answers
