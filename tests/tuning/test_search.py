"""The search for the ratio over whole runs: record, mask and sparsity are one number; races and screenings are resumed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from tests.tiny import tiny_adapter, tiny_examples
from tests.tuning.runs import DATA, RANKS, STEPS, assert_same, attached_zeros, events, quota, train

from pomona.backbone.attach import Attachment
from pomona.backbone.load import Backbone
from pomona.control import Fixed, Grasp, Layerwise
from pomona.tuning.probes import Probes
from pomona.tuning.prune import Prune
from pomona.tuning.settings import Event, FitData, Pruning

# Half of 9 micro dev examples is 5 of them, which is enough to stop a candidate at this level.
RACED = FitData(DATA.train, tiny_examples(9, seed=2), DATA.dev)
SPARING = Grasp(interval_steps=2, commit_level=0, mode="two_pass", race_level=0.9, proposals=5, deviation_start=0.3)
LAYERWISE = Layerwise(groups=2, interval_steps=1, commit_level=0)
LAYERS = ("layers.0.", "layers.1.")
CONTROLLERS = {
    "single pass": Grasp(interval_steps=1, commit_level=0),
    "two passes": Grasp(interval_steps=2, commit_level=0, mode="two_pass"),
    "raced and screened": SPARING,
    "by layer": LAYERWISE,
    "by layer, two passes": Layerwise(groups=2, interval_steps=1, commit_level=0, mode="two_pass", race_level=0.9),
}


@pytest.mark.parametrize(
    ("controller", "feedback", "learns"),
    [
        (Grasp(interval_steps=1, commit_level=0), "search", True),
        (Grasp(interval_steps=2, commit_level=0, mode="two_pass"), "search", True),
        (LAYERWISE, "always", True),
        (Grasp(interval_steps=1, commit_level=0), "never", False),
        (LAYERWISE, "never", False),
        (Grasp(interval_steps=1, mode="two_pass", paper=True), "search", False),
        (Grasp(interval_steps=1, mode="two_pass", paper=True), "always", False),
    ],
    ids=["one pass", "two", "by layer", "one, off", "by layer, off", "paper", "paper, on"],
)
def test_the_stash_learns_between_commits_while_the_ratio_is_sought(
    llama: Backbone, controller: Grasp, feedback: Any, learns: bool
) -> None:
    """Not in the published procedure, nor where that is switched off."""
    changed: list[bool] = []
    put_masks = Prune.put_masks

    def spy(prune: Prune, step: int, *, last_of_epoch: bool) -> None:
        before = prune.unpruned()
        put_masks(prune, step, last_of_epoch=last_of_epoch)
        if 1 < step <= prune.settle_step:
            changed.append(any(not torch.equal(before[name], value) for name, value in prune.unpruned().items()))

    with mock.patch.object(Prune, "put_masks", spy):
        train(llama, pruning=Pruning(feedback=feedback), controller=controller)
    assert changed == [learns] * len(changed)
    assert len(changed) >= 3


@pytest.mark.parametrize("name", CONTROLLERS)
def test_the_recorded_ratio_the_mask_in_force_and_the_sparsity_are_one_number_at_every_step(llama: Backbone, name: str) -> None:
    ratios: list[float] = []
    in_force = [0.4] * CONTROLLERS[name].layer_groups

    def look(event: dict[str, Any], attachment: Attachment) -> None:
        recorded = event.get("prune_ratio_after", event.get("prune_ratio"))
        if recorded is not None:
            ratios.append(recorded)
            found = [attached_zeros(attachment, layer) for layer in LAYERS]
            in_force[:] = event.get("by_group", in_force) or [recorded]
            if CONTROLLERS[name].layer_groups == 1:
                in_force[:] = [recorded]
            for zeros, ratio in zip(found, [in_force[0], in_force[-1]], strict=True):
                assert zeros == [(quota(ratio, n), n) for _, n in zeros]
            pruned, entries = (sum(column) for column in zip(*(pair for zeros in found for pair in zeros), strict=True))
            assert recorded == pytest.approx(pruned / entries, abs=len(RANKS) * len(found[0] + found[1]) / entries)

    fitted = train(llama, RACED, look=look, pruning=Pruning(), controller=CONTROLLERS[name])
    kinds = [event["kind"] for event in fitted.history]
    assert len(ratios) == STEPS + kinds.count("round") + kinds.count("settled")
    assert kinds.count("settled") == 1
    assert len(set(ratios)) >= 3
    assert fitted.answer is not None
    assert ratios[-1] == fitted.answer.prune_ratio


def test_groups_count_by_their_entries(llama: Backbone) -> None:
    """The first layer has both modules, the second one of them."""
    adapters = [tiny_adapter(llama, seed=seed, leave_out=["model.layers.1.self_attn.q_proj"]) for seed in (1, 2)]
    seen: list[int] = []

    def look(event: dict[str, Any], attachment: Attachment) -> None:
        seen[:] = [sum(n for _, n in attached_zeros(attachment, layer)) for layer in LAYERS]

    fitted = train(llama, adapters=adapters, look=look, pruning=Pruning(), controller=Fixed((0.25, 0.75)))
    first, second = seen
    assert first > second
    assert fitted.answer is not None
    assert fitted.answer.prune_ratio == pytest.approx((0.25 * first + 0.75 * second) / (first + second))


def test_a_raced_and_screened_run_resumed_from_any_step_ends_as_it_would_have(llama: Backbone, tmp_path: Path) -> None:
    path = tmp_path / "fit.safetensors"

    def keep(event: Event) -> None:
        if event["kind"] == "step" and path.exists():
            shutil.copy(path, tmp_path / str(int(event["step"]) - 1))  # pyright: ignore[reportArgumentType]

    options: dict[str, Any] = {"pruning": Pruning(), "controller": SPARING}
    whole = train(llama, RACED, checkpoint=path, emit=keep, **options)
    tried = [one["examples"] for seen in events(whole, "round") for one in seen["candidates"]]
    assert set(tried) == {5, 9}, "some were stopped, some were not"
    assert len(tried) == 4 * 3, "of five proposals three were tried"
    for step in range(1, STEPS):
        torch.manual_seed(step)
        resumed = train(llama, RACED, checkpoint=tmp_path / str(step), **options)
        assert_same(resumed, whole)


@pytest.mark.parametrize("controller", [SPARING, LAYERWISE], ids=["raced and screened", "by layer"])
def test_a_run_stopped_in_the_middle_of_a_round_ends_as_it_would_have(llama: Backbone, tmp_path: Path, controller: Grasp) -> None:
    """In each half of the race of the second round: the round is begun again, from the step before it."""
    options: dict[str, Any] = {"pruning": Pruning(), "controller": controller}
    whole = train(llama, RACED, **options)
    real = Probes.measure
    for stop in (3, 4):
        calls = 0

        def measure(self: Probes, *arguments: Any, stop: int = stop) -> list[list[float]]:
            nonlocal calls
            calls += 1
            if calls == stop:
                raise KeyboardInterrupt
            return real(self, *arguments)

        path = tmp_path / f"{stop}.safetensors"
        with mock.patch.object(Probes, "measure", measure), pytest.raises(KeyboardInterrupt):
            train(llama, RACED, checkpoint=path, **options)
        resumed = train(llama, RACED, checkpoint=path, **options)
        assert_same(resumed, whole)
