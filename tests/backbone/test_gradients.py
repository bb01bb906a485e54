from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from tests.backbone.plain_norms import batch_of
from tests.tiny import tiny_adapter, tiny_examples
from torch import Tensor, nn

from pomona.adapters import Factors
from pomona.backbone.attach import Attachment, attached
from pomona.backbone.gradients import Gradients
from pomona.backbone.load import Backbone
from pomona.backbone.loss import token_losses
from pomona.backbone.stacks import Stack
from pomona.backbone.trainable import Concat, Linear, TrainableMerge
from pomona.backbone.trainable.concat import ConcatModule
from pomona.importance import FactorPair, Smoothed

SCALING = 0.5


def hand_made(A: Tensor, B: Tensor) -> tuple[Attachment, ConcatModule]:
    """One module called `m`, with the scaling 1/2."""
    layer = ConcatModule("m", nn.Linear(A.shape[1], B.shape[0]), [Factors(A, B, SCALING)], [1.0], 0.0)
    return Attachment(None, {"m": layer}), layer  # pyright: ignore[reportArgumentType]


def own(attachment: Attachment, path: str) -> tuple[Stack, int]:
    """The stack that a module is in, and its place there."""
    return next((stack, stack.paths.index(path)) for stack in attachment.stacks if path in stack.paths)


def gradient(gradients: Gradients, attachment: Attachment, path: str) -> FactorPair | None:
    stack, place = own(attachment, path)
    found = gradients.gradient(stack)
    return found and FactorPair(found.A[place], found.B[place])


def averages(gradients: Gradients, attachment: Attachment, path: str) -> Smoothed | None:
    stack, place = own(attachment, path)
    found = gradients.smoothed(stack)
    return found and Smoothed(*(FactorPair(pair.A[place], pair.B[place]) for pair in found))


def plain_averages(
    factors: Sequence[list[list[float]]], gradients: Sequence[list[list[float]]], keep_mean: float, keep_uncertainty: float
) -> tuple[list[list[float]], list[list[float]]]:
    """AdaLoRA's averages over steps, entry by entry in Python's floats."""
    rows, columns = len(factors[0]), len(factors[0][0])
    mean = [[0.0] * columns for _ in range(rows)]
    uncertainty = [[0.0] * columns for _ in range(rows)]
    for W, g in zip(factors, gradients, strict=True):
        for i in range(rows):
            for j in range(columns):
                sensitivity = abs(W[i][j] * g[i][j])
                mean[i][j] = keep_mean * mean[i][j] + (1 - keep_mean) * sensitivity
                away = abs(sensitivity - mean[i][j])
                uncertainty[i][j] = keep_uncertainty * uncertainty[i][j] + (1 - keep_uncertainty) * away
    return mean, uncertainty


def test_by_hand_over_two_steps() -> None:
    """A = 2 with scaling 1/2 is 1 in the merge, its gradient 4 is 8 there: I = 8, then 0. b1 = 3/4, b2 = 1/2.

    mean: 2, 1.5; uncertainty: |8 - 2| / 2 = 3, then 3/2 + |0 - 1.5| / 2 = 2.25.
    """
    attachment, layer = hand_made(torch.full((1, 1), 2.0), torch.full((1, 1), 3.0))
    gradients = Gradients(attachment, (0.75, 0.5))
    assert gradient(gradients, attachment, "m") is None
    assert averages(gradients, attachment, "m") is None
    for grad, mean, uncertainty in ((4.0, 2.0, 3.0), (0.0, 1.5, 2.25)):
        layer.A.grad, layer.B.grad = torch.full((1, 1), grad), torch.full((1, 1), 1.0)
        gradients.observe()
        found, smoothed = gradient(gradients, attachment, "m"), averages(gradients, attachment, "m")
        assert found is not None
        assert smoothed is not None
        assert found.A.item() == grad / SCALING
        assert found.B.item() == 1.0
        assert smoothed.mean.A.item() == mean
        assert smoothed.uncertainty.A.item() == uncertainty


