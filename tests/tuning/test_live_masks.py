"""Masks on live parameters against cases worked by hand: one module with A [2, 3] and B [2, 2], scored by magnitude."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.pretended_device import move, pretended_device
from tests.tuning.runs import through_a_checkpoint
from torch import Tensor, nn

from pomona.adapters import Factors
from pomona.backbone.attach import Attachment
from pomona.backbone.batches import Encoded, collate
from pomona.backbone.trainable.concat import ConcatModule
from pomona.backbone.trainable.linear import LinearModule
from pomona.control import Handling
from pomona.importance import DeltaSensitivity, Magnitude, Wanda
from pomona.pruning import pruned_count
from pomona.tuning.live_masks import LiveMasks
from pomona.tuning.settings import Pruning
from pomona.tuning.statistics import Statistics

A_RI = torch.tensor([[1.0, -2.0, 3.0], [-4.0, 5.0, 6.0]])
B_OR = torch.tensor([[0.1, -0.2], [0.3, 0.4]])
BY_MAGNITUDE = Pruning(Magnitude())
ONE_TOKEN = collate([Encoded((1,), 0)], 0, torch.device("cpu"))


class Table:
    """A module on the operating table, with its optimizer."""

    def __init__(
        self,
        A: Tensor = A_RI,
        B: Tensor = B_OR,
        scaling: float = 1.0,
        pruning: Pruning = BY_MAGNITUDE,
        steps: int = 1,
        gradients: bool = False,
        handling: Handling | None = None,
    ) -> None:
        self.layer = layer = ConcatModule("m", nn.Linear(A.shape[1], B.shape[0]), [Factors(A, B, scaling)], [1.0], 0.0)
        self.attachment = Attachment(None, {"m": layer})  # pyright: ignore[reportArgumentType]
        self.statistics = Statistics(self.attachment, pruning, [], 1, gradients)
        self.A, self.B = layer.A, layer.B
        self.optimizer = torch.optim.AdamW([layer.A, layer.B], lr=0.5, weight_decay=0.0)
        self.live = LiveMasks(self.attachment, pruning, self.statistics, self.optimizer, handling)
        kept = [layer.A.detach().clone(), layer.B.detach().clone()]
        for _ in range(steps):  # moments of every entry, as a training step leaves them
            self.step()
        with torch.no_grad():
            layer.A.copy_(kept[0])
            layer.B.copy_(kept[1])

    def step(self) -> None:
        for parameter in (self.A, self.B):
            parameter.grad = torch.ones_like(parameter)
        self.statistics.after_backward()
        self.optimizer.step()

    def moments(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
        state = self.optimizer.state[parameter]
        return state["exp_avg"], state["exp_avg_sq"]

    def masks(self, A: list[list[int]], B: list[list[int]]) -> dict[str, Tensor]:
        return {"m.A": torch.tensor(A, dtype=torch.bool), "m.B": torch.tensor(B, dtype=torch.bool)}


FIRST = ([[1, 1, 0], [0, 0, 0]], [[1, 0], [0, 0]])
SECOND = ([[0, 1, 1], [0, 0, 0]], [[0, 1], [0, 0]])
NONE = ([[0, 0, 0], [0, 0, 0]], [[0, 0], [0, 0]])


def test_holding_a_mask_zeroes_exactly_its_entries_and_their_moments() -> None:
    table = Table()
    changed = table.live.hold(table.masks(*FIRST))
    assert table.A.tolist() == [[0.0, 0.0, 3.0], [-4.0, 5.0, 6.0]]
    assert torch.equal(table.B, torch.tensor([[0.0, -0.2], [0.3, 0.4]]))
    assert changed == (3 / 10, 3 / 10)
    for parameter, mask in zip((table.A, table.B), FIRST, strict=True):
        for moment in table.moments(parameter):
            assert torch.equal(moment == 0, torch.tensor(mask, dtype=torch.bool))


def test_the_first_order_estimate_is_the_gradient_times_what_a_mask_changes() -> None:
    table = Table(scaling=2.0, gradients=True)
    # The gradient is 1 by every parameter; by an entry of the merged A, twice the parameter, 1/2.
    assert table.live.first_order(table.masks(*FIRST)) == pytest.approx(-(2 * 1 - 2 * 2) / 2 - 0.1)
    table.live.hold(table.masks(*FIRST))
    assert table.live.first_order(table.masks(*NONE)) == pytest.approx((2 * 1 - 2 * 2) / 2 + 0.1)
    assert table.live.first_order(table.masks(*FIRST)) == 0.0


def test_another_mask_revives_what_it_frees_bit_for_bit() -> None:
    A, B = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)), B_OR / 3
    table = Table(A, B)
    table.live.hold(table.masks(*FIRST))
    changed = table.live.hold(table.masks(*SECOND))
    # A: entry 0 comes back, entry 1 stays, entry 2 goes; B: entry 0 comes back, entry 1 goes.
    assert changed == (4 / 10, 2 / 10)
    assert torch.equal(table.A, A.masked_fill(torch.tensor(SECOND[0], dtype=torch.bool), 0.0))
    assert torch.equal(table.B, B.masked_fill(torch.tensor(SECOND[1], dtype=torch.bool), 0.0))
    # A revived entry starts without momentum; one that was never pruned keeps its own.
    assert (table.moments(table.A)[0] == 0).tolist() == [[True, True, True], [False, False, False]]
    assert table.live.hold(table.masks(*NONE)) == (3 / 10, 0.0)
    assert torch.equal(table.A, A)
    assert torch.equal(table.B, B)


def test_the_stash_outlives_training_steps_that_the_mask_forbids() -> None:
    table = Table()
    table.live.hold(table.masks(*FIRST))
    for _ in range(3):
        table.step()
        assert table.A[0, 0].item() != 0.0  # the optimizer has moved it
        table.live.enforce()
        assert table.A.flatten()[:2].tolist() == [0.0, 0.0]
        assert table.moments(table.A)[0].flatten()[:2].tolist() == [0.0, 0.0]
        assert table.moments(table.A)[1].flatten()[:2].tolist() == [0.0, 0.0]
    grown = table.A.detach().clone()
    table.live.hold(table.masks(*NONE))
    assert table.A[0, :2].tolist() == [1.0, -2.0]
    assert torch.equal(table.A.flatten()[2:], grown.flatten()[2:])


@pytest.mark.parametrize("reset", ["zero", "initial"])
def test_with_feedback_the_stash_takes_the_steps_that_the_mask_forbids(reset: Any) -> None:
    """AdamW by hand: moments cleared when the entry was pruned, the count of steps its parameter's."""
    table = Table(pruning=Pruning(Magnitude(), reset=reset))
    table.live.hold(table.masks(*FIRST))
    at_rest = table.A.flatten()[:2].tolist()
    first = second = moved = 0.0
    for step, gradient in ((2, 1.0), (3, -3.0), (4, 0.5)):
        table.A.grad, table.B.grad = torch.full_like(table.A, gradient), torch.full_like(table.B, gradient)
        table.optimizer.step()
        table.live.enforce(feedback=True)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        moved -= 0.5 * first / (1 - 0.9**step) / (math.sqrt(second / (1 - 0.999**step)) + 1e-8)
        assert table.A.flatten()[:2].tolist() == at_rest
        assert table.live.unpruned()["m.A"].flatten()[:2].tolist() == pytest.approx([1.0 + moved, -2.0 + moved])
    assert table.moments(table.A)[0].flatten()[0].item() == pytest.approx(first)
    grown = table.A.detach().clone()
    table.live.hold(table.masks(*SECOND))  # entry 0 comes back with what it has learned, entry 2 goes
    assert table.A[0, 0].item() == pytest.approx(1.0 + moved)
    assert torch.equal(table.A[1], grown[1])
    # What comes back keeps its moments; those of what stays pruned, or goes, are cleared.
    assert (table.moments(table.A)[0] == 0).tolist() == [[False, True, True], [False, False, False]]


