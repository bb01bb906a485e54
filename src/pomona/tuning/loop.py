"""The training loop of every training in Pomona; read it from top to bottom.

A source LoRA, a target LoRA, merge + fine-tune and the main job differ only in their transforms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from pomona.backbone.batches import Encoded
from pomona.backbone.gradient_checkpointing import gradient_checkpointing
from pomona.backbone.loss import make_batch, token_losses
from pomona.backbone.memory import is_out_of_memory
from pomona.errors import InputError, PomonaError
from pomona.stopping import asked, finishing
from pomona.tuning.checkpoint import AGAIN
from pomona.tuning.settings import Event
from pomona.tuning.state import load_state, save_state
from pomona.tuning.transform import Hooks, Run, Transform


def train(
    run: Run, transforms: Mapping[str, Transform], checkpoint: Path | None = None, fingerprint: Mapping[str, object] | None = None
) -> None:
    """Take the optimizer steps of a run; the parameters are then those after the last step.

    Args:
        run: the parameters and the data.
        transforms: name -> transform; their hooks are called in this order.
        checkpoint: file to save to every `tuning.checkpoint_steps`; if it exists, the run resumes from it.
        fingerprint: identifies the run; a checkpoint with another fingerprint is refused.

    Raises:
        PomonaError: a loss or the gradient became NaN or infinite; memory does not hold one example.
        InputError: the checkpoint is from another run.
        Stopped: a signal came, and the step and its checkpoint are done.
    """
    tuning, fingerprint = run.tuning, fingerprint or {}
    run.start_random_streams()
    if checkpoint and run.engine.on_main(checkpoint.exists):
        _resume(run, transforms, checkpoint, fingerprint)
    run.engine.broadcast(list(run.parameters.values()))  # ranks on unlike machines may have merged with other roundings
    run.progress.begin(f"tuning {run.system}", run.total_steps)
    run.progress.advance(run.state.step)
    hooks = Hooks.of(transforms.values())
    with gradient_checkpointing(run.backbone) if tuning.gradient_checkpointing else nullcontext():
        while run.state.step < run.total_steps and not run.state.stopped:
            with finishing():
                with run.timed("train"):
                    event, loss = _step(run, hooks)
                run.log.step(event, loss)
                run.progress.advance(1, "" if run.log.latest_loss is None else f"loss {run.log.latest_loss:.3f}")
                for between_steps in hooks.between_steps:
                    between_steps(run)
                if run.state.step % run.steps_per_epoch == 0:
                    for end_epoch in hooks.end_epoch:
                        end_epoch(run)
                stops = asked() and run.engine.world_size == 1  # a signal reaches several ranks at different steps
                if checkpoint and (stops or run.state.step % tuning.checkpoint_steps == 0):
                    state = run.snapshot(transforms)  # on every rank: an engine may gather what the ranks hold in parts
                    if run.engine.is_main:
                        save_state(checkpoint, state, fingerprint)
    run.log.read()
    for end in hooks.end:
        end(run)


def _resume(run: Run, transforms: Mapping[str, Transform], checkpoint: Path, fingerprint: Mapping[str, object]) -> None:
    """Go on from a checkpoint.

    Raises:
        InputError: it is none, is not as it was written, is from another run, or does not hold a state of this one.
    """
    state = load_state(checkpoint, fingerprint, run.backbone.device)
    try:
        run.restore(state, transforms)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError("does not hold a state of this run", file=checkpoint, fix=AGAIN) from error


def _step(run: Run, hooks: Hooks) -> tuple[Event, Tensor]:
    """Take one optimizer step; returns its event, and its loss, which is still on the device."""
    state, tuning, optimizer = run.state, run.tuning, run.optimizer
    epoch, within = divmod(state.step, run.steps_per_epoch)
    decay = tuning.learning_rate_decay**epoch
    for group in optimizer.param_groups:
        group["lr"] = group["first_rate"] * decay

    loss = _backward(run, hooks, _batches(run, epoch, within))
    run.engine.sum([loss, *_gradients(run)])
    for after_backward in hooks.after_backward:
        after_backward(run)
    limit = math.inf if tuning.gradient_clip is None else tuning.gradient_clip
    norm = torch.nn.utils.clip_grad_norm_(run.parameters.values(), limit)
    run.log.finite({"training loss": loss, "training gradient": norm}, state.step)

    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    state.step += 1
    event: Event = {
        "kind": "step",
        "system": run.system,
        "step": state.step,
        "epoch": epoch + 1,
        "loss": None,  # the log reads it from the device
        "learning_rate": next(group["lr"] for group in optimizer.param_groups if group["params"][0].requires_grad),
        "prune_ratio": 0.0,
    }
    if run.micro_batch is not None:
        event["micro_batch"] = run.micro_batch
    for after_step in hooks.after_step:
        event |= after_step(run)
    return event, loss


def _batches(run: Run, epoch: int, within: int) -> list[list[Encoded]]:
    """The batches of optimizer step number `within` of an epoch; both count from 0."""
    first = within * run.tuning.accumulation_steps
    order = run.order_of_batches(epoch)[first : first + run.tuning.accumulation_steps]
    return [[run.data.train[index] for index in indices] for indices in order]


def _backward(run: Run, hooks: Hooks, batches: Sequence[Sequence[Encoded]]) -> Tensor:
    """Add this rank's gradients of the mean loss per completion token of the batches; returns its share of the loss, nats.

    Where memory does not hold a pass, the step's passes begin again with half as many examples each, from then on. The sums are
    those of whole batches, up to rounding.
    """
    while True:
        try:
            total = _passes(run, hooks, batches)
        except RuntimeError as error:
            if not is_out_of_memory(error) or run.engine.moves_together:
                raise
        else:
            run.state.tokens += sum(len(example) for examples in batches for example in examples)
            return total
        _halve(run, max(len(run.engine.share(examples)) for examples in batches))  # here the failed pass is no longer in memory
        run.optimizer.zero_grad(set_to_none=True)
        for begin_again in hooks.begin_again:
            begin_again()


def _halve(run: Run, largest: int) -> None:
    """Give each pass half as many examples as the largest had.

    Raises:
        PomonaError: it had one.
    """
    before = min(run.micro_batch or largest, largest)
    if before == 1:
        raise PomonaError(
            "memory does not hold a training step on one example",
            field="tuning.batch_size",
            fix="Set tuning.gradient_checkpointing, lower tuning.max_tokens, or load the model in fewer bits",
        )
    run.micro_batch = before // 2
    run.progress.warn(
        f"memory did not hold {before} examples in a pass of {run.system}: passes have up to {run.micro_batch} from step "
        f"{run.state.step + 1} on, and the optimizer's batches are as before"
    )


def _passes(run: Run, hooks: Hooks, batches: Sequence[Sequence[Encoded]]) -> Tensor:
    """A forward and a backward pass over each batch, or over parts of it where `run.micro_batch` says so."""
    backbone, engine = run.backbone, run.engine
    targets = sum(len(example) - example.completion_start for examples in batches for example in examples)
    total = torch.zeros((), device=backbone.device)
    run.attachment.train(True)
    for examples in batches:
        mine = engine.share(examples)
        if not mine and not engine.moves_together:
            continue
        size = run.micro_batch or len(mine) or 1
        for part in [mine[first : first + size] for first in range(0, len(mine), size)] or [mine]:
            batch = make_batch(backbone, part or examples[:1])
            for before_forward in hooks.before_forward if part else ():
                before_forward(batch)
            # Gradient checkpointing already recomputes the activation functions within the layers.
            recomputed = nullcontext() if run.tuning.gradient_checkpointing else backbone.speed.training_pass(backbone.model)
            with engine.autocast(backbone.device), recomputed:
                loss = token_losses(backbone, batch).sum() * (1 if part else 0) / targets
            for after_forward in hooks.after_forward if part else ():
                after_forward()
            engine.backward(loss)
            total += loss.detach()
    run.attachment.train(False)
    return total


def _gradients(run: Run) -> list[Tensor]:
    """The gradient of every parameter that is trained in this step; zeros if the loss does not depend on it."""
    found: list[Tensor] = []
    for parameter in run.parameters.values():
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        found.append(parameter.grad)
    return found
