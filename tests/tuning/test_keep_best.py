"""The best epoch of a search, looked at again when the ratio is settled: whatever is pruned, and however."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tuning.runs import DATA, RANKS, TUNING, assert_same, events, quota, script_dev_losses, train, two_adapters, zeros

from pomona.backbone.attach import attached
from pomona.backbone.load import Backbone
from pomona.backbone.trainable import Concat, Linear
from pomona.control import ControllerState, Grasp, Layerwise
from pomona.importance import Magnitude
from pomona.ratios import Answer, GroupRatio
from pomona.tuning.fit import fit
from pomona.tuning.prune import Prune
from pomona.tuning.settings import Event, Pruning


class Apart(Layerwise):
    """Answers with two ratios, whatever it saw."""

    def choose(self, state: ControllerState) -> Answer:
        return Answer(0.4, 0.1, 0.8, flat=True, by_group=(GroupRatio(0.2, 0.1, 0.8), GroupRatio(0.6, 0.1, 0.8)))


# 70 % of 8 steps are 5: the third epoch is the first that ends under the answer.
LEARNS = Grasp(interval_steps=1, commit_level=0, settle_fraction=0.7)
KINDS: dict[str, dict[str, Any]] = {
    "entries": {},
    "initial": {"pruning": Pruning(reset="initial")},
    "sum": {"how": Linear()},
    "sum and initial": {"how": Linear(), "pruning": Pruning(reset="initial")},
    "components": {"pruning": Pruning(granularity="rank")},
    "modules": {"pruning": Pruning(granularity="module")},
    "full_pass": {"pruning": Pruning(activations="full_pass")},
    "groups of layers": {"controller": Apart(groups=2, interval_steps=1, commit_level=0, settle_fraction=0.7)},
    "merge weights": {"how": Concat(train_weights=True), "weights_learning_rate": 0.2, "pruning": Pruning(Magnitude())},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_kept_epoch_is_what_it_was_but_for_what_the_answer_prunes(
    llama: Backbone, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    options: dict[str, Any] = {"pruning": Pruning(), "controller": LEARNS} | KINDS[kind]
    how = options.pop("how", Concat())
    unpruned: list[dict[str, torch.Tensor]] = []
    at_epoch: list[dict[str, torch.Tensor]] = []
    keep = Prune.unpruned

    def spy(prune: Prune) -> dict[str, torch.Tensor]:
        unpruned.append({name: value.clone() for name, value in keep(prune).items()})
        return unpruned[-1]

    def look(event: Event) -> None:
        if event["kind"] == "epoch":
            trained = attachment.parameters() | attachment.weight_parameters()
            at_epoch.append({name: parameter.detach().clone() for name, parameter in trained.items()})

    script_dev_losses(monkeypatch, [1.0, 4.0, 2.0, 2.5, 5.0])  # two epochs of the search, the better one again, two more
    monkeypatch.setattr(Prune, "unpruned", spy)
    with attached(llama, two_adapters(llama), None, TUNING.dropout, how) as attachment:
        initial = {name: parameter.detach().clone() for name, parameter in attachment.parameters().items()}
        fitted = fit(attachment, DATA, TUNING, emit=look, **options)
        assert [event["epoch"] for event in events(fitted, "epoch")] == [1, 2, 1, 3, 4]
        assert (fitted.epoch, len(unpruned)) == (1, 1)
        assert fitted.answer is not None
        zero = {name: torch.zeros_like(value) for name, value in initial.items()}
        reset = initial if options["pruning"].reset == "initial" else zero
        for name, parameter in attachment.parameters().items():
            then, kept = unpruned[0][name], parameter == unpruned[0][name]
            assert torch.equal(parameter, torch.where(kept, then, reset[name])), name
            # What the epoch did not prune was unpruned as it was; what it pruned comes back with a value (padding has none).
            live = at_epoch[0][name] != reset[name]
            assert torch.equal(then[live], at_epoch[0][name][live]), name
            lost = ~live & (initial[name] != 0)
            assert int((then[lost] == reset[name][lost]).sum()) <= 0.1 * int(lost.sum()), name
            if options["pruning"].granularity == "parameter" and not isinstance(how, Linear):
                ratios = fitted.answer.ratios  # of each of the two layers, where groups have their own
                ratio = ratios[int(".layers.1." in name)] if len(ratios) > 1 else fitted.answer.prune_ratio
                assert int((~kept).sum()) == quota(ratio, kept.numel()), name
        for name, weight in attachment.weight_parameters().items():
            assert torch.equal(weight, at_epoch[0][name])
        if kind == "merge weights":  # by size alone: what is pruned is smallest with the weights that are handed out
            for path, layer in attachment.layers.items():
                whole = layer.merged(unpruned[0][f"{path}.A"], unpruned[0][f"{path}.B"])
                for side, values in (("A", whole.A), ("B", whole.B)):
                    kept = attachment.parameters()[f"{path}.{side}"] != 0
                    for k, rows in enumerate((slice(0, RANKS[0]), slice(RANKS[0], None))):
                        own = (rows,) if side == "A" else (slice(None), rows)
                        of, stays = values[own].abs(), kept[own]
                        assert of[~stays].max() <= of[stays].min(), (path, side, k)


@pytest.mark.parametrize("kind", KINDS)
def test_looking_back_leaves_the_run_alone(llama: Backbone, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    options: dict[str, Any] = {"pruning": Pruning(), "controller": LEARNS} | KINDS[kind]
    script_dev_losses(monkeypatch, [1.0, 4.0, 3.0, 2.5, 2.0])
    looked = train(llama, **options)
    assert looked.epoch == 4
    undisturbed = train(llama, dataclasses.replace(DATA, dev=[]), **options)
    assert looked.adapter.fingerprint() == undisturbed.adapter.fingerprint()


SEARCH = Grasp(mode="two_pass", interval_steps=1, commit_level=0)


def test_patience_ends_a_search_that_another_run_follows(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs without a better dev loss; the ratio is then settled, and the best epoch pruned at it stands for the search."""
    script_dev_losses(monkeypatch, [2.0, 3.0, 2.5, 2.2])
    patient = dataclasses.replace(TUNING, patience_epochs=2, epochs=5)
    found = train(llama, tuning=patient, pruning=Pruning(), controller=SEARCH)
    assert [event["epoch"] for event in events(found, "epoch")] == [1, 2, 3, 1]
    assert [event["step"] for event in events(found, "round")] == list(range(1, 7))
    assert [event["step"] for event in events(found, "settled")] == [6]
    assert found.answer is not None
    assert found.answer.prune_ratio == events(found, "settled")[0]["prune_ratio"]
    assert found.epoch == 1
    assert all(count == quota(found.answer.prune_ratio, n) for count, n in zeros(found.adapter))


