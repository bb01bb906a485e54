"""The one training loop: fine-tune attached adapters, prune as it goes, and let a controller learn how much.

A source adapter, a target LoRA, merge + fine-tune, and the main job are all this loop, with and without pruning. It has no
parameter for test data, so a test example cannot reach a gradient, a mask, a ratio or a choice of epoch.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pomona.adapters import Adapter, without_zero_components
from pomona.backbone.activations import activations_again
from pomona.backbone.attach import Attachment
from pomona.backbone.batches import training_order
from pomona.backbone.loss import make_batch, token_losses
from pomona.backbone.ranks import rank, share, sum_over_ranks
from pomona.backbone.recompute import gradient_checkpointing
from pomona.control import Controller, Fixed
from pomona.errors import InputError, PomonaError
from pomona.seeding import derive_seed, stream
from pomona.tuning.checkpoint import load_checkpoint, random_state, restore_random_state, save_checkpoint
from pomona.tuning.epochs import Epochs, Judge
from pomona.tuning.probes import Costs
from pomona.tuning.progress import Progress, Silent
from pomona.tuning.settings import Event, FitData, Fitted, Pruning, Sparsity, Tuning
from pomona.tuning.steering import Steering
from pomona.tuning.surgery import MOMENTS

_FORMAT = 5
"""Of a checkpoint's content; one of another version of Pomona is not gone on from."""


