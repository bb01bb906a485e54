"""Rounds, commits and the answer, driven by a controller that follows a script, on a tiny model."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_adapter, tiny_examples

import pomona.tuning.probes as probes_module
from pomona.backbone.attach import Attachment, attached
from pomona.backbone.batches import Encoded, collate
from pomona.backbone.candidates import candidate_losses
from pomona.backbone.load import Backbone
from pomona.backbone.loss import example_losses, token_losses
from pomona.backbone.trainable.concat import ConcatModule
from pomona.control import Candidate, Controller, ControllerState, Fixed, Handling, Round
from pomona.engines import NATIVE
from pomona.errors import InputError, PomonaError
from pomona.importance import DeltaSensitivity, Magnitude
from pomona.pruning import pruned_count
from pomona.ratios import Answer, CurvePoint
from pomona.seeding import stream
from pomona.tuning.checkpoint import load_checkpoint, save_checkpoint
from pomona.tuning.probes import Costs
from pomona.tuning.progress import Silent
from pomona.tuning.prune import Prune, PruneState
from pomona.tuning.settings import FitData, Pruning, Tuning
from pomona.tuning.state import typed
from pomona.tuning.statistics import Statistics
from pomona.tuning.transform import Run as TrainingRun

TRAIN, MICRO_DEV, DEV = tiny_examples(3, seed=21), tiny_examples(3, seed=20), tiny_examples(5, seed=22)


@dataclass(frozen=True)
class Scripted(Controller[ControllerState]):
    """Rounds after steps 2 and 4, candidates 0.1 and 0.9; commits what the script says; answers 0.25 at step 5.

    With `books` it records that ratio at a commit in place of the mask's own, and with `held` it compares with the mask in force,
    as the published code does.
    """

    commits: tuple[float | None, ...] = (0.5, None)
    settles: int = 5
    refreshes: bool = True
    books: float | None = None
    held: bool = False
    unpruned: bool = False

    def start(self, seed: int, total_steps: int, shares: Sequence[float] = ()) -> ControllerState:
        return ControllerState(seed, total_steps, (1.0,), (0.3,))

    def round_due(self, state: ControllerState, step: int) -> bool:
        return step in (2, 4)

    def settle_step(self, total_steps: int) -> int:
        return self.settles

    def propose(self, state: ControllerState) -> tuple[float, ...]:
        return (0.1, 0.9)

    def observe(
        self,
        state: ControllerState,
        step: int,
        losses_before: Sequence[float],
        losses: Sequence[Sequence[float | None] | None],
    ) -> ControllerState:
        committed = self.commits[len(state.rounds)]
        candidates = tuple(
            replace(Candidate.measured(p, losses_before, row, stream(0, "scripted")), p_value=0.5)
            for p, row in zip(self.propose(state), losses, strict=True)
            if row is not None
        )
        after = state.prune_ratio if committed is None else self.books or committed
        seen = Round(
            len(state.rounds), step, tuple(losses_before), candidates, state.prune_ratio, after, committed, 0.3, 0.1, (0.3,)
        )
        return replace(state, ratios=(after,), rounds=(*state.rounds, seen))

    def choose(self, state: ControllerState) -> Answer:
        return Answer(0.25, 0.1, 0.4, flat=False)

    @property
    def passes(self) -> int:
        return 1

    @property
    def handling(self) -> Handling:
        return Handling(refreshes_importance=self.refreshes, starts_unpruned=self.unpruned)

    def reference(self, state: ControllerState) -> tuple[float, ...] | None:
        return None if self.held else super().reference(state)


def seen_losses(candidate: Candidate) -> list[float]:
    """The losses of the examples that it was tried on."""
    return [loss for loss in candidate.losses if loss is not None]


class Run:
    """A prune at work on real steps of AdamW."""

    def __init__(
        self,
        attachment: Attachment,
        controller: Controller,
        pruning: Pruning | None = None,
        micro_dev: Sequence[Encoded] = MICRO_DEV,
        costs: Costs | None = None,
    ) -> None:
        self.attachment = attachment
        self.parameters = attachment.parameters()
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=0.01, weight_decay=0.0)
        data, tuning = FitData(TRAIN, micro_dev, DEV), Tuning(epochs=5, batch_size=2)
        pruning = pruning or Pruning()
        self.statistics = Statistics(attachment, pruning, TRAIN, 2, controller.wants_estimates)
        run = TrainingRun(attachment, data, tuning, self.optimizer, "system", 7, NATIVE, lambda event: None, Silent())
        self.prune = Prune(run, pruning, controller, self.statistics, costs)

    def step(self, number: int, *, last_of_epoch: bool = False) -> None:
        batch = collate(tiny_examples(3, seed=number), 0, torch.device("cpu"))
        self.attachment.train(True)
        self.statistics.before_forward(batch)
        loss = token_losses(self.attachment.backbone, batch).sum()
        self.statistics.after_forward()
        loss.backward()
        self.attachment.train(False)
        self.statistics.after_backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.prune.put_masks(number, last_of_epoch=last_of_epoch)

    def zeros(self) -> list[int]:
        return [int((parameter == 0).sum()) for parameter in self.parameters.values()]

    def counts(self, prune_ratio: float) -> list[int]:
        return [pruned_count(prune_ratio, parameter.numel()) for parameter in self.parameters.values()]

    def values(self) -> dict[str, torch.Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.parameters.items()}


@contextlib.contextmanager
def running(
    backbone: Backbone,
    controller: Controller,
    pruning: Pruning | None = None,
    micro_dev: Sequence[Encoded] = MICRO_DEV,
    costs: Costs | None = None,
) -> Iterator[Run]:
    with attached(backbone, [tiny_adapter(backbone, seed=1)]) as attachment:
        yield Run(attachment, controller, pruning, micro_dev, costs)


def test_a_run_that_learns_its_ratio(llama: Backbone) -> None:
    with running(llama, Scripted()) as run:
        prune = run.prune
        for step, ratio in ((1, 0.3), (2, 0.3), (3, 0.5), (4, 0.5), (5, 0.5)):
            run.step(step)
            assert run.zeros() == run.counts(ratio)
            assert prune.prune_ratio == ratio
            assert prune.answer is None
            if prune.round_due(step):
                assert step in (2, 4)
                seen = prune.round(step)
                assert seen["index"] == step // 2 - 1
                assert seen["committed"] is (step == 2)
                assert (seen["prune_ratio_before"], seen["prune_ratio_after"]) == ((0.3, 0.5) if step == 2 else (0.5, 0.5))
            if prune.settle_due(step):
                prune.settle(step)
        assert prune.answer == Answer(0.25, 0.1, 0.4, flat=False)
        assert prune.prune_ratio == 0.25
        assert run.zeros() == run.counts(0.25)
        assert not prune.round_due(4)
        run.step(6)
        assert run.zeros() == run.counts(0.25)


def test_the_mask_in_force_is_the_one_that_was_committed_whatever_the_books_say(llama: Backbone) -> None:
    with running(llama, Scripted(books=0.4)) as run:
        run.step(1)
        run.step(2)
        run.prune.round(2)
        assert (run.zeros(), run.prune.prune_ratio) == (run.counts(0.5), 0.4)
        run.step(3)
        assert run.zeros() == run.counts(0.5)


def test_a_dev_loss_that_is_not_finite_says_so(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(llama, Curved()) as run:
        for step in range(1, 6):
            run.step(step)
        monkeypatch.setattr(
            probes_module, "candidate_losses", lambda _, examples, masks, __: [[torch.nan] * len(examples)] * len(masks)
        )
        with pytest.raises(PomonaError, match=r"a dev loss is not finite where the search ended: .*diverged"):
            run.prune.settle(5)


def test_a_flat_curve_does_not_ask_the_dev_set(llama: Backbone) -> None:
    with running(llama, Curved(flat=True)) as run:
        for step in range(1, 6):
            run.step(step)
        assert run.prune.settle(5)["dev_check"] == []


def test_candidates_are_probed_under_their_own_masks_and_leave_no_trace(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(llama, Scripted(commits=(None, None), held=True)) as run:
        run.step(1)
        run.step(2)
        before = run.values()
        probed: list[list[int]] = []

        def spy(
            attachment: Attachment, examples: Sequence[Encoded], candidates: Sequence[Mapping[str, torch.Tensor]], max_tokens: int
        ) -> list[list[float]]:
            assert list(examples) == MICRO_DEV
            probed.extend([int((value == 0).sum()) for value in one.values()] for one in candidates)
            return candidate_losses(attachment, examples, candidates, max_tokens)

        monkeypatch.setattr(probes_module, "candidate_losses", spy)
        seen = run.prune.round(2)
        assert probed == [run.counts(0.3), run.counts(0.1), run.counts(0.9)]
        assert all(torch.equal(value, before[name]) for name, value in run.values().items())
        assert seen["mask_change"] is None
        losses = example_losses(llama, MICRO_DEV, 3)
        assert seen["loss_before"] == pytest.approx(sum(losses) / 3, abs=1e-5)
        kept = run.prune.control.rounds[0]
        assert kept.losses_before == pytest.approx(losses, abs=1e-5)
        assert seen["candidates"] == [
            {
                "prune_ratio": p,
                "reward": pytest.approx(sum(kept.losses_before) / 3 - sum(seen_losses(one)) / 3, abs=1e-6),
                "p_value": 0.5,
                "examples": 3,
            }
            for p, one in zip((0.1, 0.9), kept.candidates, strict=True)
        ]
        assert abs(kept.candidates[1].reward) > 1e-4


@pytest.mark.parametrize("held", [True, False])
def test_candidates_are_compared_with_a_fresh_mask_of_the_ratio_in_force(llama: Backbone, held: bool) -> None:
    """What is pruned learns on in its stash, so after eight steps other entries are the lowest than those of the mask in force."""
    with running(llama, Scripted(commits=(None, None), held=held), Pruning(Magnitude())) as run:
        run.optimizer.param_groups[0]["lr"] = 0.1
        for step in (1, 2, 3, 4):
            run.step(step)
        in_force = example_losses(llama, MICRO_DEV, 3)
        kept, fresh = run.values(), run.prune.unpruned()
        with torch.no_grad():
            for path, layer in run.attachment.layers.items():
                assert isinstance(layer, ConcatModule)
                for side, scale in (("A", layer.scale_R[:, None]), ("B", torch.ones(1))):
                    value = fresh[f"{path}.{side}"]
                    lowest = (value * scale).abs().flatten().argsort(stable=True)[: pruned_count(0.3, value.numel())]
                    value.flatten()[lowest] = 0.0
                    run.parameters[f"{path}.{side}"].copy_(value)
        selected_now = example_losses(llama, MICRO_DEV, 3)
        assert max(abs(a - b) for a, b in zip(in_force, selected_now, strict=True)) > 1e-4
        with torch.no_grad():
            for name, value in kept.items():
                run.parameters[name].copy_(value)
        run.prune.round(4)
        found = run.prune.control.rounds[0].losses_before
        assert found == pytest.approx(in_force if held else selected_now, abs=1e-5)
        assert all(torch.equal(value, kept[name]) for name, value in run.values().items())


@dataclass(frozen=True)
class Sparing(Scripted):
    """Tries the second candidate alone of two, or asks after two examples and stops the first."""

    screens: bool = False
    races: bool = False

    @property
    def wants_estimates(self) -> bool:
        return self.screens

    def screen(self, state: ControllerState, estimates: Sequence[float]) -> tuple[bool, ...]:
        assert len(estimates) == 2
        return (False, True)

    def first_part(self, n: int) -> int:
        return 2 if self.races else n

    def continues(
        self, state: ControllerState, losses_before: Sequence[float], losses: Sequence[Sequence[float]]
    ) -> tuple[bool, ...]:
        assert [len(row) for row in (losses_before, *losses)] == [2, 2, 2]
        return (False, True)


def test_a_candidate_that_is_stopped_is_measured_on_the_first_part_only(llama: Backbone) -> None:
    rounds: list[Round] = []
    for controller in (Sparing(races=True), Scripted()):
        with running(llama, controller) as run:
            run.step(1)
            run.step(2)
            seen = run.prune.round(2)
            rounds.append(run.prune.control.rounds[0])
            first = 2 if controller.first_part(3) == 2 else 3
            assert [one["examples"] for one in seen["candidates"]] == [first, 3]  # pyright: ignore[reportGeneralTypeIssues]
    raced, full = rounds
    assert raced.losses_before == pytest.approx(full.losses_before, abs=1e-5)
    stopped, went_on = raced.candidates
    assert stopped.losses[2] is None
    assert seen_losses(stopped) == pytest.approx(seen_losses(full.candidates[0])[:2], abs=1e-5)
    assert seen_losses(went_on) == pytest.approx(seen_losses(full.candidates[1]), abs=1e-5)


def test_a_candidate_that_is_screened_out_is_not_measured(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(llama, Sparing(screens=True)) as run:
        run.step(1)
        run.step(2)
        measured: list[int] = []

        def spy(attachment: Attachment, examples: Sequence[Encoded], candidates: Sequence[Any], most: int) -> list[list[float]]:
            measured.append(len(candidates))
            return candidate_losses(attachment, examples, candidates, most)

        monkeypatch.setattr(probes_module, "candidate_losses", spy)
        run.prune.round(2)
        assert measured == [2]
        assert [one.prune_ratio for one in run.prune.control.rounds[0].candidates] == [0.9]


def test_costs_take_the_place_of_losses(llama: Backbone) -> None:
    """A cost that counts the zeros in force: the candidate at 0.9 is dearer than that at 0.1 by exactly their difference."""
    run: Run

    def zeros(attachment: Attachment, places: Sequence[int]) -> list[float]:
        return [float(sum(run.zeros()) + place) for place in places]

    with running(llama, Scripted(), costs=zeros) as run:
        run.step(1)
        run.step(2)
        run.prune.round(2)
        seen = run.prune.control.rounds[0]
        assert seen.losses_before == tuple(float(sum(run.counts(0.3)) + place) for place in range(3))
        assert [one.losses for one in seen.candidates] == [
            tuple(float(sum(run.counts(p)) + place) for place in range(3)) for p in (0.1, 0.9)
        ]


@dataclass(frozen=True)
class Curved(Scripted):
    """Answers with a curve."""

    flat: bool = False

    def choose(self, state: ControllerState) -> Answer:
        return Answer(
            0.25,
            0.1,
            0.4,
            flat=self.flat,
            curve=(CurvePoint(0.1, -0.2, -0.3, -0.1), CurvePoint(0.25, 0.0, 0.0, 0.0), CurvePoint(0.9, -0.5, -0.6, -0.4)),
        )


def test_the_dev_set_is_asked_at_the_end_of_the_search(llama: Backbone) -> None:
    """The dev loss of the ends of the curve and of the answer, on half as many dev examples as there are for the controller."""
    with running(llama, Curved()) as run:
        for step in range(1, 6):
            run.step(step)
        assert run.prune.settle_due(5)
        settled = run.prune.settle(5)
        assert (settled["step"], settled["prune_ratio"]) == (5, 0.25)
        checked: Any = settled["dev_check"]
        assert [row[:2] for row in checked] == [[0.1, 0.2], [0.25, 0.0], [0.9, 0.5]]
        assert run.zeros() == run.counts(0.25)
        losses = example_losses(llama, DEV[:2], 2)
        assert checked[1][2] == pytest.approx(sum(losses) / 2, abs=1e-5)
        assert not run.prune.settle_due(5)


def test_without_a_curve_the_dev_set_is_not_asked(llama: Backbone) -> None:
    with running(llama, Scripted()) as run:
        for step in range(1, 6):
            run.step(step)
        assert run.prune.settle_due(5)
        settled = run.prune.settle(5)
        assert settled["dev_check"] == []


def test_a_commit_tells_how_many_entries_changed_sides(llama: Backbone) -> None:
    with running(llama, Scripted(commits=(0.5, 0.2))) as run:
        run.step(1)
        run.step(2)
        masks = {name: value == 0 for name, value in run.values().items()}
        seen = run.prune.round(2)
        after = {name: value == 0 for name, value in run.values().items()}
        changed = sum(int((masks[name] ^ after[name]).sum()) for name in masks)
        total = sum(mask.numel() for mask in masks.values())
        assert seen["mask_change"] == pytest.approx(changed / total)
        assert changed >= sum(run.counts(0.5)) - sum(run.counts(0.3))
        newly_pruned = sum(int((after[name] & ~masks[name]).sum()) for name in masks)
        assert seen["newly_pruned"] == pytest.approx(newly_pruned / total)
        assert newly_pruned > changed / 2
        assert run.zeros() == run.counts(0.5)


def test_importance_is_refreshed_each_round_unless_the_controller_says_no(llama: Backbone) -> None:
    """Between the rounds the kept entries are moved so that their order turns round: only fresh scores see it."""
    for refreshes in (True, False):
        with running(llama, Scripted(commits=(0.3, 0.3), refreshes=refreshes), Pruning(Magnitude())) as run:
            run.step(1)
            run.prune.round(2)  # importance that is taken once is taken here
            masks = {name: value == 0 for name, value in run.values().items()}
            with torch.no_grad():
                for name, parameter in run.parameters.items():
                    parameter.copy_(torch.where(masks[name], 0.0, 1e-6 * parameter))  # below every stashed value now
            run.prune.round(4)
            overlap = sum(int((masks[name] & (value == 0)).sum()) for name, value in run.values().items())
            assert overlap == (0 if refreshes else sum(run.counts(0.3)))


def test_importance_that_is_taken_once_is_taken_when_the_first_round_begins(llama: Backbone) -> None:
    """Not at the first mask: the order is turned round between the two."""
    with running(llama, Scripted(commits=(0.3, 0.3), refreshes=False), Pruning(Magnitude())) as run:
        run.step(1)
        masks = {name: value == 0 for name, value in run.values().items()}
        with torch.no_grad():
            for name, parameter in run.parameters.items():
                parameter.copy_(torch.where(masks[name], 0.0, 1e-6 * parameter))
        run.prune.round(2)
        assert not any((masks[name] & (value == 0)).any() for name, value in run.values().items())


def test_a_search_that_starts_unpruned_has_no_mask_before_a_round_commits_one(llama: Backbone) -> None:
    with running(llama, Scripted(commits=(None, 0.5), unpruned=True, held=True)) as run:
        for step in (1, 2, 3, 4, 5):
            run.step(step)
            assert sum(run.zeros()) == (sum(run.counts(0.5)) if step == 5 else 0)
            assert run.prune.prune_ratio == (0.5 if step == 5 else 0.3)  # in the books
            if run.prune.round_due(step):
                losses = example_losses(llama, MICRO_DEV, 3)
                run.prune.round(step)
                assert run.prune.control.rounds[-1].losses_before == pytest.approx(losses, abs=1e-5)


def test_a_given_ratio_is_in_force_from_the_first_step_without_rounds(llama: Backbone) -> None:
    with running(llama, Fixed(0.4), micro_dev=()) as run:
        assert run.prune.answer == Answer(0.4, 0.4, 0.4, flat=False)
        for step in (1, 2, 3):
            run.step(step)
            assert run.zeros() == run.counts(0.4)
            assert not run.prune.round_due(step)


def test_reselection_lets_what_was_pruned_compete_again(llama: Backbone) -> None:
    """ALM's regime: masks follow the weights, since a reset entry may grow again. It has one step to do so, hence the high rate."""
    with running(llama, Fixed(0.5), micro_dev=()) as run:
        run.optimizer.param_groups[0]["lr"] = 0.2
        run.step(1)
        first = {name: value == 0 for name, value in run.values().items()}
        for step in range(2, 7):
            run.step(step)
        last = {name: value == 0 for name, value in run.values().items()}
        assert any(not torch.equal(first[name], last[name]) for name in first)


