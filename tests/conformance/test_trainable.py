"""What every trainable merge keeps to, whatever its formula: the contract in `pomona.backbone.trainable.base`."""

from __future__ import annotations

from typing import Any

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
from tests.tiny import TARGETS, tiny_adapter, tiny_backbone
from torch import Tensor

from pomona.adapters import Factors
from pomona.backbone.attach import attached
from pomona.backbone.stacks import stacked
from pomona.backbone.trainable import AdaptedModule, Coefficients, TrainableMerge, trainable_merges
from pomona.backbone.trainable.add_low_rank import STEPS, keep_mask
from pomona.errors import InputError
from pomona.importance import FactorPair

CASES = [Case(), Case(frozen=(0, 2)), Case(train_weights=True), Case(frozen=(1,), train_weights=True)]
every_case = pytest.mark.parametrize("case", CASES)
pytestmark = pytest.mark.parametrize("kind", trainable_merges)


def how(kind: str, case: Case = CASES[0]) -> TrainableMerge:
    return trainable_merges[kind](frozen=frozenset(case.frozen), train_weights=case.train_weights)


def make(kind: str, case: Case = CASES[0], dropout: float = 0.0) -> AdaptedModule:
    """In float64, so that nothing but the float32 start is rounded."""
    return how(kind, case).attach("m", base_module(), three_pairs(), WEIGHTS, dropout).double()


