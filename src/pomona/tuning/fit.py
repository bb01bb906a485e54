"""`fit`: run the training loop with the transforms of a run, and collect the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from pomona.adapters import Adapter, without_zero_components
from pomona.backbone.attach import Attachment
from pomona.control import Controller, Fixed
from pomona.engines import Engine
from pomona.errors import InputError
from pomona.tuning.average import Average
from pomona.tuning.keep_best import Judge, KeepBest
from pomona.tuning.loop import train
from pomona.tuning.probes import Costs
from pomona.tuning.progress import Progress, Silent
from pomona.tuning.prune import Prune
from pomona.tuning.settings import Event, FitData, Fitted, Pruning, Sparsity, Tuning
from pomona.tuning.stages import Stage, Stages, steps_before_factors
from pomona.tuning.statistics import Statistics
from pomona.tuning.transform import Run, Transform


def fit(
    attachment: Attachment,
    data: FitData,
    tuning: Tuning,
    *,
    pruning: Pruning | None = None,
    controller: Controller | None = None,
    judge: Judge | None = None,
    tolerance: float = 0.0,
    costs: Costs | None = None,
    weights_learning_rate: float | None = None,
    stages: Sequence[Stage] = (),
    seed: int = 0,
    system: str = "pomona",
    checkpoint: Path | None = None,
    emit: Callable[[Event], None] = lambda event: None,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> Fitted:
    """Fine-tune the attached factors or their coefficients; prune factors, with a ratio that a controller gives or learns.

    There is no parameter for test data, so a test example cannot reach a gradient, a mask, a ratio or a choice of epoch.

    If the `checkpoint` file exists, the run resumes from it and ends bit for bit as without the interruption.

    If an engine has several ranks, every rank calls `fit` with the same arguments: each batch is divided among the ranks, and
    gradients and statistics are summed, so that all ranks have the same factors and masks and return the same result. Only rank 0
    writes the checkpoint; a run resumed on several ranks draws a different dropout than without the interruption.

    Args:
        attachment: the factors, trained in place.
        data: encoded examples; no test data.
        tuning: the optimizer's settings.
        pruning: how to prune; None trains without.
        controller: how much to prune; `Fixed(0.0)` by default.
        judge: scores each epoch for the choice of the best; default: minus the dev examples' losses.
        tolerance: standard errors of the judge's score within which the dev loss chooses the epoch; see `choice`.
        costs: the costs of a controller's candidates on the micro dev examples, lower is better; None: the losses.
        weights_learning_rate: learning rate of trained merge weights and coefficients; default: that of the factors.
        stages: train factors and coefficients one after the other; empty: together. Pruning begins with the first stage that trains
            factors.
        seed: root seed of the order of batches, dropout and the controller's draws.
        system: name in the history.
        checkpoint: file to save to and to resume from.
        emit: called with each event of the history; after a resume, first with the events up to the checkpoint.
        progress: display for the user.
        engine: runs a step; default: that of the model, for one process or the ranks of `torch.distributed`.

    Raises:
        PomonaError: a loss or the gradient became NaN or infinite.
        InputError: no training examples; a learning controller without micro dev examples; a checkpoint of another run.
    """
    if not data.train:
        raise InputError("there are no training examples", field="train")
    controller, engine = controller or Fixed(0.0), engine or attachment.backbone.engine
    optimizer = _adamw(attachment, tuning, weights_learning_rate or tuning.learning_rate)
    run = Run(attachment, data, tuning, optimizer, system, seed, engine, emit, progress or Silent())
    transforms: dict[str, Transform] = {}
    prune = None
    first_step = 0
    if stages:
        transforms["stages"] = Stages(attachment, stages, run.total_steps)
        first_step = steps_before_factors(stages, run.total_steps)
    if pruning is not None:
        statistics = Statistics(attachment, pruning, data.train, tuning.batch_size, controller.wants_estimates, engine, seed)
        prune = Prune(run, pruning, controller, statistics, costs, first_step)
        transforms |= {"statistics": statistics, "prune": prune}
    average = None
    if tuning.average != "none":
        average = transforms["average"] = Average(prune)
    best = transforms["best"] = KeepBest(prune, judge, average, tolerance)
    try:
        train(run, transforms, checkpoint, _fingerprint(run, pruning, controller, stages, tolerance))
    finally:
        attachment.observe(None)
        attachment.train(False)
    return _fitted(run, pruning, prune, best)


def _adamw(attachment: Attachment, tuning: Tuning, weights_learning_rate: float) -> torch.optim.AdamW:
    """AdamW on the factors, and on the merge weights with their own learning rate and without decay."""
    weights = list(attachment.weight_parameters().values())
    factors = list(attachment.parameters().values())
    groups = [{"params": factors, "first_rate": tuning.learning_rate}] if factors else []
    groups += [{"params": weights, "first_rate": weights_learning_rate, "weight_decay": 0.0}] if weights else []
    return torch.optim.AdamW(groups, lr=tuning.learning_rate, weight_decay=tuning.weight_decay, fused=True)


def _fingerprint(
    run: Run, pruning: Pruning | None, controller: Controller, stages: Sequence[Stage], tolerance: float
) -> dict[str, object]:
    """The values that must be equal in a checkpoint and in the run that resumes from it."""
    return {
        "system": run.system,
        "seed": run.seed,
        "steps": run.total_steps,
        "tuning": run.tuning.shaping(),
        "pruning": repr(pruning),
        "controller": repr(controller),
        **({"stages": repr(stages)} if stages else {}),
        **({"tolerance": tolerance} if tolerance else {}),
        **({"mixed_precision": run.engine.mixed_precision} if run.engine.mixed_precision else {}),
        "factors": {name: list(parameter.shape) for name, parameter in run.parameters.items()},
    }


@torch.no_grad()
def _fitted(run: Run, pruning: Pruning | None, prune: Prune | None, best: KeepBest) -> Fitted:
    attachment, kept, state = run.attachment, best.state.best, run.state
    described = {path: layer.effective() for path, layer in attachment.layers.items()}
    if not described:
        described = {path: module.export() for path, module in attachment.modules.items()}
    run.progress.end(f"epoch {kept.epoch}" + (f", dev loss {kept.dev_loss:.3f}" if kept.dev_loss is not None else ""))
    return Fitted(
        adapter=_export(attachment, pruning),
        epoch=kept.epoch,
        dev_loss=kept.dev_loss,
        dev_scores=tuple(kept.scores),
        sparsity={path: Sparsity.of(pair) for path, pair in described.items()},
        merge_weights=attachment.merge_weights() if attachment.weight_parameters() else {},
        answer=prune.answer if prune else None,
        control=prune.control if prune else None,
        importance=prune.final_importance if prune else {},
        history=state.history,
        train_seconds=state.train_seconds,
        probe_seconds=state.probe_seconds,
        tokens=state.tokens,
        component_weights=attachment.component_weights(),
        coefficients=0 if attachment.layers else sum(one.numel() for one in attachment.weight_parameters().values()),
        kept_by_source=_kept_by_source(attachment, pruning),
    )


def _kept_by_source(attachment: Attachment, pruning: Pruning | None) -> dict[str, list[float | None]]:
    """`Fitted.kept_by_source`, measured by zeros."""
    if pruning is None or not pruning.of_sources or pruning.reset != "zero":
        return {}
    found: dict[str, list[float | None]] = {}
    for path, layer in attachment.layers.items():
        pair = layer.effective()
        found[path] = [None] * len(layer.merge_weights())
        for place, (A, B) in layer.parts(pair.A, pair.B).items():
            found[path][place] = float((A.any(dim=1) & B.any(dim=0)).double().mean())
    return found


def _export(attachment: Attachment, pruning: Pruning | None) -> Adapter:
    """The adapter; if whole components were pruned, or closed by a gate, without them."""
    adapter = attachment.export()
    gates = any(module.coefficients is not None and module.coefficients.binary for module in attachment.modules.values())
    whole = gates or (pruning is not None and pruning.granularity != "parameter")
    return without_zero_components(adapter) if whole else adapter