def test_between_selections_nothing_is_zeroed_but_the_end_of_an_epoch_is_exact(llama: Backbone) -> None:
    with running(llama, Fixed(0.5), Pruning(interval_steps=3), micro_dev=()) as run:
        expected = {1: 0.0, 2: 0.0, 3: 0.5, 4: None, 5: 0.5, 6: 0.5}
        for step, ratio in expected.items():
            run.step(step, last_of_epoch=step == 5)
            if ratio is None:
                assert sum(run.zeros()) < sum(run.counts(0.5)) // 10  # regrown
            else:
                assert run.zeros() == run.counts(ratio)


def test_importance_is_the_mean_score_of_kept_entries(llama: Backbone) -> None:
    with running(llama, Fixed(0.5), Pruning(Magnitude()), micro_dev=()) as run:
        run.step(1)
        for path, mean in run.prune.importance().items():
            layer = run.attachment.layers[path]
            assert isinstance(layer, ConcatModule)
            A = (layer.A.detach() * layer.scale_R[:, None]).abs()
            B = layer.B.detach().abs()
            kept = torch.cat([A[A > 0], B[B > 0]])
            assert len(kept) == A.numel() + B.numel() - pruned_count(0.5, A.numel()) - pruned_count(0.5, B.numel())
            assert mean == pytest.approx(float(kept.mean()), rel=1e-6)
    with running(llama, Fixed(1.0), micro_dev=()) as run:
        run.step(1)
        assert set(run.prune.importance().values()) == {0.0}


