from __future__ import annotations

import math
from typing import NamedTuple

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pomona.pruning import commit, pruned_count, restored, select_lowest, trial_values

T, F = True, False
# Zeros among the values: an entry that is pruned while it is 0 must still be told apart by the mask.
ENTRY = st.sampled_from([0.0, -0.0, 1.0, -2.5, 3.25, 1e-30])


def _bool(*values: bool) -> Tensor:
    return torch.tensor(values)


class Held(NamedTuple):
    """Weights with a mask in force, their stash, another mask, and what pruned entries are reset to."""

    W: Tensor
    mask: Tensor
    stash: Tensor
    other: Tensor
    reset: Tensor | None


@st.composite
def held(draw: st.DrawFn) -> Held:
    """Flat weights, or a stack of several under one mask."""
    n = draw(st.integers(1, 12))
    shape = draw(st.sampled_from([(n,), (1, n), (3, n)]))

    def entries() -> Tensor:
        size = math.prod(shape)
        return torch.tensor(draw(st.lists(ENTRY, min_size=size, max_size=size))).reshape(shape)

    mask, other = (torch.tensor(draw(st.lists(st.booleans(), min_size=n, max_size=n))) for _ in range(2))
    reset = entries() if draw(st.booleans()) else None
    W, stash, _ = commit(entries(), torch.zeros(n, dtype=torch.bool), torch.zeros(shape), mask, reset)
    return Held(W, mask, stash, other, reset)


def _bits(tensor: Tensor) -> Tensor:
    return tensor.view(torch.int32)


def _bits_of(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.bool else _bits(tensor)


def test_commit_by_hand() -> None:
    W = torch.tensor([1.0, 2.0, 0.0, 0.0])
    mask = _bool(F, F, T, T)
    stash = torch.tensor([0.0, 0.0, 3.0, 4.0])
    new_mask = _bool(F, T, T, F)
    after = commit(W, mask, stash, new_mask)
    assert after.W.tolist() == [1.0, 0.0, 0.0, 4.0]
    assert after.stash.tolist() == [0.0, 2.0, 3.0, 0.0]
    assert after.newly_pruned.tolist() == [F, T, F, F]
    assert restored(W, mask, stash).tolist() == [1.0, 2.0, 3.0, 4.0]
    assert trial_values(W, mask, stash, new_mask).tolist() == after.W.tolist()


def test_reset_to_given_values_by_hand() -> None:
    start = torch.tensor([[9.0, 8.0, 7.0], [6.0, 5.0, 4.0]])
    W = torch.tensor([[1.0, 8.0, 3.0], [-1.0, 5.0, -3.0]])
    mask, stash = _bool(F, T, F), torch.tensor([[0.0, 2.0, 0.0], [0.0, -2.0, 0.0]])
    after = commit(W, mask, stash, _bool(T, F, F), start)
    assert after.W.tolist() == [[9.0, 2.0, 3.0], [6.0, -2.0, -3.0]]
    assert after.stash.tolist() == [[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]
    assert after.newly_pruned.tolist() == [T, F, F]
    assert trial_values(W, mask, stash, _bool(T, F, F), start).tolist() == after.W.tolist()
    assert restored(W, mask, stash).tolist() == [[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]]


def test_a_pruned_weight_that_an_optimizer_moved_does_not_leak() -> None:
    W, mask, stash = torch.tensor([1.0, 9.0]), _bool(F, T), torch.tensor([0.0, 2.0])
    assert restored(W, mask, stash).tolist() == [1.0, 2.0]
    assert commit(W, mask, stash, _bool(F, F)).W.tolist() == [1.0, 2.0]


@given(held())
@settings(deadline=None, max_examples=100)
def test_commit_there_and_back_restores_everything(case: Held) -> None:
    W, mask, stash, other, reset = case
    there = commit(W, mask, stash, other, reset)
    back = commit(there.W, other, there.stash, mask, reset)
    assert torch.equal(_bits(back.W), _bits(W))
    assert torch.equal(_bits(back.stash), _bits(stash))
    assert torch.equal(there.newly_pruned | back.newly_pruned, mask ^ other)
    assert not (there.newly_pruned & back.newly_pruned).any()


@given(held())
@settings(deadline=None, max_examples=100)
def test_trial_is_what_commit_would_give_and_changes_no_input(case: Held) -> None:
    given_tensors = [tensor for tensor in case if tensor is not None]
    copies = [tensor.clone() for tensor in given_tensors]
    W, mask, stash, other, reset = case
    trial = trial_values(W, mask, stash, other, reset)
    after = commit(W, mask, stash, other, reset)
    assert torch.equal(_bits(trial), _bits(after.W))
    wanted = torch.zeros_like(W) if reset is None else reset
    assert torch.equal(_bits(after.W[..., other]), _bits(wanted[..., other]))
    assert bool((after.stash[..., ~other] == 0).all())
    assert after.newly_pruned.shape == mask.shape
    trial.fill_(5.0)
    for tensor in after:
        tensor.fill_(1)
    assert all(torch.equal(_bits_of(tensor), _bits_of(copy)) for tensor, copy in zip(given_tensors, copies, strict=True))


def test_the_number_of_exact_zeros_is_the_ratio_s_count() -> None:
    W = torch.randn(16, 33, generator=torch.Generator().manual_seed(2))
    mask, stash = torch.zeros(16, 33, dtype=torch.bool), torch.zeros(16, 33)
    for prune_ratio in (0.4, 0.5, 0.33, 0.8, 0.1, 0.0):
        new_mask = select_lowest(restored(W, mask, stash).abs(), prune_ratio)
        W, stash, _ = commit(W, mask, stash, new_mask)
        mask = new_mask
        assert int((W == 0).sum()) == pruned_count(prune_ratio, W.numel())
    assert torch.equal(W, torch.randn(16, 33, generator=torch.Generator().manual_seed(2)))


def test_a_parameter_with_gradient_gives_plain_tensors() -> None:
    W = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    after = commit(W, _bool(F, F), torch.zeros(2), _bool(F, T))
    assert not after.W.requires_grad
    assert not after.stash.requires_grad
    assert W.tolist() == [1.0, 2.0]