def stir(module: AdaptedModule, steps: int = 3) -> None:
    """A few optimizer steps, with weight decay, that move every parameter."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.1)
    before = [parameter.detach().clone() for parameter in parameters]
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(module(inputs())).backward()
        optimizer.step()
    assert all(bool((now - then).abs().max() > 0.01) for now, then in zip(parameters, before, strict=True))


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), atol=1e-9, rtol=1e-9)


@every_case
def test_the_output_is_that_of_the_base_and_of_the_exported_update(kind: str, case: Case) -> None:
    module, x = make(kind, case), inputs()
    for _ in range(2):
        exported, (A, B) = module.export(), module.pair()
        assert exported.scaling == 1.0
        assert exported.delta(torch.float64).abs().max() > 0.1
        close(module(x), module.base(x) + x @ exported.delta(torch.float64).T)
        close(B @ A, exported.delta(torch.float64))
        assert not exported.A.requires_grad
        assert not exported.B.requires_grad
        stir(module)


@every_case
def test_the_merged_gradient_is_autograds_at_the_merged_factors(kind: str, case: Case) -> None:
    module, x = make(kind, case), inputs()
    stir(module)
    merged = module.effective()
    A, B = (side.clone().requires_grad_() for side in (merged.A, merged.B))
    whole_A, whole_B = module.with_frozen(A, B)
    loss_of(module.base(x) + x @ whole_A.T @ whole_B.T).backward()
    module.zero_grad()
    assert module.merged_gradient() is None
    loss_of(module(x)).backward()
    found = module.merged_gradient()
    assert found is not None
    assert A.grad is not None
    assert B.grad is not None
    assert A.grad.abs().max() > 1e-2
    close(found.A, A.grad)
    close(found.B, B.grad)
    assert not found.A.requires_grad


@every_case
def test_the_merge_can_be_asked_for_other_values_of_the_parameters(kind: str, case: Case) -> None:
    """What pruning and probes ask, without a change of the parameters; a mask of the merged factors holds for them."""
    module = make(kind, case)
    A, B = module.A.detach().clone(), module.B.detach().clone()
    expected = Factors(module.effective().A.clone(), module.effective().B.clone())
    whole = [side.detach().clone() for side in module.pair()]
    stir(module)
    now = module.effective()
    if not case.train_weights:  # else the weights, which stay as they are, have moved
        assert torch.equal(module.merged(A, B).A, expected.A)
        assert torch.equal(module.merged(A, B).B, expected.B)
        assert all(torch.equal(found, side) for found, side in zip(module.pair_of(A, B), whole, strict=True))
    assert torch.equal(module.effective().A, now.A)
    assert not module.merged(A, B).A.requires_grad
    assert not module.merged(A, B).B.requires_grad
    mask_A, mask_B = now.A < 0.1, now.B > 0.2
    before_A, before_B = now.A.clone(), now.B.clone()
    with torch.no_grad():
        module.A.masked_fill_(mask_A, 0.0)
        module.B.masked_fill_(mask_B, 0.0)
    pruned = module.effective()
    close(pruned.A, before_A.masked_fill(mask_A, 0.0))
    close(pruned.B, before_B.masked_fill(mask_B, 0.0))


@every_case
def test_each_trained_adapter_has_its_part_and_its_own_factors(kind: str, case: Case) -> None:
    module = make(kind, case)
    parts, own = module.parts(module.A, module.B), module.own_factors(module.A, module.B)
    assert list(parts) == list(own) == case.trained
    for k, (A_k, B_k) in parts.items():
        assert A_k.shape == own[k].A.shape == (RANKS[k], IN)
        assert B_k.shape == own[k].B.shape == (OUT, RANKS[k])
        assert torch.equal(A_k, three_pairs()[k].A.double())
        assert torch.equal(B_k, three_pairs()[k].B.double())
    mask_A, mask_B = torch.zeros_like(module.A, dtype=torch.bool), torch.zeros_like(module.B, dtype=torch.bool)
    for part_A, part_B in module.parts(mask_A, mask_B).values():
        part_A.fill_(True)  # views: what is written into them is written into the whole
        part_B.fill_(True)
    assert int(mask_A.sum()) == sum(RANKS[k] * IN for k in case.trained)
    assert int(mask_B.sum()) == sum(RANKS[k] * OUT for k in case.trained)
    assert not module.A.detach()[~mask_A].any()
    assert not own[case.trained[0]].A.requires_grad


@every_case
def test_modules_in_a_stack_are_merged_and_derived_as_each_by_itself(kind: str, case: Case) -> None:
    modules = {name: make(kind, case) for name in ("one", "two")}
    stir(modules["two"])
    modules["two"].zero_grad()
    values = {name: (module.A.detach().clone(), module.B.detach().clone()) for name, module in modules.items()}
    (stack,) = stacked(modules)
    assert stack.paths == ["one", "two"]
    assert stack.A.shape == (2, *modules["one"].A.shape)

    def same(found: FactorPair | Factors, of_each: list[FactorPair | Factors]) -> None:
        for place, one in enumerate(of_each):
            assert torch.equal(found.A[place], one.A)
            assert torch.equal(found.B[place], one.B)

    same(stack.effective(), [module.effective() for module in modules.values()])
    same(
        stack.merged_gradient(), [FactorPair(torch.zeros_like(one.A), torch.zeros_like(one.B)) for one in stack.effective().each()]
    )
    for place, (name, module) in enumerate(modules.items()):
        assert torch.equal(module.A, values[name][0])  # moved, not changed
        assert torch.equal(module.B, values[name][1])
        for k, (A_k, B_k) in stack.parts(stack.A, stack.B).items():
            assert torch.equal(A_k[place], module.parts(module.A, module.B)[k][0])
            assert torch.equal(B_k[place], module.parts(module.A, module.B)[k][1])
        loss_of(module(inputs())).backward()
    gradients = [module.merged_gradient() for module in modules.values()]
    same(stack.merged_gradient(), [one for one in gradients if one is not None])
    stack.A.zero_()  # the parameters are views of the stack
    assert not any(bool(module.A.any()) for module in modules.values())


def test_an_adapter_by_itself_is_the_merge(kind: str) -> None:
    for pair in three_pairs():
        module = how(kind).attach("m", base_module(), [None, pair], [2.0, 1.0], 0.0)
        torch.testing.assert_close(module.export().delta(), pair.delta(), atol=1e-6, rtol=1e-6)
        own, merged = module.own_factors(module.A, module.B)[1], module.effective()
        assert torch.equal(own.A, merged.A)
        assert torch.equal(own.B, merged.B)


@every_case
def test_the_rank_and_the_parameters_are_as_told(kind: str, case: Case) -> None:
    module = make(kind, case)
    assert module.effective().rank == module.A.shape[-2] == how(kind, case).rank([RANKS[k] for k in case.trained])
    names = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    assert names == ({"A", "B", "weights"} if case.train_weights else {"A", "B"})
    assert module.weights is None or len(module.weights) == len(case.trained)
    assert how(kind).title


@every_case
def test_merge_weights_are_those_of_now_by_adapter(kind: str, case: Case) -> None:
    """Of an adapter that is trained alone the update grows with its weight, and nothing else does."""
    module = make(kind, case)
    assert module.merge_weights() == pytest.approx(list(WEIGHTS), rel=1e-6)
    stir(module)
    after = module.merge_weights()
    assert [after[k] == WEIGHTS[k] for k in case.frozen] == [True] * len(case.frozen)
    assert all((abs(after[k] - WEIGHTS[k]) > 1e-3) is case.train_weights for k in case.trained)
    if case.train_weights:
        own = module.own_factors(module.A, module.B)
        for k, (A_k, B_k) in module.parts(module.A.detach(), module.B.detach()).items():
            expected = after[k] * SCALINGS[k] * (B_k @ A_k)  # the module has the scalings in float32
            torch.testing.assert_close(own[k].delta(torch.float64), expected, atol=1e-6, rtol=1e-6)


def test_an_adapter_that_is_missing_or_has_weight_zero_takes_no_part(kind: str) -> None:
    first, second, third = three_pairs()
    module = how(kind, Case((4,), True)).attach(
        "m", base_module(), [first, None, second, third, third], [0.5, 1.0, -0.25, 0.0, 2.0], 0.0
    )
    assert module.merge_weights() == pytest.approx([0.5, 0.0, -0.25, 0.0, 2.0], rel=1e-6)
    assert list(module.parts(module.A, module.B)) == [0, 2]


def test_a_weight_that_reaches_zero_has_finite_gradients(kind: str) -> None:
    module = make(kind, Case(train_weights=True))
    assert module.weights is not None
    with torch.no_grad():
        module.weights[1] = 0.0
    loss_of(module(inputs())).backward()
    found = module.merged_gradient()
    assert module.weights.grad is not None
    assert found is not None
    assert torch.isfinite(module.weights.grad).all()
    assert module.weights.grad[1].abs() > 1e-3
    assert torch.isfinite(found.A).all()
    assert torch.isfinite(found.B).all()


def test_with_every_trained_value_at_zero_the_frozen_adapter_is_left(kind: str) -> None:
    module, x = make(kind, Case(frozen=(1,), train_weights=True)), inputs()
    stir(module)
    with torch.no_grad():
        module.A.zero_()
        module.B.zero_()
    expected = WEIGHTS[1] * three_pairs()[1].delta(torch.float64)
    torch.testing.assert_close(module.export().delta(torch.float64), expected, atol=5e-6, rtol=1e-6)
    torch.testing.assert_close(module(x) - module.base(x), x @ expected.T, atol=5e-6, rtol=1e-6)


def test_frozen_adapters_alone_make_the_update_that_they_make_when_trained(kind: str) -> None:
    module = make(kind, Case(frozen=(0, 1, 2), train_weights=True))
    assert not module.trained
    assert module.weights is None
    assert not any(parameter.requires_grad for parameter in module.parameters())
    torch.testing.assert_close(module.export().delta(), make(kind).export().delta(), atol=5e-6, rtol=1e-6)
    assert module.merge_weights() == list(WEIGHTS)


def test_dropout_is_before_a_and_the_observer_sees_the_input_of_b(kind: str) -> None:
    module, x = make(kind, Case(frozen=(1,)), dropout=0.5), inputs()
    seen: list[tuple[Tensor, Tensor]] = []
    module.observer = lambda module, inputs, hidden: seen.append((inputs, hidden.detach()))
    module.train()
    torch.manual_seed(3)
    y = module(x)
    torch.manual_seed(3)
    dropped = x * keep_mask(x, STEPS // 2) * 2
    merged = module.effective()
    A = module.with_frozen(merged.A, merged.B)[0][: merged.rank]
    assert seen[0][0] is x
    close(seen[0][1], dropped @ A.T)
    close(y, module.base(x) + dropped @ module.export().delta(torch.float64).T)
    module.eval()
    module(x)
    close(seen[1][1], x @ A.T)
    module.folded = True
    assert torch.equal(module(x), module.base(x))
    assert len(seen) == 2


def test_updates_of_zero_leave_the_bases_output_bit_for_bit(kind: str) -> None:
    pairs = [Factors(pair.A, torch.zeros_like(pair.B), pair.scaling) for pair in three_pairs()]
    module, x = how(kind, Case((2,))).attach("m", base_module(), pairs, WEIGHTS, 0.0), inputs().float()
    assert torch.equal(module(x), module.base(x))


def test_a_half_precision_base_has_factors_in_float32(kind: str) -> None:
    base = base_module().bfloat16()
    pairs = [Factors(pair.A.bfloat16(), pair.B.bfloat16(), pair.scaling) for pair in three_pairs()]
    module = how(kind, Case((0,), True)).attach("m", base, pairs, WEIGHTS, 0.0)
    floating = [*module.buffers(), *(parameter for parameter in module.parameters() if parameter.requires_grad)]
    assert {value.dtype for value in floating if value.is_floating_point()} == {torch.float32}
    x = inputs().bfloat16()
    y = module(x)
    assert y.dtype == torch.bfloat16
    expected = (base(x).float() + x.float() @ module.export().A.T @ module.export().B.T).bfloat16()
    torch.testing.assert_close(y.float(), expected.float(), atol=5e-6, rtol=1e-6)


def test_attached_folding_adds_the_update_and_gives_the_base_back_bit_for_bit(kind: str) -> None:
    backbone = tiny_backbone("llama")
    adapters = [tiny_adapter(backbone, seed=k, rank=rank, targets=TARGETS["llama"]) for k, rank in enumerate((3, 2))]
    tokens = torch.arange(3, 12)[None]
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    prints = [adapter.fingerprint() for adapter in adapters]
    with attached(backbone, adapters, [0.8, -0.4], how=how(kind, Case((1,), True))) as attachment, torch.no_grad():
        for parameter in attachment.parameters().values():
            parameter.add_(0.01)
        unfolded = backbone.model(input_ids=tokens).logits
        with attachment.folded():
            for path, module in attachment.modules.items():
                moved = module.base.weight - before[f"{path}.weight"]  # pyright: ignore[reportOperatorIssue]
                torch.testing.assert_close(moved, attachment.export().delta(path), atol=1e-6, rtol=0)
            torch.testing.assert_close(backbone.model(input_ids=tokens).logits, unfolded, atol=1e-4, rtol=0)
        assert torch.equal(backbone.model(input_ids=tokens).logits, unfolded)
    after = backbone.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert [adapter.fingerprint() for adapter in adapters] == prints


COEFFICIENTS = [
    Coefficients(),
    Coefficients(starts=(0.0, 1.0, 0.0), negative_slope=0.2),
    Coefficients("component"),
    Coefficients("component", binary=True),
]


@pytest.mark.parametrize("coefficients", COEFFICIENTS)
@pytest.mark.parametrize("frozen", [(0, 1, 2), (1,)])
def test_coefficients_scale_the_updates_of_all_adapters_and_the_factors_may_stay(
    kind: str, coefficients: Coefficients, frozen: tuple[int, ...]
) -> None:
    """Output, export and gradient against `sum_k f(c_k) s_k B_k A_k`, one component after the other."""
    if not trainable_merges[kind].has_coefficients:
        with pytest.raises(InputError, match="is not a sum of the adapters' updates"):
            trainable_merges[kind](coefficients=coefficients)
        return
    merge = trainable_merges[kind](frozen=frozenset(frozen), coefficients=coefficients)
    module, x = merge.attach("m", base_module(), three_pairs(), WEIGHTS, 0.0).double(), inputs()
    assert module.weights is not None
    starts = coefficients.starts or ((1.0, 1.0, 1.0) if coefficients.binary else WEIGHTS)
    expected = [start * (w if coefficients.binary else 1.0) for start, w in zip(starts, WEIGHTS, strict=True)]
    assert module.merge_weights() == pytest.approx(expected, rel=1e-6)
    with torch.no_grad():
        module.weights.add_(torch.linspace(-0.8, 0.7, len(module.weights)))
    values = module.weights.detach().clone().requires_grad_()
    order = [k for k in range(3) if k not in frozen] + [k for k in range(3) if k in frozen]
    owners = [k for k in order for _ in range(RANKS[k])]
    y, delta = module.base(x), torch.zeros(OUT, IN, dtype=torch.float64)
    for row, k in enumerate(owners):
        c = values[row if coefficients.unit == "component" else order.index(k)]
        if coefficients.binary:
            weight = WEIGHTS[k] * (float(c >= 0.5) + c - c.detach())
        else:
            weight = torch.where(c > 0, c, coefficients.negative_slope * c)
        pair, r = three_pairs()[k], row - owners.index(k)
        component = weight * SCALINGS[k] * pair.B.double()[:, r, None] * pair.A.double()[None, r]
        y, delta = y + x @ component.T, delta + component
    loss_of(y).backward()
    module.A.requires_grad_(False)
    module.B.requires_grad_(False)
    loss_of(module(x)).backward()
    assert module.weights.grad is not None
    assert values.grad is not None
    assert values.grad.abs().min() > 1e-4
    near: dict[str, Any] = {"atol": 5e-6, "rtol": 5e-6}  # the module has weights and scalings in float32
    torch.testing.assert_close(module(x), y, **near)
    torch.testing.assert_close(module.export().delta(torch.float64), delta, **near)
    torch.testing.assert_close(module.pair()[1] @ module.pair()[0], delta, **near)
    torch.testing.assert_close(module.weights.grad, values.grad, **near)
    assert module.A.grad is None
    if not module.trained:
        return
    frozen_output = module(x)
    module.A.requires_grad_()  # the factors and the coefficients, trained together
    close(module(x), frozen_output)
