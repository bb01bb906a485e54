"""Answers of a model with an adapter to examples, and the losses of their targets."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pomona.adapters.factors import Adapter
from pomona.backbone.attach import attached
from pomona.backbone.batches import encode
from pomona.backbone.decoding import Decoding
from pomona.backbone.generate import Generated, generate
from pomona.backbone.load import Backbone
from pomona.backbone.loss import example_losses
from pomona.backbone.prompts import Prompt, prompt_tokens
from pomona.data import Example
from pomona.data.tasks import Task
from pomona.errors import InputError
from pomona.tuning.progress import Progress

LOSS_BATCH_SIZE = 8
"""Examples a batch when losses are measured. Nothing is decoded, so there is nothing to gain from many; on a CPU few are faster."""


@dataclass(frozen=True)
class Answers:
    """What a system said on a set of examples.

    Args:
        texts: the parsed answer of each example, in order; None where there is none to be scored.
        losses: mean loss of each example's target, nats per token.
        seconds: wall clock of generating and measuring.
        cut_prompts: how many prompts were too long to be given whole; None: not known.
        unended: how many answers were as long as they may be without coming to an end; None: not known.
    """

    texts: tuple[str | None, ...]
    losses: tuple[float, ...]
    seconds: float
    cut_prompts: int | None = None
    unended: int | None = None


def answer(
    backbone: Backbone,
    adapter: Adapter | None,
    examples: Sequence[Example],
    task: Task,
    *,
    batch_size: int,
    max_tokens: int,
    progress: Progress,
    label: str,
    decoding: Decoding | None = None,
) -> Answers:
    """Let a system answer: the base model, or the base model with one adapter, folded into its weights where they are in float32.

    Args:
        backbone: the model, with nothing attached.
        adapter: None for zero shot.
        examples: what to answer.
        task: how to stop and how to read an answer.
        batch_size: prompts a batch; decoding gains from many.
        max_tokens: longest prompt and answer together, in tokens.
        progress: told of each batch.
        label: what the progress display calls the system.
        decoding: greedy by default.

    Raises:
        InputError: `max_tokens` leaves no room for a prompt, before an answer or before a target.
    """
    if adapter is not None:
        with attached(backbone, [adapter]) as attachment, attachment.folded():
            return answer(
                backbone,
                None,
                examples,
                task,
                batch_size=batch_size,
                max_tokens=max_tokens,
                progress=progress,
                label=label,
                decoding=decoding,
            )
    started = time.perf_counter()
    prompts = answering_prompts(backbone, examples, task, max_tokens)
    encoded, _ = encode(examples, backbone.tokenizer, max_tokens, backbone.embedding_rows)
    progress.begin(f"evaluating {label}", len(backbone.engine.share(examples)))
    generated = decode(backbone, prompts, task, batch_size=batch_size, decoding=decoding, on_batch=progress.advance)
    losses = example_losses(backbone, encoded, LOSS_BATCH_SIZE)
    progress.end(f"loss {sum(losses) / len(losses):.3f}")
    return Answers(
        tuple(parsed(generated, task)),
        tuple(losses),
        time.perf_counter() - started,
        cut_prompts=sum(prompt.cut > 0 for prompt in prompts),
        unended=sum(one is not None and not one.ended for one in generated),
    )


def decode(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    task: Task,
    *,
    batch_size: int,
    decoding: Decoding | None = None,
    on_batch: Callable[[int], None] = lambda finished: None,
) -> list[Generated | None]:
    """What the model writes after each prompt, as long and with the stops that the task wants; None where memory does not do."""
    return generate(
        backbone,
        [prompt.tokens for prompt in prompts],
        max_new_tokens=task.max_new_tokens,
        batch_size=batch_size,
        stop_at_line_end=task.stops_at_line_end,
        stop=task.stop,
        decoding=decoding,
        on_batch=on_batch,
    )


def parsed(generated: Sequence[Generated | None], task: Task) -> list[str | None]:
    """The answers as the task reads them."""
    return [one and task.parse(one.text) for one in generated]


def answering_prompts(backbone: Backbone, examples: Sequence[Example], task: Task, max_tokens: int) -> list[Prompt]:
    """The examples' prompts, short enough to leave room for the longest answer.

    Raises:
        InputError: there is no room for a prompt, or a prompt cannot be made.
    """
    check_room(task, max_tokens, backbone)
    return [prompt_tokens(backbone.tokenizer, example, max_tokens - task.max_new_tokens) for example in examples]


def check_room(task: Task, max_tokens: int, backbone: Backbone | None = None) -> None:
    """Refuse a limit that leaves no room for a prompt before the longest answer, or that is beyond the model's context.

    Args:
        task: says how long an answer may get.
        max_tokens: longest prompt and answer together.
        backbone: the model, where it is known.

    Raises:
        InputError: it does either.
    """
    context = backbone.context_tokens if backbone else None
    if context is not None and max_tokens > context:
        raise InputError(
            f"the model was made for texts of up to {context} tokens", field="max_tokens", value=max_tokens, fix="Lower max_tokens"
        )
    if max_tokens <= task.max_new_tokens:
        raise InputError(
            f"an answer of {task.max_new_tokens} tokens leaves no room for a prompt",
            field="max_tokens",
            value=max_tokens,
            fix="Raise max_tokens, or lower the task's max_new_tokens",
        )
