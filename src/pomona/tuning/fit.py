"""The one training loop: fine-tune attached adapters, prune as it goes, and let a controller learn how much.

A source adapter, a target LoRA, merge + fine-tune, and the main job are all this loop, with and without pruning. It has no
parameter for test data, so a test example cannot reach a gradient, a mask, a ratio or a choice of epoch.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pomona.backbone.attach import Attachment
from pomona.backbone.batches import collate, training_order
from pomona.backbone.loss import example_losses, token_losses
from pomona.control import Controller, Fixed
from pomona.errors import InputError, PomonaError
from pomona.seeding import derive_seed, stream
from pomona.tuning.checkpoint import load_checkpoint, random_state, restore_random_state, save_checkpoint
from pomona.tuning.progress import Progress, Silent
from pomona.tuning.settings import Event, FitData, Fitted, Pruning, Tuning
from pomona.tuning.steering import Steering
from pomona.tuning.surgery import MOMENTS


@dataclass
class _Course:
    """What evolves besides tensors; a checkpoint's JSON."""

    step: int = 0
    tokens: int = 0
    best_epoch: int = 0
    best_dev_loss: float | None = None
    stopped: bool = False
    train_seconds: float = 0.0
    probe_seconds: float = 0.0
    history: list[Event] = field(default_factory=list)


def fit(
    attachment: Attachment,
    data: FitData,
    tuning: Tuning,
    *,
    pruning: Pruning | None = None,
    controller: Controller | None = None,
    seed: int = 0,
    system: str = "pomona",
    checkpoint: Path | None = None,
    emit: Callable[[Event], None] = lambda event: None,
    progress: Progress | None = None,
) -> Fitted:
    """Fine-tune the attached factors.

    With a `checkpoint` path that exists, the run goes on from there and ends as it would have without the interruption,
    bit for bit.

    Args:
        attachment: trained in place.
        data: encoded examples; no test data.
        tuning: the optimizer's side.
        pruning: how to prune; None trains without.
        controller: how much to prune; `Fixed(0.0)` by default.
        seed: root of the order of batches, dropout and the controller's draws.
        system: name in the history.
        checkpoint: file to save to and to go on from.
        emit: told each event of the history as it happens; on resuming, first those up to the checkpoint.
        progress: shown to a person.

    Raises:
        PomonaError: a loss or the gradient became NaN or infinite.
        InputError: no training examples; a learning controller without micro dev examples; a checkpoint of another run.
    """
    return _Loop(
        attachment, data, tuning, pruning, controller or Fixed(0.0), seed, system, checkpoint, emit, progress or Silent()
    ).run()


def total_steps(examples: int, tuning: Tuning) -> int:
    """Optimizer steps of a whole run."""
    batches = math.ceil(examples / tuning.batch_size)
    return math.ceil(batches / tuning.accumulation_steps) * tuning.epochs