def test_averages_are_those_of_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    attachment, layer = hand_made(torch.randn(2, 5, generator=generator), torch.randn(4, 2, generator=generator))
    gradients = Gradients(attachment, (0.85, 0.6))
    seen: dict[str, list[list[list[float]]]] = {"A": [], "B": [], "grad A": [], "grad B": []}
    for _ in range(6):
        layer.A.grad = torch.randn(2, 5, generator=generator)
        layer.B.grad = torch.randn(4, 2, generator=generator)
        seen["A"].append((layer.A.detach().double() * SCALING).tolist())
        seen["B"].append(layer.B.detach().double().tolist())
        seen["grad A"].append((layer.A.grad.double() / SCALING).tolist())
        seen["grad B"].append(layer.B.grad.double().tolist())
        gradients.observe()
        with torch.no_grad():
            layer.A.add_(torch.randn(2, 5, generator=generator))
            layer.B.add_(torch.randn(4, 2, generator=generator))
    smoothed = averages(gradients, attachment, "m")
    assert smoothed is not None
    for side in ("A", "B"):
        mean, uncertainty = plain_averages(seen[side], seen[f"grad {side}"], 0.85, 0.6)
        for found, expected in ((smoothed.mean, mean), (smoothed.uncertainty, uncertainty)):
            torch.testing.assert_close(getattr(found, side).double(), torch.tensor(expected).double(), atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("how", [Concat(), Linear()], ids=["concat", "sum"])
def test_the_gradient_predicts_how_the_loss_moves(llama: Backbone, how: TrainableMerge) -> None:
    """Accumulated over two batches, it is the loss's slope when the merged factors are scaled: d loss / dt at W (1 + t)."""
    examples = tiny_examples(4)
    adapters = [tiny_adapter(llama, seed, rank=2 + seed) for seed in range(2)]

    def loss(attachment: Attachment, of: slice) -> Tensor:
        return token_losses(llama, batch_of(llama, examples[of])).sum()

    with attached(llama, adapters, how=how) as attachment:
        gradients = Gradients(attachment, (0.0, 0.0))
        for of in (slice(0, 3), slice(3, 4)):
            loss(attachment, of).backward()
        gradients.observe()
        for path, layer in attachment.layers.items():
            factors, found, smoothed = (
                layer.effective(),
                gradient(gradients, attachment, path),
                averages(gradients, attachment, path),
            )
            assert found is not None
            assert smoothed is not None
            for side, W in (("A", factors.A), ("B", factors.B)):
                parameter, g = getattr(layer, side), getattr(found, side)
                assert g.shape == W.shape
                torch.testing.assert_close(getattr(smoothed.mean, side), (W * g).abs())
                slope = float((W.double() * g.double()).sum())
                ends = []
                for step in (0.01, -0.01):
                    with torch.no_grad():
                        kept = parameter.data
                        parameter.data = kept * (1 + step)
                        ends.append(float(loss(attachment, slice(0, 4)).double()))
                        parameter.data = kept
                assert slope == pytest.approx((ends[0] - ends[1]) / 0.02, rel=0.02, abs=2e-3)


def test_clipping_stepping_and_zeroing_do_not_reach_it() -> None:
    attachment, layer = hand_made(torch.ones(1, 2), torch.ones(2, 1))
    layer.A.grad, layer.B.grad = torch.full((1, 2), 3.0), torch.full((2, 1), 5.0)
    gradients = Gradients(attachment)
    gradients.observe()
    torch.nn.utils.clip_grad_norm_([layer.A, layer.B], 0.1)
    torch.optim.SGD([layer.A, layer.B], 1.0).step()
    layer.B.grad.zero_()
    found = gradient(gradients, attachment, "m")
    assert found is not None
    assert found.A.tolist() == [[3.0 / SCALING] * 2]
    assert found.B.tolist() == [[5.0], [5.0]]
    assert found.B.dtype == torch.float32
    assert averages(gradients, attachment, "m") is None


def test_what_the_loss_does_not_depend_on_has_the_gradient_zero() -> None:
    attachment, layer = hand_made(torch.ones(1, 2), torch.ones(2, 1))
    gradients = Gradients(attachment, (0.5, 0.5))
    layer.A.grad, layer.B.grad = torch.full((1, 2), 4.0), torch.full((2, 1), 4.0)
    gradients.observe()
    layer.A.grad = layer.B.grad = None
    gradients.observe()
    found, smoothed = gradient(gradients, attachment, "m"), averages(gradients, attachment, "m")
    assert found is not None
    assert smoothed is not None
    assert found.A.tolist() == [[0.0, 0.0]]
    assert found.B.tolist() == [[0.0], [0.0]]
    assert smoothed.mean.B.tolist() == [[1.0], [1.0]]  # 4 / 2 / 2


@pytest.mark.parametrize("smoothing", [None, (0.85, 0.7)])
def test_a_resumed_run_goes_on_bit_for_bit(smoothing: tuple[float, float] | None) -> None:
    generator = torch.Generator().manual_seed(1)
    attachment, layer = hand_made(torch.randn(2, 3, generator=generator), torch.randn(4, 2, generator=generator))
    whole, resumed = Gradients(attachment, smoothing), Gradients(attachment, smoothing)
    for step in range(4):
        layer.A.grad, layer.B.grad = torch.randn(2, 3, generator=generator), torch.randn(4, 2, generator=generator)
        whole.observe()
        if step >= 2:
            resumed.observe()
        if step == 1:
            resumed.load_state({name: value.clone() for name, value in whole.state().items()})
            assert_same(gradient(resumed, attachment, "m"), gradient(whole, attachment, "m"))
        layer.A.data.mul_(0.9)
    states = whole.state(), resumed.state()
    assert states[0].keys() == states[1].keys()
    assert len(states[0]) == (2 if smoothing is None else 6)
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def assert_same(one: FactorPair | None, other: FactorPair | None) -> None:
    assert one is not None
    assert other is not None
    assert torch.equal(one.A, other.A)
    assert torch.equal(one.B, other.B)


def test_the_state_before_the_first_step_is_empty() -> None:
    attachment, _ = hand_made(torch.ones(1, 2), torch.ones(2, 1))
    gradients = Gradients(attachment, (0.5, 0.5))
    assert gradients.state() == {}
    gradients.load_state({})
    assert gradient(gradients, attachment, "m") is None
