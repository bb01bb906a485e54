"""What a run will take: its trainings as the recipe gives them, and memory and time from a trial step of the real model."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pomona.backbone.attach import Attachment
from pomona.backbone.batches import Encoded
from pomona.backbone.load import Backbone
from pomona.backbone.loss import example_losses
from pomona.control import Controller, Fixed, Search, Trial
from pomona.errors import PomonaError
from pomona.tuning.fit import fit
from pomona.tuning.settings import FitData, Pruning, Tuning
from pomona.tuning.stages import Stage, stage_ends, steps_before_factors

_BYTES_A_TRAINED_ENTRY = 16
"""Factor, gradient and AdamW's two moments, 4 bytes each."""


@dataclass(frozen=True)
class Training:
    """One training of a run, whole: patience may end it earlier.

    Args:
        name: of the system or source.
        steps: optimizer steps.
        tokens: that are trained on, padding excluded.
        read_tokens: that are read without a gradient: dev losses, probes, passes for norms.
        rounds: of the controller.
        probes: masks on trial in all rounds, those that they are compared with included.
        runs: whole trainings at given ratios.
        seconds: of the steps, and of what is read; None: not known.
        once: identifies work that several runs of one process have in common; None: it is this run's own.
    """

    name: str
    steps: int
    tokens: int
    read_tokens: int = 0
    rounds: int = 0
    probes: int = 0
    runs: int = 1
    seconds: float | None = None
    once: object = None


@dataclass(frozen=True)
class TrialStep:
    """What an optimizer step of the real model takes.

    Args:
        step_seconds: of a step on a batch of middling length.
        token_seconds: the same for one token.
        read_seconds: for one token that is read without a gradient.
        memory_bytes: at the peak of a step on the longest batch: of the accelerator, or of this process on a CPU. None: the system
            does not tell.
    """

    step_seconds: float
    token_seconds: float
    read_seconds: float
    memory_bytes: int | None


def timed(trainings: Iterable[Training], trial: TrialStep | None) -> tuple[Training, ...]:
    """The trainings with their seconds, as far as a trial tells."""
    if trial is None:
        return tuple(trainings)
    return tuple(
        dataclasses.replace(one, seconds=one.tokens * trial.token_seconds + one.read_tokens * trial.read_seconds)
        for one in trainings
    )


def summed(trainings: Sequence[Training]) -> Training:
    """Several trainings of one system as one.

    Args:
        trainings: one or more, of one name.
    """
    return dataclasses.replace(
        trainings[0],
        steps=sum(one.steps for one in trainings),
        tokens=sum(one.tokens for one in trainings),
        read_tokens=sum(one.read_tokens for one in trainings),
        rounds=sum(one.rounds for one in trainings),
        probes=sum(one.probes for one in trainings),
        runs=sum(one.runs for one in trainings),
    )


def plain_training(name: str, data: FitData, tuning: Tuning, once: object = None, stages: Sequence[Stage] = ()) -> Training:
    """A training without pruning.

    Raises:
        InputError: a stage has no optimizer step.
    """
    stage_ends(stages, tuning.total_steps(len(data.train)))
    return Training(
        name,
        tuning.total_steps(len(data.train)),
        tuning.epochs * count_tokens(data.train),
        tuning.epochs * count_tokens(data.dev),
        once=once,
    )


def pruned_training(
    name: str,
    data: FitData,
    tuning: Tuning,
    pruning: Pruning,
    controller: Controller | Search,
    once: object = None,
    stages: Sequence[Stage] = (),
) -> Training:
    """A training that prunes, with the rounds in which its ratio is learned; of a search, all of its runs.

    Raises:
        InputError: a stage has no optimizer step.
    """
    found = plain_training(name, data, tuning, once, stages)
    if pruning.needs_norms and pruning.activations == "full_pass":
        passes = max(1, found.steps // pruning.interval_steps)
        found = dataclasses.replace(found, read_tokens=found.read_tokens + passes * count_tokens(data.train))
    if isinstance(controller, Search):
        runs = _count_runs(controller)
        steps, tokens, read_tokens = runs * found.steps, runs * found.tokens, runs * found.read_tokens
        return dataclasses.replace(found, steps=steps, tokens=tokens, read_tokens=read_tokens, runs=runs)
    pruned_steps = found.steps - steps_before_factors(stages, found.steps)
    state = controller.start(0, pruned_steps)
    rounds = sum(controller.round_due(state, step) for step in range(1, pruned_steps + 1))
    probes = rounds * (len(controller.propose(state)) + 1) if rounds else 0
    read_tokens = found.read_tokens + probes * count_tokens(data.micro_dev)
    return dataclasses.replace(found, rounds=rounds, probes=probes, read_tokens=read_tokens)


def _count_runs(search: Search) -> int:
    """How many runs a search asks for, whatever comes of them."""
    trials: list[Trial] = []
    while (prune_ratio := search.next(trials, 0)) is not None:
        trials.append(Trial(prune_ratio, (0.0,)))
    return len(trials)


def count_tokens(examples: Iterable[Encoded]) -> int:
    """Tokens of all examples."""
    return sum(map(len, examples))


def tried(
    attachment: Attachment, data: FitData, tuning: Tuning, pruning: Pruning | None, *, trial: bool
) -> tuple[TrialStep | None, str]:
    """What a step takes, where a trial is wanted; and else why that is not known."""
    if not trial:
        return None, "no trial step was made"
    try:
        return try_step(attachment, data.train, tuning, pruning), ""
    except (PomonaError, RuntimeError) as error:  # of torch, out of memory among them
        return None, f"the trial step failed: {' '.join(str(error).split())}"


def try_step(attachment: Attachment, examples: Sequence[Encoded], tuning: Tuning, pruning: Pruning | None) -> TrialStep:
    """Train one step on the longest examples, and two on examples of middling length, of which the second is timed.

    Args:
        attachment: is trained and of no use afterwards.
        examples: of the training split.
        tuning: the run's.
        pruning: how to prune after each step; None does not.
    """
    backbone, size = attachment.backbone, tuning.batch_size * tuning.accumulation_steps
    by_length = sorted(examples, key=len)
    middling = by_length[max(0, (len(by_length) - size) // 2) :][:size]

    def steps(chosen: Sequence[Encoded], count: int) -> float:
        """The seconds of the last step."""
        ended = [time.perf_counter()]
        fit(
            attachment,
            FitData(chosen),
            dataclasses.replace(tuning, epochs=count, patience_epochs=None),
            pruning=pruning,
            controller=Fixed(0.5),
            system="a trial step",
            emit=lambda event: ended.append(time.perf_counter()) if event["kind"] == "step" else None,
        )
        return ended[-1] - ended[-2]

    _forget_peak(backbone.device)
    steps(by_length[-size:], 1)
    memory = _peak_bytes(backbone.device)
    seconds = steps(middling, 2)
    started = time.perf_counter()
    example_losses(backbone, middling, tuning.batch_size)
    tokens = count_tokens(middling)
    return TrialStep(seconds, seconds / tokens, (time.perf_counter() - started) / tokens, memory)


def least_bytes(backbone: Backbone, attachment: Attachment | None) -> int:
    """What training takes without activations: the model's weights, and the factors with their gradient and AdamW's moments."""
    weights = sum(one.numel() * one.element_size() for one in backbone.model.parameters())
    trained = (attachment.parameters() | attachment.weight_parameters()).values() if attachment is not None else ()
    return weights + _BYTES_A_TRAINED_ENTRY * sum(one.numel() for one in trained)


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):  # Linux only
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    return None