class _Loop:
    """One call of `fit`: its parts, and the steps in which they meet."""

    def __init__(
        self,
        attachment: Attachment,
        data: FitData,
        tuning: Tuning,
        pruning: Pruning | None,
        controller: Controller,
        seed: int,
        system: str,
        checkpoint: Path | None,
        emit: Callable[[Event], None],
        progress: Progress,
    ) -> None:
        if not data.train:
            raise InputError("there are no training examples", field="train")
        self.attachment, self.data, self.tuning, self.pruning, self.controller = attachment, data, tuning, pruning, controller
        self.seed, self.system, self.checkpoint, self.emit, self.progress = seed, system, checkpoint, emit, progress
        self.backbone = attachment.backbone
        self.parameters = attachment.parameters()
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=tuning.learning_rate, weight_decay=tuning.weight_decay, fused=True
        )
        self.total_steps = total_steps(len(data.train), tuning)
        self.steps_per_epoch = self.total_steps // tuning.epochs
        self.steering = pruning and Steering(
            attachment,
            pruning,
            controller,
            self.optimizer,
            data.micro_dev,
            tuning.batch_size,
            derive_seed(seed, "controller"),
            self.total_steps,
        )
        self.course = _Course()
        self.best: dict[str, Tensor] = {}

    def run(self) -> Fitted:
        torch.manual_seed(derive_seed(self.seed, "dropout"))
        if self.checkpoint and self.checkpoint.exists():
            self._load(self.checkpoint)
        self.progress.begin(f"tuning {self.system}", self.total_steps)
        self.progress.advance(self.course.step)
        try:
            while self.course.step < self.total_steps and not self.course.stopped:
                self._step()
                if self.course.step % self.steps_per_epoch == 0:
                    self._end_epoch()
                if self.checkpoint and self.course.step % self.tuning.checkpoint_steps == 0:
                    self._save(self.checkpoint)
        finally:
            self.attachment.observe(None)
            self.attachment.train(False)
        return self._finish()

    def _step(self) -> None:
        started = time.perf_counter()
        epoch, within = divmod(self.course.step, self.steps_per_epoch)
        rate = self.tuning.learning_rate * self.tuning.learning_rate_decay**epoch
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self._gradients(epoch, within)
        self._check_finite("training loss", loss)
        limit = math.inf if self.tuning.gradient_clip is None else self.tuning.gradient_clip
        self._check_finite("training gradient", float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), limit)))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.course.step += 1
        step, steering = self.course.step, self.steering
        if steering:
            steering.after_step(step, last_of_epoch=within + 1 == self.steps_per_epoch)
        self.course.train_seconds += time.perf_counter() - started
        prune_ratio = steering.prune_ratio if steering else 0.0
        self._tell("step", step=step, epoch=epoch + 1, loss=loss, learning_rate=rate, prune_ratio=prune_ratio)
        self.progress.advance(1, f"loss {loss:.3f}")
        if steering and steering.round_due(step):
            started = time.perf_counter()
            seen = steering.round(step)
            self.course.probe_seconds += time.perf_counter() - started
            self._tell("round", **seen)
            self.progress.ratio(steering.prune_ratio)
        if steering and steering.settle(step):
            self.progress.ratio(steering.prune_ratio)

    def _gradients(self, epoch: int, within: int) -> float:
        """Accumulate the gradients of one optimizer step; its mean loss, nats per completion token."""
        order = training_order(
            [len(example) for example in self.data.train], self.tuning.batch_size, stream(self.seed, "batches", epoch)
        )
        first = within * self.tuning.accumulation_steps
        pad = int(self.backbone.tokenizer.pad_token_id)  # pyright: ignore[reportArgumentType]
        batches = [
            collate([self.data.train[index] for index in indices], pad, self.backbone.device)
            for indices in order[first : first + self.tuning.accumulation_steps]
        ]
        targets = sum(int(batch.completion.sum()) for batch in batches)
        if self.steering:
            self.steering.norms.begin_step()
        self.attachment.train(True)
        total = 0.0
        for batch in batches:
            if self.steering:
                self.steering.norms.begin_batch(batch.content)
            loss = token_losses(self.backbone, batch).sum() / targets
            loss.backward()
            total += float(loss.detach())
            self.course.tokens += int(batch.content.sum())
        self.attachment.train(False)
        return total

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise PomonaError(
                f"the {what} of {self.system} is not finite after {self.course.step} steps",
                value=value,
                mend="Lower tuning.learning_rate, or train with dtype float32",
            )

    def _end_epoch(self) -> None:
        """Keep this epoch's factors if they are the best that could be exported; stop when patience is over."""
        epoch = self.course.step // self.steps_per_epoch
        started = time.perf_counter()
        settled = self.steering is None or self.steering.answer is not None
        dev_loss = None
        if self.data.dev:
            losses = example_losses(self.backbone, self.data.dev, self.tuning.batch_size)
            dev_loss = sum(losses) / len(losses)
            self._check_finite("dev loss", dev_loss)
        self.course.train_seconds += time.perf_counter() - started
        best = settled and (dev_loss is None or self.course.best_dev_loss is None or dev_loss < self.course.best_dev_loss)
        if best:
            self.course.best_epoch, self.course.best_dev_loss = epoch, dev_loss
            self.best = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        patience = self.tuning.patience_epochs
        if patience is not None and dev_loss is not None and self.course.best_epoch and epoch - self.course.best_epoch >= patience:
            self.course.stopped = True
        self._tell("epoch", step=self.course.step, epoch=epoch, dev_loss=dev_loss, best=best)

    @torch.no_grad()
    def _finish(self) -> Fitted:
        steering = self.steering
        importance = steering.importance() if steering else {}
        for name, value in self.best.items():
            self.parameters[name].copy_(value)
        dev_loss = self.course.best_dev_loss
        self.progress.end(f"epoch {self.course.best_epoch}" + (f", dev loss {dev_loss:.3f}" if dev_loss is not None else ""))
        return Fitted(
            adapter=self.attachment.export(),
            epoch=self.course.best_epoch,
            dev_loss=dev_loss,
            answer=steering.answer if steering else None,
            control=steering.control if steering else None,
            importance=importance,
            history=self.course.history,
            train_seconds=self.course.train_seconds,
            probe_seconds=self.course.probe_seconds,
            tokens=self.course.tokens,
        )

    def _tell(self, kind: str, **fields: object) -> None:
        event: Event = {"kind": kind, "system": self.system, **fields}
        self.course.history.append(event)
        self.emit(event)

    def _fingerprint(self) -> dict[str, object]:
        return {
            "system": self.system,
            "seed": self.seed,
            "steps": self.total_steps,
            "tuning": dataclasses.asdict(self.tuning),
            "pruning": repr(self.pruning),
            "controller": repr(self.controller),
            "factors": {name: list(parameter.shape) for name, parameter in self.parameters.items()},
        }

    def _save(self, checkpoint: Path) -> None:
        tensors: dict[str, Tensor] = {f"factor.{name}": parameter for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{key}.{name}"] = value
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        values: dict[str, object] = {"fingerprint": self._fingerprint(), "course": dataclasses.asdict(self.course)}
        if self.steering:
            tensors |= self.steering.tensors()
            values |= self.steering.values()
        save_checkpoint(checkpoint, tensors | random_state(), values)

    @torch.no_grad()
    def _load(self, checkpoint: Path) -> None:
        tensors, values = load_checkpoint(checkpoint, self.backbone.device)
        if values["fingerprint"] != self._fingerprint():
            raise InputError(
                "this checkpoint belongs to another run", file=checkpoint, mend="Resume with the run's own recipe, or start anew"
            )
        self.course = _Course(**values["course"])
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"factor.{name}"])
            self.optimizer.state[parameter] = {key: tensors[f"optimizer.{key}.{name}"] for key in ("step", *MOMENTS)}
        self.best = {name: tensors[f"best.{name}"] for name in self.parameters if f"best.{name}" in tensors}
        if self.steering:
            self.steering.load(tensors, values)
        restore_random_state(tensors)
        for event in self.course.history:
            self.emit(event)
