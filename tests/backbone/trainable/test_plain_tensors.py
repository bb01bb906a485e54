"""`concat` and `linear` against plain tensors: some adapters frozen, with and without trained weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from tests.backbone.trainable.three_adapters import (
    IN,
    OUT,
    RANKS,
    SCALINGS,
    WEIGHTS,
    Case,
    base_module,
    inputs,
    loss_of,
    three_pairs,
)
from torch import Tensor, nn

from pomona.adapters import Factors
from pomona.backbone.trainable.base import AdaptedModule
from pomona.backbone.trainable.concat import ConcatModule
from pomona.backbone.trainable.linear import LinearModule
from pomona.merging.linear import Linear

KINDS = [ConcatModule, LinearModule]
Kind = type[ConcatModule] | type[LinearModule]


CASES = [Case(), Case(frozen=(1,)), Case(frozen=(0, 2)), Case(train_weights=True), Case(frozen=(1,), train_weights=True)]


def make(kind: Kind, case: Case = CASES[0]) -> AdaptedModule:
    """In float64, so that what differs are the rounded constants alone."""
    return kind("m", base_module(), three_pairs(), WEIGHTS, 0.0, case.frozen, case.train_weights).double()


def plain_factors(kind: Kind, As: Sequence[Tensor], Bs: Sequence[Tensor], shares: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """One pair that means the merge, written adapter by adapter and rank by rank."""
    if kind is ConcatModule:
        rows = [share * A[r] for A, share in zip(As, shares, strict=True) for r in range(len(A))]
        return torch.stack(rows), torch.stack([B[:, r] for B in Bs for r in range(B.shape[1])], dim=1)
    rows, columns = [], []
    for r in range(max(len(A) for A in As)):
        row, column = torch.zeros(IN, dtype=torch.float64), torch.zeros(OUT, dtype=torch.float64)
        for A, B, share in zip(As, Bs, shares, strict=True):
            if r < len(A):
                row = row + torch.sign(share.detach()) * share.abs().sqrt() * A[r]
                column = column + share.abs().sqrt() * B[:, r]
        rows.append(row)
        columns.append(column)
    return torch.stack(rows), torch.stack(columns, dim=1)


class Oracle:
    """The same merge in float64 from leaves of its own: each adapter's A, B and w."""

    def __init__(self, kind: Kind) -> None:
        pairs = three_pairs()
        self.As = [pair.A.double().requires_grad_() for pair in pairs]
        self.Bs = [pair.B.double().requires_grad_() for pair in pairs]
        self.ws = [torch.tensor(weight, dtype=torch.float64, requires_grad=True) for weight in WEIGHTS]
        base, x = base_module().double(), inputs()
        A, B = plain_factors(kind, self.As, self.Bs, [w * s for w, s in zip(self.ws, SCALINGS, strict=True)])
        self.y = base(x) + torch.einsum("or,ri,bti->bto", B, A, x)
        self.delta = (B @ A).detach()
        loss_of(self.y).backward()

    def gradients(self, place: int) -> tuple[Tensor, Tensor, Tensor]:
        found = tuple(leaf[place].grad for leaf in (self.As, self.Bs, self.ws))
        assert all(gradient is not None and bool(gradient.abs().max() > 1e-3) for gradient in found)
        return found  # pyright: ignore[reportReturnType]