@dataclass
class _Course:
    """What evolves besides tensors; a checkpoint's JSON."""

    step: int = 0
    tokens: int = 0
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
    judge: Judge | None = None,
    costs: Costs | None = None,
    weights_learning_rate: float | None = None,
    seed: int = 0,
    system: str = "pomona",
    checkpoint: Path | None = None,
    emit: Callable[[Event], None] = lambda event: None,
    progress: Progress | None = None,
) -> Fitted:
    """Fine-tune the attached factors.

    With a `checkpoint` path that exists, the run goes on from there and ends as it would have without the interruption,
    bit for bit.

    Where `torch.distributed` is initialised, every rank calls `fit` with the same arguments: each batch is shared out, gradients
    and statistics are summed, so all ranks hold the same factors and masks, and all return the same. Rank 0 alone writes the
    checkpoint; a run that is resumed on several ranks draws other dropout than it would have.

    Args:
        attachment: trained in place.
        data: encoded examples; no test data.
        tuning: the optimizer's side.
        pruning: how to prune; None trains without.
        controller: how much to prune; `Fixed(0.0)` by default.
        judge: what the best epoch is chosen by, after each epoch; by default minus the dev examples' losses.
        costs: what a controller's candidates cost on the micro dev examples, lower is better; None: these examples' losses.
        weights_learning_rate: of the merge weights, where the attachment trains them; that of the factors by default.
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
        attachment,
        data,
        tuning,
        pruning,
        controller or Fixed(0.0),
        judge,
        costs,
        weights_learning_rate or tuning.learning_rate,
        seed,
        system,
        checkpoint,
        emit,
        progress or Silent(),
    ).run()


def total_steps(examples: int, tuning: Tuning) -> int:
    """Optimizer steps of a whole run."""
    batches = math.ceil(examples / tuning.batch_size)
    return math.ceil(batches / tuning.accumulation_steps) * tuning.epochs


@dataclass(eq=False)
class _Loop:
    """One call of `fit`: its parts, and the steps in which they meet."""

    attachment: Attachment
    data: FitData
    tuning: Tuning
    pruning: Pruning | None
    controller: Controller
    judge: Judge | None
    costs: Costs | None
    weights_learning_rate: float
    seed: int
    system: str
    checkpoint: Path | None
    emit: Callable[[Event], None]
    progress: Progress

    def __post_init__(self) -> None:
        if not self.data.train:
            raise InputError("there are no training examples", field="train")
        self.backbone = self.attachment.backbone
        self.parameters = self.attachment.parameters() | self.attachment.weight_parameters()
        self.optimizer = self._optimizer()
        self.total_steps = total_steps(len(self.data.train), self.tuning)
        self.steps_per_epoch = self.total_steps // self.tuning.epochs
        self.steering = self.pruning and Steering(
            self.attachment,
            self.pruning,
            self.controller,
            self.optimizer,
            self.data,
            self.tuning,
            derive_seed(self.seed, "controller"),
            self.total_steps,
            costs=self.costs,
        )
        self.course = _Course()
        self.epochs = Epochs(
            self.attachment,
            self.steering,
            self.data.dev,
            self.tuning.batch_size,
            self.judge,
            self.tuning.patience_epochs,
            self._check_finite,
        )

    def _optimizer(self) -> torch.optim.AdamW:
        """AdamW; each group keeps the rate that its decay begins with."""
        tuning, weights = self.tuning, list(self.attachment.weight_parameters().values())
        groups = [{"params": list(self.attachment.parameters().values()), "first_rate": tuning.learning_rate}]
        groups += [{"params": weights, "first_rate": self.weights_learning_rate, "weight_decay": 0.0}] if weights else []
        return torch.optim.AdamW(groups, lr=tuning.learning_rate, weight_decay=tuning.weight_decay, fused=True)

    def run(self) -> Fitted:
        torch.manual_seed(derive_seed(self.seed, "dropout", *([rank()] if rank() else [])))
        if self.checkpoint and self.checkpoint.exists():
            self._load(self.checkpoint)
        self.progress.begin(f"tuning {self.system}", self.total_steps)
        self.progress.advance(self.course.step)
        try:
            with gradient_checkpointing(self.backbone) if self.tuning.gradient_checkpointing else nullcontext():
                while self.course.step < self.total_steps and not self.course.stopped:
                    self._step()
                    if self.course.step % self.steps_per_epoch == 0:
                        self._end_epoch()
                    if self.checkpoint and self.course.step % self.tuning.checkpoint_steps == 0 and rank() == 0:
                        self._save(self.checkpoint)
        finally:
            self.attachment.observe(None)
            self.attachment.train(False)
        return self._finish()

    def _step(self) -> None:
        started = time.perf_counter()
        epoch, within = divmod(self.course.step, self.steps_per_epoch)
        decay = self.tuning.learning_rate_decay**epoch
        for group in self.optimizer.param_groups:
            group["lr"] = group["first_rate"] * decay
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
        self._tell(
            "step", step=step, epoch=epoch + 1, loss=loss, learning_rate=self.tuning.learning_rate * decay, prune_ratio=prune_ratio
        )
        self.progress.advance(1, f"loss {loss:.3f}")
        if steering:
            self._search(steering)

    def _search(self, steering: Steering) -> None:
        """The controller's part after a step: a round where one is due, and its answer where the search ends."""
        if steering.round_due(self.course.step):
            self._ask(steering, "round", steering.round)
        if steering.settle_due(self.course.step):
            self._settle(steering)

    def _settle(self, steering: Steering) -> None:
        """The search ends; the best epoch of it may be what is exported."""
        self._ask(steering, "settled", steering.settle)
        started = time.perf_counter()
        event = self.epochs.look_back(self.course.step)
        self.course.train_seconds += time.perf_counter() - started
        if event:
            self._tell("epoch", **event)

    def _ask(self, steering: Steering, kind: str, act: Callable[[int], Event]) -> None:
        started = time.perf_counter()
        found = act(self.course.step)
        self.course.probe_seconds += time.perf_counter() - started
        self._tell(kind, **found)
        self.progress.ratio(steering.prune_ratio)

    def _gradients(self, epoch: int, within: int) -> float:
        """Accumulate the gradients of one optimizer step; its mean loss, nats per completion token."""
        order = training_order(
            [len(example) for example in self.data.train], self.tuning.batch_size, stream(self.seed, "batches", epoch)
        )
        first = within * self.tuning.accumulation_steps
        batches = [
            [self.data.train[index] for index in indices] for indices in order[first : first + self.tuning.accumulation_steps]
        ]
        targets = sum(len(example) - example.completion_start for examples in batches for example in examples)
        observation = self.steering.observation if self.steering else None
        self.attachment.train(True)
        total = torch.zeros((), device=self.backbone.device)
        for examples in batches:
            self.course.tokens += sum(map(len, examples))
            mine = share(examples)
            if not mine:
                continue
            batch = make_batch(self.backbone, mine)
            if observation:
                observation.begin_batch(batch.content)
            # Where whole layers are computed again, their activation functions are anyway.
            with nullcontext() if self.tuning.gradient_checkpointing else activations_again(self.backbone.model):
                loss = token_losses(self.backbone, batch).sum() / targets
            if observation:
                observation.end_batch()
            loss.backward()
            total += loss.detach()
        self.attachment.train(False)
        gradients = [_gradient(parameter) for parameter in self.parameters.values()]
        sum_over_ranks([total, *gradients])
        if observation:
            observation.end_step()
        return float(total)

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise PomonaError(
                f"the {what} of {self.system} is not finite after {self.course.step} steps",
                value=value,
                mend="Lower tuning.learning_rate, or train with dtype float32",
            )

    def _end_epoch(self) -> None:
        """Keep this epoch's factors if they are the best that could be exported; stop when patience is over."""
        epoch, started = self.course.step // self.steps_per_epoch, time.perf_counter()
        event = self.epochs.end(epoch, self.course.step)
        self.course.train_seconds += time.perf_counter() - started
        self.course.stopped = self.epochs.exhausted(epoch)
        self._tell("epoch", **event)
        if self.course.stopped and self.steering and self.steering.searches:
            self._settle(self.steering)

    @torch.no_grad()
    def _finish(self) -> Fitted:
        steering = self.steering
        importance = steering.importance() if steering else {}
        best = self.epochs.best
        self.epochs.put(best.values)
        dev_loss = best.dev_loss
        self.progress.end(f"epoch {best.epoch}" + (f", dev loss {dev_loss:.3f}" if dev_loss is not None else ""))
        return Fitted(
            adapter=self._export(),
            epoch=best.epoch,
            dev_loss=dev_loss,
            dev_scores=tuple(best.scores),
            sparsity={path: Sparsity.of(layer.effective()) for path, layer in self.attachment.layers.items()},
            merge_weights=self.attachment.merge_weights() if self.attachment.weight_parameters() else {},
            answer=steering.answer if steering else None,
            control=steering.control if steering else None,
            importance=importance,
            history=self.course.history,
            train_seconds=self.course.train_seconds,
            probe_seconds=self.course.probe_seconds,
            tokens=self.course.tokens,
        )

    def _export(self) -> Adapter:
        """The adapter; where whole components were pruned, without them."""
        adapter = self.attachment.export()
        whole = self.pruning is not None and self.pruning.granularity != "parameter"
        return without_zero_components(adapter) if whole else adapter

    def _tell(self, kind: str, **fields: object) -> None:
        event: Event = {"kind": kind, "system": self.system, **fields}
        self.course.history.append(event)
        self.emit(event)

    def _fingerprint(self) -> dict[str, object]:
        return {
            "format": _FORMAT,
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
        values: dict[str, object] = {"fingerprint": self._fingerprint(), "course": dataclasses.asdict(self.course)}
        tensors |= self.epochs.tensors()
        values |= self.epochs.values()
        if self.steering:
            tensors |= self.steering.tensors()
            values |= self.steering.values()
        save_checkpoint(checkpoint, tensors | random_state(), values)

    @torch.no_grad()
    def _load(self, checkpoint: Path) -> None:
        tensors, values = load_checkpoint(checkpoint, self.backbone.device)
        if values["fingerprint"] != self._fingerprint():
            raise InputError(
                "this checkpoint belongs to another run, or to another version of Pomona",
                file=checkpoint,
                mend="Resume with the run's own recipe and version, or start anew",
            )
        self.course = _Course(**values["course"])
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"factor.{name}"])
            self.optimizer.state[parameter] = {key: tensors[f"optimizer.{key}.{name}"] for key in ("step", *MOMENTS)}
        self.epochs.load(tensors, values)
        if self.steering:
            self.steering.load(tensors, values)
        restore_random_state(tensors)
        for event in self.course.history:
            self.emit(event)


def _gradient(parameter: torch.nn.Parameter) -> Tensor:
    """The parameter's gradient; zeros where the loss does not depend on it."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