def test_feedback_moves_nothing_that_is_not_pruned() -> None:
    plain, fed = Table(), Table()
    for table in (plain, fed):
        table.live.hold(table.masks(*FIRST))
        for _ in range(3):
            table.step()
            table.live.enforce(feedback=table is fed)
    assert torch.equal(plain.A, fed.A)
    assert torch.equal(plain.B, fed.B)
    kept = ~torch.tensor(FIRST[0], dtype=torch.bool)
    assert torch.equal(plain.live.unpruned()["m.A"][kept], fed.live.unpruned()["m.A"][kept])
    assert torch.equal(plain.moments(plain.A)[1][kept], fed.moments(fed.A)[1][kept])


def test_scores_see_pruned_entries_at_their_stashed_value() -> None:
    table = Table()
    before = table.live.scores()
    table.live.hold(table.masks(*FIRST))
    after = table.live.scores()
    for scores in (before["m"], after["m"]):
        assert torch.equal(scores.A, A_RI.abs())
        assert torch.equal(scores.B, B_OR.abs())


def test_scores_are_measured_with_the_scaling_in_a() -> None:
    """y = B (s A x): the hidden norm that scores B includes s, and so must the A that it is the norm of."""
    table = Table(scaling=3.0, pruning=Pruning(Wanda()))
    x_I = torch.tensor([1.0, 2.0, 0.5])
    table.statistics.before_forward(ONE_TOKEN)
    table.layer(x_I[None, None])
    table.statistics.after_forward()
    table.statistics.after_backward()
    scores = table.live.scores()["m"]
    torch.testing.assert_close(scores.A, 3 * A_RI.abs() * x_I)
    torch.testing.assert_close(scores.B, B_OR.abs() * (3 * A_RI @ x_I).abs())