def own_gradients(module: AdaptedModule, places: Sequence[int]) -> dict[int, tuple[Tensor, Tensor]]:
    """Each trained adapter's part of the parameters' gradients."""
    assert module.A.grad is not None
    assert module.B.grad is not None
    if isinstance(module, LinearModule):
        return {k: (module.A.grad[i, : RANKS[k]], module.B.grad[i, :, : RANKS[k]]) for i, k in enumerate(places)}
    ranks = [RANKS[k] for k in places]
    return dict(zip(places, zip(module.A.grad.split(ranks), module.B.grad.split(ranks, dim=1), strict=True), strict=True))


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), atol=5e-6, rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_every_adapters_gradients_are_those_of_plain_tensors(kind: Kind, case: Case) -> None:
    module, oracle = make(kind, case), Oracle(kind)
    y = module(inputs())
    close(y, oracle.y)
    loss_of(y).backward()
    places = [k for k in range(3) if k not in case.frozen]
    found = own_gradients(module, places)
    for row, k in enumerate(places):
        A, B, w = oracle.gradients(k)
        close(found[k][0], A)
        close(found[k][1], B)
        if case.train_weights:
            assert module.weights is not None
            assert module.weights.grad is not None
            # The sum's parameter is the root c = sqrt|w|: dL/dc = dL/dw * 2 c sign(w).
            root = 2 * math.copysign(math.sqrt(abs(WEIGHTS[k])), WEIGHTS[k])
            close(module.weights.grad[row], w * (1.0 if kind is ConcatModule else root))
    if not case.train_weights:
        assert module.weights is None
    assert {name for name, _ in module.named_parameters() if not name.startswith("base.")} == (
        {"A", "B", "weights"} if case.train_weights else {"A", "B"}
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_export_is_the_whole_update(kind: Kind, case: Case) -> None:
    module = make(kind, case)
    close(module.export().delta(torch.float64), Oracle(kind).delta)
    stir(module)
    exported = module.export()
    assert exported.scaling == 1.0
    close(module(inputs()) - module.base(inputs()), inputs() @ exported.delta(torch.float64).T)


def stir(module: AdaptedModule, steps: int = 3) -> None:
    """A few optimizer steps, with weight decay."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.1)
    before = [parameter.detach().clone() for parameter in parameters]
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(module(inputs())).backward()
        optimizer.step()
    assert all(bool((now - then).abs().max() > 0.01) for now, then in zip(parameters, before, strict=True))


def test_what_is_merged_by_hand() -> None:
    """Two adapters of ranks 1 and 2 on one input and output; shares 4 * 1 and -1/4 * 4, so roots 2 and 1."""
    pairs = [
        Factors(torch.tensor([[3.0]]), torch.tensor([[5.0]]), 1.0),
        Factors(torch.tensor([[1.0], [7.0]]), torch.tensor([[2.0, 11.0]]), 4.0),
    ]
    base, weights = nn.Linear(1, 1, bias=False), [4.0, -0.25]
    concat = ConcatModule("m", base, pairs, weights, 0.0)
    assert concat.effective().A.tolist() == [[12.0], [-1.0], [-7.0]]
    assert concat.effective().B.tolist() == [[5.0, 2.0, 11.0]]
    assert concat.export().delta().item() == 4 * 15 - (2 + 77)
    summed = LinearModule("m", base, pairs, weights, 0.0)
    assert summed.A.tolist() == [[[3.0], [0.0]], [[1.0], [7.0]]]
    assert summed.effective().A.tolist() == [[2 * 3 - 1.0], [-7.0]]
    assert summed.effective().B.tolist() == [[2 * 5 + 2.0, 11.0]]
    assert summed.export().delta().item() == 5 * 12 - 77
    frozen = LinearModule("m", base, pairs, weights, 0.0, frozen={1})
    assert frozen.effective().A.tolist() == [[6.0]]
    assert frozen.effective().B.tolist() == [[10.0]]
    assert frozen.export().delta().item() == 5 * 12 - 77
    frozen = ConcatModule("m", base, pairs, weights, 0.0, frozen={0})
    assert frozen.effective().A.tolist() == [[-1.0], [-7.0]]
    assert frozen.export().delta().item() == 4 * 15 - (2 + 77)


def test_a_sum_starts_as_the_static_merge_linear() -> None:
    pairs = [Factors(pair.A[:2], pair.B[:, :2], pair.scaling) for pair in three_pairs()]
    module = LinearModule("m", base_module(), pairs, WEIGHTS, 0.0)
    expected = Linear().merge(pairs, WEIGHTS, None, torch.Generator())
    for found in (module.effective(), module.export()):
        torch.testing.assert_close(found.A, expected.A, atol=5e-6, rtol=1e-6)
        torch.testing.assert_close(found.B, expected.B, atol=5e-6, rtol=1e-6)


def test_side_by_side_is_the_sum_of_the_adapters_run_apart() -> None:
    module, x = make(ConcatModule), inputs()
    expected = module.base(x)
    for pair, weight in zip(three_pairs(), WEIGHTS, strict=True):
        expected = expected + weight * pair.scaling * ((x @ pair.A.double().T) @ pair.B.double().T)
    close(module(x), expected)


def test_the_padding_of_lower_ranks_stays_zero() -> None:
    module = make(LinearModule, Case(train_weights=True))
    stir(module)
    assert module.A.shape == (3, 4, IN)
    assert module.B.shape == (3, OUT, 4)
    for k, rank in enumerate(RANKS):
        assert not module.A[k, rank:].any()
        assert not module.B[k, :, rank:].any()
        assert module.A[k, :rank].all()


@pytest.mark.parametrize("kind", KINDS)
def test_merge_weights_are_those_of_now_by_adapter(kind: Kind) -> None:
    first, second, third = three_pairs()
    pairs = [first, None, second, third, third]
    module = kind("m", base_module(), pairs, [0.5, 1.0, -0.25, 0.0, 2.0], 0.0, {4}, train_weights=True)
    assert module.merge_weights() == pytest.approx([0.5, 0.0, -0.25, 0.0, 2.0], rel=1e-6)
    assert module.weights is not None
    assert module.weights.dtype == torch.float32
    assert module.weights.tolist() == pytest.approx([0.5, -0.25] if kind is ConcatModule else [0.5**0.5, 0.5])
    with torch.no_grad():
        module.weights.copy_(torch.tensor([3.0, 0.75]))
    assert module.merge_weights() == [3.0, 0.0, 0.75, 0.0, 2.0] if kind is ConcatModule else [9.0, 0.0, -0.5625, 0.0, 2.0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_that_reaches_zero_has_a_finite_gradient_and_no_merged_one(kind: Kind) -> None:
    module = make(kind, Case(train_weights=True))
    assert module.weights is not None
    with torch.no_grad():
        module.weights[1] = 0.0  # the only adapter of rank 4
    loss_of(module(inputs())).backward()
    assert module.weights.grad is not None
    assert torch.isfinite(module.weights.grad).all()
    assert module.weights.grad[1].abs() > 1e-3
    found = module.merged_gradient()
    assert found is not None
    assert torch.isfinite(found.A).all()
    gone = slice(3, 7) if kind is ConcatModule else slice(3, 4)
    assert not found.A[gone].any()
    assert found.A[:3].all()