def test_without_patience_such_a_search_runs_to_its_end_and_judges_no_epoch_before(llama: Backbone) -> None:
    found = train(llama, pruning=Pruning(), controller=SEARCH)
    assert [event["dev_loss"] is None for event in events(found, "epoch")] == [True, True, True, False]
    assert [event["step"] for event in events(found, "settled")] == [8]


def test_a_search_that_patience_ended_is_resumed_as_it_would_have_ended(
    llama: Backbone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    patient = dataclasses.replace(TUNING, patience_epochs=1)
    options: dict[str, Any] = {"tuning": patient, "pruning": Pruning(), "controller": SEARCH}
    for stop in (2, 4):
        script_dev_losses(monkeypatch, [2.0, 3.0, 2.2])
        whole = train(llama, **options)
        script_dev_losses(monkeypatch, [2.0, 3.0, 2.2])
        path = tmp_path / f"{stop}.safetensors"

        def end(event: Event, stop: int = stop) -> None:
            if event["kind"] == "step" and event["step"] == stop + 1:
                raise KeyboardInterrupt

        if stop == 2:
            with pytest.raises(KeyboardInterrupt):
                train(llama, checkpoint=path, emit=end, **options)
        else:
            train(llama, checkpoint=path, **options)  # the last checkpoint is of the step at which it stopped
            script_dev_losses(monkeypatch, [2.2])  # the search's best epoch is judged again
        assert_same(train(llama, checkpoint=path, **options), whole)