def test_a_trial_shows_the_other_mask_and_leaves_no_trace() -> None:
    table = Table()
    table.live.hold(table.masks(*FIRST))
    stores = [parameter.data_ptr() for parameter in (table.A, table.B)]
    before = [parameter.detach().clone() for parameter in (table.A, table.B)]
    moments = [moment.clone() for parameter in (table.A, table.B) for moment in table.moments(parameter)]
    state = copy.deepcopy(table.live.state)
    with table.live.trial(table.masks(*SECOND)):
        assert table.A.tolist() == [[1.0, 0.0, 0.0], [-4.0, 5.0, 6.0]]
        assert torch.equal(table.B, torch.tensor([[0.1, 0.0], [0.3, 0.4]]))
    assert all(torch.equal(parameter, value) for parameter, value in zip((table.A, table.B), before, strict=True))
    assert [parameter.data_ptr() for parameter in (table.A, table.B)] == stores
    left = [moment for parameter in (table.A, table.B) for moment in table.moments(parameter)]
    assert all(torch.equal(moment, value) for moment, value in zip(left, moments, strict=True))
    for now, then in ((table.live.state.masks, state.masks), (table.live.state.stash, state.stash)):
        assert all(torch.equal(value, then[name]) for name, value in now.items())


def test_a_trial_that_raises_leaves_no_trace() -> None:
    table = Table()
    table.live.hold(table.masks(*FIRST))
    before = [parameter.detach().clone() for parameter in (table.A, table.B)]

    def interrupted() -> None:
        with table.live.trial(table.masks(*SECOND)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert all(torch.equal(parameter, value) for parameter, value in zip((table.A, table.B), before, strict=True))
    assert table.live.hold(table.masks(*NONE)) == (3 / 10, 0.0)
    assert torch.equal(table.A, A_RI)


def test_reselect_prunes_the_lowest_as_they_are_now() -> None:
    """What was pruned competes with what it has grown to, not with its stash."""
    table = Table()
    table.live.hold(table.masks(*FIRST))
    with torch.no_grad():
        table.A[0, 0] = 9.0  # has grown above all; its stash was 1
        table.A[0, 1] = 0.5  # has grown, but is the lowest still; its stash was 2
    table.live.reselect(1 / 3)
    assert table.A.tolist() == [[9.0, 0.0, 0.0], [-4.0, 5.0, 6.0]]
    assert torch.equal(table.B, torch.tensor([[0.0, -0.2], [0.3, 0.4]]))
    assert (table.moments(table.A)[0] == 0).tolist() == [[True, True, True], [False, False, False]]
    table.live.reselect(0.0)  # nothing waits in a stash
    assert table.A.tolist() == [[9.0, 0.0, 0.0], [-4.0, 5.0, 6.0]]


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0, 1),
    st.integers(1, 5),
    st.integers(1, 7),
    st.integers(1, 6),
    st.integers(0, 1000),
)
def test_reselect_and_hold_prune_exactly_the_count_of_every_factor(
    prune_ratio: float, rank: int, in_features: int, out_features: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Few different values, so that ties are common; none is zero.
    A = torch.randint(1, 4, (rank, in_features), generator=generator).float()
    B = torch.randint(1, 4, (out_features, rank), generator=generator).float()
    for holding in (False, True):
        table = Table(A, B)
        if holding:
            table.live.hold(table.live.select(table.live.scores(), prune_ratio))
        else:
            table.live.reselect(prune_ratio)
        for parameter, start in ((table.A, A), (table.B, B)):
            zeros = parameter == 0
            assert int(zeros.sum()) == pruned_count(prune_ratio, parameter.numel())
            assert torch.equal(parameter[~zeros], start[~zeros])
            if zeros.any() and not zeros.all():
                assert start[zeros].max() <= start[~zeros].min()


def test_reselect_leaves_the_masks_that_were_handed_in_alone() -> None:
    table = Table()
    masks = table.masks(*FIRST)
    table.live.hold(masks)
    table.live.reselect(0.0)
    assert all(torch.equal(masks[name], value) for name, value in table.masks(*FIRST).items())


def test_kept_scores_decide_what_is_pruned_of_an_earlier_step_too() -> None:
    table = Table()
    earlier = {"m.A": A_RI.flip(1), "m.B": B_OR}
    assert (table.live.pruned(earlier, 1 / 6)["m.A"] == 0).tolist() == [[False, False, True], [False, False, False]]
    table.live.keep_scores()
    assert (table.live.pruned(earlier, 1 / 6)["m.A"] == 0).tolist() == [[True, False, False], [False, False, False]]


def test_kept_scores_stay_until_a_reselection() -> None:
    table = Table()
    table.live.keep_scores()
    with torch.no_grad():
        table.A.copy_(A_RI.flip(1))
    assert torch.equal(table.live.scores()["m"].A, A_RI.abs())
    table.live.reselect(1 / 6)
    assert torch.equal(table.A == 0, A_RI.flip(1) == 1.0)
    assert torch.equal(table.live.scores()["m"].A, table.A.detach().abs())


@pytest.mark.parametrize("kept", [False, True])
def test_the_state_goes_through_a_checkpoint(tmp_path: Path, kept: bool) -> None:
    table, other = Table(), Table()
    if kept:
        table.live.keep_scores()
    table.live.hold(table.masks(*FIRST))
    with torch.no_grad():
        other.A.copy_(table.A)
        other.B.copy_(table.B)
        other.A[1, 2] = 7.5
    other.live.state = through_a_checkpoint(table.live.state, tmp_path)
    assert float(other.live.scores()["m"].A[1, 2]) == (6.0 if kept else 7.5)
    assert other.live.hold(other.masks(*NONE)) == (3 / 10, 0.0)
    assert other.A.tolist() == [[1.0, -2.0, 3.0], [-4.0, 5.0, 7.5]]
    assert torch.equal(other.B, B_OR)


def test_an_optimizer_that_has_not_stepped_yet() -> None:
    table = Table(steps=0)
    table.live.hold(table.masks(*FIRST))
    assert table.A.tolist() == [[0.0, 0.0, 3.0], [-4.0, 5.0, 6.0]]


# Reset to the start -----------------------------------------------------------------------------------------------------


def test_pruned_entries_go_back_to_where_they_began_and_are_revived_from_there() -> None:
    table = Table(pruning=Pruning(Magnitude(), reset="initial"))
    with torch.no_grad():
        table.A.mul_(10)
    table.live.hold(table.masks(*FIRST))
    assert table.A.tolist() == [[1.0, -2.0, 30.0], [-40.0, 50.0, 60.0]]
    assert (table.moments(table.A)[0] == 0).tolist() == [[True, True, False], [False, False, False]]
    assert table.live.scores()["m"].A.tolist() == [[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]]
    with table.live.trial(table.masks(*SECOND)):
        assert table.A.tolist() == [[10.0, -2.0, 3.0], [-40.0, 50.0, 60.0]]
    table.step()
    table.live.enforce()
    assert table.A[0, :2].tolist() == [1.0, -2.0]
    table.live.hold(table.masks(*NONE))
    assert table.A[0, :2].tolist() == [10.0, -20.0]


def test_reselection_lets_what_was_reset_to_its_start_compete_with_that() -> None:
    table = Table(pruning=Pruning(Magnitude(), reset="initial"))
    with torch.no_grad():
        table.A.copy_(torch.tensor([[0.1, 0.2, 9.0], [9.0, 9.0, 0.3]]))
    table.live.reselect(0.5)
    assert torch.equal(table.A, torch.tensor([[1.0, -2.0, 9.0], [9.0, 9.0, 6.0]]))
    assert torch.equal(table.live.scores()["m"].A, table.A.detach().abs())
    table.live.reselect(1 / 6)  # the first is the lowest still, at 1; the others are free
    assert torch.equal(table.A, torch.tensor([[1.0, -2.0, 9.0], [9.0, 9.0, 6.0]]))
    assert table.live.state.masks["m.A"].tolist() == [[True, False, False], [False, False, False]]


def test_the_start_goes_through_a_checkpoint(tmp_path: Path) -> None:
    """Whatever the factors are where a run goes on."""
    pruning = Pruning(Magnitude(), reset="initial")
    table, other = Table(pruning=pruning), Table(A=A_RI * 7, pruning=pruning)
    table.live.hold(table.masks(*FIRST))
    other.live.state = through_a_checkpoint(table.live.state, tmp_path)
    other.live.enforce()
    assert other.A.tolist() == [[1.0, -2.0, 21.0], [-28.0, 35.0, 42.0]]


# Sums -------------------------------------------------------------------------------------------------------------------


def test_a_mask_of_a_sum_is_in_force_for_each_adapter() -> None:
    """Weights 1 and 4: the sums are A_1 + 2 A_2 and B_1 + 2 B_2. Entries that cancel are the lowest, however large they are."""
    A_1, B_1 = torch.tensor([[4.0, 1.0, 3.0]]), torch.tensor([[1.0], [8.0]])
    A_2, B_2 = torch.tensor([[-2.0, 1.0, 0.5]]), torch.tensor([[1.0], [-4.0]])
    layer = LinearModule("m", nn.Linear(3, 2), [Factors(A_1, B_1), Factors(A_2, B_2)], [1.0, 4.0], 0.0)
    attachment = Attachment(None, {"m": layer})  # pyright: ignore[reportArgumentType]
    optimizer = torch.optim.AdamW([layer.A, layer.B], lr=1e-9, weight_decay=0.0)
    layer.A.grad, layer.B.grad = torch.ones_like(layer.A), torch.ones_like(layer.B)
    optimizer.step()
    live = LiveMasks(attachment, BY_MAGNITUDE, Statistics(attachment, BY_MAGNITUDE, [], 1), optimizer)
    torch.testing.assert_close(live.scores()["m"].A, torch.tensor([[0.0, 3.0, 4.0]]), atol=1e-5, rtol=0)
    before = layer.A.detach().clone(), layer.B.detach().clone()
    changed = live.hold(live.select(live.scores(), 0.5))
    assert changed.changed == 2 / 5
    assert (layer.A == 0).tolist() == [[[True, False, False]]] * 2
    assert (layer.B == 0).tolist() == [[[False], [True]]] * 2
    assert (optimizer.state[layer.A]["exp_avg"] == 0).tolist() == [[[True, False, False]]] * 2
    effective = layer.effective()
    assert (effective.A == 0).tolist() == [[True, False, False]]
    live.hold({name: torch.zeros_like(mask) for name, mask in live.select(live.scores(), 0.0).items()})
    assert torch.equal(layer.A, before[0])
    assert torch.equal(layer.B, before[1])


# As the published code does ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_commits_only", [False, True])
@pytest.mark.parametrize("restarts", [False, True])
def test_what_becomes_of_moments_and_of_the_step_counter(at_commits_only: bool, restarts: bool) -> None:
    """AdamW's moments by hand: a gradient of 1 before each of two commits and after each."""
    table = Table(handling=Handling(clears_moments_at_commits_only=at_commits_only, restarts_adam=restarts))
    live, counters = table.live, [table.optimizer.state[one]["step"] for one in (table.A, table.B)]
    live.hold(table.masks(*FIRST))
    assert [float(one) for one in counters] == [0.0 if restarts else 1.0] * 2
    assert table.moments(table.A)[0][0].tolist() == pytest.approx([0.0, 0.0, 0.1])
    table.step()
    live.enforce()
    assert table.A[0, :2].tolist() == [0.0, 0.0]
    since_commit = 0.1 if at_commits_only else 0.0
    assert table.moments(table.A)[0][0].tolist() == pytest.approx([since_commit, since_commit, 0.19])
    live.hold(table.masks(*SECOND))  # entry 0 comes back, 1 stays, 2 goes
    assert table.moments(table.A)[0][0].tolist() == pytest.approx([since_commit, since_commit, 0.0])
    assert [float(one) for one in counters] == [0.0 if restarts else 2.0] * 2
    table.step()
    assert float(table.optimizer.state[table.A]["step"]) == (1.0 if restarts else 3.0)
    live.reselect(0.5)  # ALM's regime clears them in any case
    assert torch.equal(table.moments(table.A)[0] == 0, table.A == 0)


def test_ties_are_pruned_where_the_settings_say_so() -> None:
    A = torch.tensor([[1.0, -1.0, 1.0], [2.0, 3.0, 4.0]])
    for prunes_ties, expected in ((False, 1), (True, 3)):
        table = Table(A=A, pruning=Pruning(Magnitude(), prunes_ties=prunes_ties))
        table.live.hold(table.live.select(table.live.scores(), 1 / 6))
        assert int((table.A == 0).sum()) == expected


# Masks by adapter -------------------------------------------------------------------------------------------------------


class Summed:
    """Weights 1 and 4, ranks 1 and 2: A_1 [1, 3], A_2 [2, 3] and so on, as A [2, 2, 3]; row 1 of adapter 0 pads it."""

    def __init__(self, pruning: Pruning) -> None:
        first = Factors(torch.tensor([[4.0, 1.0, 3.0]]), torch.tensor([[1.0], [8.0]]))
        second = Factors(torch.tensor([[-2.0, 1.0, 0.5], [7.0, 9.0, 8.0]]), torch.tensor([[1.0, 0.2], [-4.0, 0.1]]))
        self.layer = LinearModule("m", nn.Linear(3, 2), [first, second], [1.0, 4.0], 0.0)
        self.attachment = Attachment(None, {"m": self.layer})  # pyright: ignore[reportArgumentType]
        optimizer = torch.optim.AdamW([self.layer.A, self.layer.B], lr=1e-9, weight_decay=0.0)
        self.live = LiveMasks(self.attachment, pruning, Statistics(self.attachment, pruning, [], 1), optimizer)


@pytest.mark.parametrize("prunes_ties", [False, True])
def test_adapters_of_a_sum_may_have_masks_of_their_own(tmp_path: Path, prunes_ties: bool) -> None:
    """Of each adapter's own factors half go, and no two lose the same entries: the sum keeps what one of them keeps."""
    table = Summed(Pruning(Magnitude(), masks="adapter", prunes_ties=prunes_ties))
    layer, live = table.layer, table.live
    before = layer.A.detach().clone(), layer.B.detach().clone()
    # Of 3, 6, 2 and 4 entries 1, 3, 1 and 2 go; nothing ties; padding is no entry.
    changed = live.hold(live.select(live.scores(), 0.5))
    assert changed == (7 / 15, 7 / 15)
    assert layer.A.tolist() == [[[4.0, 0.0, 3.0], [0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [7.0, 9.0, 8.0]]]
    expected = [[[0.0, 0.0], [8.0, 0.0]], [[1.0, 0.0], [-4.0, 0.0]]]
    torch.testing.assert_close(layer.B, torch.tensor(expected))
    assert [int((~mask).sum()) for mask in live.state.masks.values()] == [5, 3]
    effective = layer.effective()
    assert (effective.A == 0).tolist() == [[False, True, False], [False, False, False]]
    other = Summed(Pruning(Magnitude(), masks="adapter"))
    other.live.state = through_a_checkpoint(live.state, tmp_path)
    other.live.enforce()
    assert torch.equal(other.layer.A, layer.A)
    assert live.hold(live.select(live.scores(), 0.0)) == (7 / 15, 0.0)
    assert torch.equal(layer.A, before[0])
    assert torch.equal(layer.B, before[1])


def test_a_reselection_by_adapter_is_of_each_adapter_s_factors_as_they_are_now() -> None:
    table = Summed(Pruning(Magnitude(), masks="adapter"))
    table.live.reselect(1 / 3)
    table.live.reselect(1 / 3)
    assert (table.layer.A == 0).tolist() == [[[False, True, False], [True] * 3], [[False, True, True], [False] * 3]]


def test_adapters_side_by_side_with_sensitivities_of_the_merged_update() -> None:
    """The scores are slices of the merged update's; each adapter loses half of its own."""
    first, second = Factors(A_RI, B_OR), Factors(A_RI.flip(1), B_OR.flip(0))
    pruning = Pruning(DeltaSensitivity())
    layer = ConcatModule("m", nn.Linear(3, 2), [first, second], [1.0, 0.01], 0.0)
    attachment = Attachment(None, {"m": layer})  # pyright: ignore[reportArgumentType]
    statistics = Statistics(attachment, pruning, [], 1)
    statistics.before_forward(ONE_TOKEN)
    layer(torch.tensor([[[1.0, 2.0, 0.5]]]))
    statistics.after_forward()
    statistics.after_backward()
    live = LiveMasks(attachment, pruning, statistics, torch.optim.AdamW([layer.A, layer.B]))
    merged = DeltaSensitivity().scores(layer.effective(), statistics["m"])
    assert torch.equal(live.scores()["m"].A, merged[0])
    masks = live.select(live.scores(), 0.5)
    assert [int(part.sum()) for part in masks["m.A"].split(2)] == [3, 3]
    assert [int(part.sum()) for part in masks["m.B"].split(2, dim=1)] == [2, 2]


@pytest.mark.parametrize("modules", [1, 8])
def test_a_commit_on_a_gpu_is_waited_for_once_and_asks_as_much_of_it_for_any_number_of_modules(modules: int) -> None:
    layers = {
        f"m{place}": ConcatModule(f"m{place}", nn.Linear(3, 2), [Factors(A_RI, B_OR)], [1.0], 0.0) for place in range(modules)
    }
    attachment = Attachment(None, layers)  # pyright: ignore[reportArgumentType]
    with pretended_device() as device:
        for layer in layers.values():
            move(layer)
        parameters = list(attachment.parameters().values())
        optimizer = torch.optim.AdamW(parameters, fused=True)
        live = LiveMasks(attachment, BY_MAGNITUDE, Statistics(attachment, BY_MAGNITUDE, [], 1), optimizer)
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        live.hold(live.select(live.scores(), 0.0))  # the moments move into the stacks
        masks = live.select(live.scores(), 0.5)
        device.reset()
        change = live.hold(masks)
        counts = device.reset()
    assert change == (0.5, 0.5)
    assert counts.synchronisations == 1
    assert counts.kernels <= 2 * 18  # of each factor
