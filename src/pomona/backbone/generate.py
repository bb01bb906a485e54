"""Answers in batches, with the key-value cache; a row leaves its batch as soon as its answer has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pomona.backbone.answer_end import AnswerEnd
from pomona.backbone.batches import evaluation_order
from pomona.backbone.cache_argument import cache_argument
from pomona.backbone.decoding import Decoding
from pomona.backbone.load import Backbone
from pomona.backbone.memory import each_batch
from pomona.backbone.prompt_boundary import opening_tokens
from pomona.backbone.speed import FinishedRows, GroupedPrefill, Speed
from pomona.backbone.speed.grouped_prefill import positions, prefill
from pomona.backbone.token_ids import refuse_unknown
from pomona.errors import InputError
from pomona.seeding import stream

if TYPE_CHECKING:
    from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel


@dataclass(frozen=True)
class Generated:
    """What was generated for one prompt.

    Args:
        text: without special tokens, cut at the first of the texts that end an answer.
        tokens: what was generated, the token that ended it too.
        ended: whether it came to an end of its own; False where it was as long as it may be.
    """

    text: str
    tokens: tuple[int, ...]
    ended: bool


@torch.no_grad()
def generate(
    backbone: Backbone,
    prompts: Sequence[str | Sequence[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    stop_at_line_end: bool = True,
    stop: Sequence[str] = (),
    decoding: Decoding | None = None,
    on_batch: Callable[[int], None] = lambda finished: None,
) -> list[Generated | None]:
    """Complete each prompt, in the prompts' order.

    Attach adapters and fold them before the call; this knows the model only. The prompts are shared out over the ranks of the
    model's engine. Where memory does not hold a batch, this and all later batches are halved; a prompt that does not fit by itself
    gets None.

    Args:
        backbone: the model, as it stands.
        prompts: texts to go on from, or their tokens (`prompt_tokens`).
        max_new_tokens: longest answer, in tokens.
        batch_size: prompts a batch.
        stop_at_line_end: end an answer at its first line end.
        stop: texts that end an answer, besides the model's own end tokens.
        decoding: greedy by default.
        on_batch: told how many prompts each finished batch of this rank had.

    Raises:
        InputError: a prompt has no token at all, or one that the model has no embedding for.
    """
    encoded = [_tokens(backbone, prompt) for prompt in prompts]
    if not all(encoded):
        raise InputError("an empty prompt, which this model has nothing to go on from", field="prompt", value="")
    for tokens in encoded:
        refuse_unknown(tokens, backbone.embedding_rows, backbone.tokenizer, "a prompt")
    decoding = decoding or Decoding()
    end = AnswerEnd.of(backbone, line=stop_at_line_end, stop=tuple(stop))
    # Every answer has draws of its own, so that it does not matter which batch it is in.
    draws_PT = torch.rand((len(encoded), max_new_tokens), generator=stream(decoding.seed, "decoding")) if decoding.samples else None
    # transformers' beam search takes padding for something that was said.
    alone = decoding.num_beams > 1 and decoding.looks_back

    def batch(indices: Sequence[int]) -> Sequence[list[int]]:
        draws_BT = None if draws_PT is None else draws_PT[list(indices)]
        return _batch(backbone, [encoded[index] for index in indices], end, decoding, max_new_tokens, draws_BT)

    def answer(mine: Sequence[int]) -> list[Generated | None]:
        answers: dict[int, Generated] = {}
        batches = evaluation_order([len(encoded[index]) for index in mine], 1 if alone else batch_size)
        for indices, rows in each_batch([[mine[place] for place in places] for places in batches], batch):
            for index, tokens in zip(indices, rows or (), strict=rows is not None):
                answers[index] = Generated(end.text(tokens), tuple(tokens), end(tokens))
            on_batch(len(indices))
        return [answers.get(index) for index in mine]

    with backbone.engine.autocast(backbone.device):
        return backbone.engine.map(range(len(encoded)), answer)


def _tokens(backbone: Backbone, prompt: str | Sequence[int]) -> list[int]:
    if isinstance(prompt, str):
        return opening_tokens(backbone.tokenizer, prompt)
    return list(prompt)


def _batch(
    backbone: Backbone,
    prompts: Sequence[list[int]],
    end: AnswerEnd,
    decoding: Decoding,
    max_new_tokens: int,
    draws_BT: Tensor | None,
) -> Sequence[list[int]]:
    """The generated tokens of one batch."""
    from transformers import StoppingCriteriaList

    tokenizer = backbone.tokenizer
    pad = backbone.pad_id
    longest = max(map(len, prompts))
    tokens_BT = torch.full((len(prompts), longest), pad)
    content_BT = torch.zeros_like(tokens_BT)
    for row, prompt in enumerate(prompts):
        tokens_BT[row, longest - len(prompt) :] = torch.tensor(prompt)
        content_BT[row, longest - len(prompt) :] = 1
    beams = decoding.num_beams > 1
    ours = decoding if beams else Decoding()  # the loop below sees to all the rest
    config = ours.config(max_new_tokens=max_new_tokens, pad=pad, ends=sorted(end.tokens), bos=tokenizer.bos_token_id)  # pyright: ignore[reportArgumentType]
    loop = _Loop(end, decoding.processors(), draws_BT, backbone.speed)
    with _own_settings_aside(backbone.model):
        output = backbone.model.generate(  # pyright: ignore[reportCallIssue]
            input_ids=tokens_BT.to(backbone.device),
            attention_mask=content_BT.to(backbone.device),
            generation_config=config,
            stopping_criteria=StoppingCriteriaList([_BeamEnd(end, longest)] if beams else []),
            custom_generate=None if beams else loop,
        )
    return [end.trimmed(row) for row in output[:, longest:].tolist()] if beams else loop.answers


class _Loop:
    """The decoding of one batch, in place of transformers' own loop, which goes on with every row until the last one has ended."""

    def __init__(self, end: AnswerEnd, processors: LogitsProcessorList, draws_BT: Tensor | None, speed: Speed) -> None:
        self._end = end
        self._processors = processors
        self._draws_BT = draws_BT
        self._speed = speed
        self.answers: list[list[int]] = []

    def __call__(
        self,
        model: PreTrainedModel,
        input_ids: Tensor,
        logits_processor: object,
        stopping_criteria: object,
        generation_config: GenerationConfig,
        **state: Any,
    ) -> Tensor:
        """As `custom_generate` is called; the answers are left in `answers`."""
        mask_BT = state.get("attention_mask")
        content_BT = torch.ones_like(input_ids) if mask_BT is None else mask_BT  # None: nothing is padding
        self.answers = [[] for _ in input_ids]
        rows, ended = list(range(len(input_ids))), set[int]()
        tokens_BT = input_ids
        positions_B1 = positions(content_BT)[:, -1:]
        name = cache_argument(model)
        logits_BV, cache = prefill(model, input_ids, content_BT, state[name], grouped=GroupedPrefill in self._speed)
        for step in range(int(generation_config.max_new_tokens or 0)):
            if step:
                logits_BV = model(
                    input_ids=tokens_BT[:, -1:],
                    attention_mask=None if mask_BT is None else content_BT,
                    position_ids=positions_B1,
                    use_cache=True,
                    logits_to_keep=1,
                    **{name: cache},
                ).logits[:, -1]
            scores_BV = logits_BV.float()
            if self._processors:
                scores_BV = self._processed(tokens_BT, content_BT, scores_BV)
            chosen_B = self._choose(scores_BV, rows, step)
            for row, token in zip(rows, chosen_B.tolist(), strict=True):
                if row not in ended:
                    self.answers[row].append(token)
            ended |= {row for row in rows if row not in ended and self._end(self.answers[row])}
            kept = [place for place, row in enumerate(rows) if row not in ended]
            if not kept:
                break
            positions_B1 = positions_B1 + 1
            tokens_BT = torch.cat([tokens_BT, chosen_B[:, None]], dim=1)
            content_BT = torch.cat([content_BT, torch.ones_like(chosen_B)[:, None]], dim=1)
            if len(kept) < len(rows) and FinishedRows in self._speed:
                rows = [rows[place] for place in kept]
                kept_B = torch.tensor(kept, device=input_ids.device)
                cache.reorder_cache(kept_B)
                positions_B1, tokens_BT, content_BT = positions_B1[kept_B], tokens_BT[kept_B], content_BT[kept_B]
        return input_ids

    def _processed(self, tokens_BT: Tensor, content_BT: Tensor, scores_BV: Tensor) -> Tensor:
        """The scores after penalties, temperature and the like, row by row: padding was not said."""
        rows = zip(tokens_BT, content_BT.bool(), scores_BV, strict=True)
        return torch.cat([self._processors(tokens_T[content_T][None], scores_V[None]) for tokens_T, content_T, scores_V in rows])  # pyright: ignore[reportArgumentType]

    def _choose(self, scores_BV: Tensor, rows: list[int], step: int) -> Tensor:
        """The likeliest token, or the one at which the cumulated probability passes the row's draw."""
        if self._draws_BT is None:
            return scores_BV.argmax(dim=1)
        cumulated_BV = scores_BV.double().softmax(dim=1).cumsum(dim=1)
        draws_B1 = self._draws_BT[rows, step, None].to(scores_BV.device).double() * cumulated_BV[:, -1:]
        return torch.searchsorted(cumulated_BV, draws_B1, right=True).squeeze(1).clamp(max=scores_BV.shape[1] - 1)


class _BeamEnd:
    """The end of an answer as a stopping criterion of transformers' beam search."""

    def __init__(self, end: AnswerEnd, start: int) -> None:
        self._end = end
        self._start = start

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        return torch.tensor([self._end(row) for row in input_ids[:, self._start :].tolist()], device=input_ids.device)


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
