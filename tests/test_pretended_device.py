"""The pretended device: it computes as the CPU does, and counts what a GPU would be asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tests.support.pretended_device import PretendedDevice, moved, pretended_device, values
from tests.tiny import tiny_adapter, tiny_examples
from tests.tuning.launches import BATCH, TUNING, measured, narrow_llama
from torch import Tensor, nn

from pomona.backbone.attach import attached
from pomona.tuning.fit import fit
from pomona.tuning.settings import FitData

CUDA = torch.device("cuda")


def counted(device: PretendedDevice) -> tuple[int, int]:
    counts = device.reset()
    return counts.kernels, counts.synchronisations


def test_operations_count_and_views_do_not() -> None:
    with pretended_device() as device:
        x = moved(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        assert x.device == torch.device("cuda", 0)
        y = (x.T[0] * 2).view(2)
        assert counted(device) == (1, 0)
        x.mul_(3.0)
        assert counted(device) == (1, 0)
        torch.empty_like(x)
        assert counted(device) == (0, 0)
        torch.zeros(2, device=CUDA).add_(y)
        assert counted(device) == (2, 0)
    assert values(y).tolist() == [2.0, 6.0]
    assert values(x).tolist() == [[3.0, 6.0], [9.0, 12.0]]


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: float(x.sum()),
        lambda x: bool((x > 1).any()),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.nonzero(),
        lambda x: x[x > 1],
        lambda x: x.masked_select(x > 1),
        lambda x: x.index_put((x > 1,), x.new_zeros(())),
        lambda x: torch.ones(3).to(CUDA),
        lambda x: torch.ones(3).to(CUDA, non_blocking=True),
        lambda x: torch.ones(3).pin_memory().to(CUDA),
        lambda x: torch.tensor([1.0, 2.0], device=CUDA),
        lambda x: x[torch.tensor([0, 1])],
        lambda x: x.copy_(torch.ones(3)),
    ],
)
def test_what_waits(wait: Callable[[Tensor], object]) -> None:
    with pretended_device() as device:
        x = moved(torch.tensor([1.0, 2.0, 3.0]))
        wait(x)
        assert device.counts.synchronisations == 1


def test_what_does_not_wait() -> None:
    with pretended_device() as device:
        x = moved(torch.tensor([1.0, 2.0, 3.0]))
        found = x.index_select(0, torch.tensor([2, 0]).pin_memory().to(CUDA, non_blocking=True))
        torch.where(x > 1, x, 0.0).cumsum(0).kthvalue(2)
        x.masked_fill_(x > 2, 0.0)
        assert device.counts.synchronisations == 0
    assert values(found).tolist() == [3.0, 1.0]


def test_many_tensors_of_one_launch() -> None:
    with pretended_device() as device:
        tensors = [moved(torch.ones(4)) for _ in range(111)]
        torch._foreach_mul_(tensors, 2.0)  # 110 of one list of tensors  # pyright: ignore[reportPrivateImportUsage]
        assert counted(device) == (2, 0)
        torch._foreach_mul_([moved(torch.ones(321 * 65536))], 2.0)  # pyright: ignore[reportPrivateImportUsage]
        assert counted(device) == (2, 0)
        torch.stack(tensors)
        assert counted(device) == (2, 0)


def test_mixing_devices_is_refused() -> None:
    with pretended_device():
        x = moved(torch.ones(3))
        with pytest.raises(RuntimeError, match="of cuda:0 and of the CPU"):
            x.add(torch.ones(3))
        assert values(x + torch.tensor(1.0)).tolist() == [2.0, 2.0, 2.0]  # a scalar is an argument of the kernel


def test_gradients_are_those_of_the_cpu() -> None:
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))

    def gradient(one: nn.Parameter, x: Tensor) -> Tensor:
        (one @ x).square().sum().backward()
        assert one.grad is not None
        return one.grad

    expected = gradient(nn.Parameter(weight.clone()), torch.ones(4))
    with pretended_device() as device:
        found = gradient(nn.Parameter(moved(weight)), moved(torch.ones(4)))
        assert device.counts.kernels > 5
        assert device.counts.synchronisations == 0
    assert torch.equal(values(found), expected)


def test_a_run_is_computed_there() -> None:
    """With the speed-ups of the device, the CPU gives the same bits."""
    tuning = replace(TUNING, dropout=0.0)
    there = measured(1, None, tuning=tuning).fitted
    backbone = narrow_llama(1)
    adapters = [tiny_adapter(backbone, seed, 3, targets=("q_proj", "v_proj")) for seed in range(2)]
    with attached(backbone, adapters) as attachment:
        here = fit(attachment, FitData(tiny_examples(4 * BATCH, seed=1)), tuning)
    assert [event["loss"] for event in there.history if event["kind"] == "step"] == [
        event["loss"] for event in here.history if event["kind"] == "step"
    ]
    assert there.adapter.fingerprint() == here.adapter.fingerprint()