def test_what_was_reset_to_its_start_is_not_kept(llama: Backbone) -> None:
    """The mask says what is kept, where pruned entries are not zero; and the importance is that of the weights as they are."""
    for metric in (Magnitude(), DeltaSensitivity()):
        with running(llama, Fixed(0.5), Pruning(metric, reset="initial"), micro_dev=()) as run:
            initial = run.values()
            run.step(1)
            for path, mean in run.prune.importance().items():
                layer = run.attachment.layers[path]
                scores = metric.scores(layer.effective(), run.statistics[path])
                kept = [run.parameters[f"{path}.{side}"] != initial[f"{path}.{side}"] for side in "AB"]
                assert sum(int(side.sum()) for side in kept) == sum(pruned_count(0.5, side.numel()) for side in kept)
                assert mean == pytest.approx(float(torch.cat([one[side] for one, side in zip(scores, kept, strict=True)]).mean()))


def test_learning_without_micro_dev_examples_is_an_input_error(llama: Backbone) -> None:
    with pytest.raises(InputError, match=r"^micro_dev: a controller that learns"), running(llama, Scripted(), micro_dev=()):
        pass


@pytest.mark.parametrize("controller", [Scripted(), Scripted(refreshes=False), Fixed(0.5)])
@pytest.mark.parametrize("stop", [1, 2, 4, 5, 6])
def test_what_a_checkpoint_holds_is_enough_to_go_on(llama: Backbone, tmp_path: Path, controller: Controller, stop: int) -> None:
    def go(run: Run, first: int, last: int) -> None:
        for step in range(first, last + 1):
            run.step(step)
            if run.prune.round_due(step):
                run.prune.round(step)
            if run.prune.settle_due(step):
                run.prune.settle(step)

    with running(llama, controller) as run:
        go(run, 1, stop)
        factors, optimizer = run.values(), copy.deepcopy(run.optimizer.state_dict())
        statistics, prune = run.statistics.state, run.prune.state
        save_checkpoint(tmp_path / "state.safetensors", {"statistics": statistics, "prune": prune})
        go(run, stop + 1, 8)
        expected, control, answer = run.values(), run.prune.control, run.prune.answer
    with running(llama, controller) as run:
        with torch.no_grad():
            for name, parameter in run.parameters.items():
                parameter.copy_(factors[name])
        run.optimizer.load_state_dict(optimizer)
        found = load_checkpoint(tmp_path / "state.safetensors", torch.device("cpu"))
        run.statistics.state, run.prune.state = found["statistics"], typed(PruneState, found["prune"])
        go(run, stop + 1, 8)
        assert all(torch.equal(value, expected[name]) for name, value in run.values().items())
        assert run.prune.control == control
        assert run.prune.answer == answer
