from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pomona.backbone.speed import frozen_products as room
from pomona.backbone.speed.frozen_products import FrozenLinear, freeze_linear_modules, product
from pomona.seeding import stream

needs_onednn = pytest.mark.skipif(not room._onednn_works(), reason="this build of torch has no oneDNN")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes that oneDNN is asked for, on whatever processor."""
    seen: list[tuple[int, ...]] = []
    ask = room._onednn

    def counted(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        seen.append(tuple(x.shape))
        return ask(x, weight, bias)

    monkeypatch.setattr(room, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(room, "_onednn", counted)
    return seen


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=stream(0, "drawn", *shape))


def frozen(out_features: int = 5, in_features: int = 6, bias: bool = True) -> nn.Linear:
    module = nn.Linear(in_features, out_features, bias=bias).requires_grad_(False)
    for place, parameter in enumerate(module.parameters()):
        parameter.data = drawn(*parameter.shape) + place
    return module


INPUTS: dict[str, Callable[[], Tensor]] = {
    "a row": lambda: drawn(1, 6),
    "rows": lambda: drawn(8, 6),
    "a batch": lambda: drawn(2, 9, 6),
    "a transposed batch": lambda: drawn(9, 2, 6).transpose(0, 1),
    "columns": lambda: drawn(6, 11).T,
    "every second entry": lambda: drawn(10, 12)[:, ::2],
    "one row again and again": lambda: drawn(1, 6).expand(9, 6),
}


@needs_onednn
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("make", INPUTS.values(), ids=INPUTS.keys())
def test_outputs_and_gradients_are_those_of_a_linear_map(
    make: Callable[[], Tensor], bias: bool, calls: list[tuple[int, ...]]
) -> None:
    plain = frozen(bias=bias)
    module = copy.deepcopy(plain)
    freeze_linear_modules(module)
    x = make().requires_grad_()
    y = module(x)
    upstream = drawn(*y.shape)
    (found,) = torch.autograd.grad((y * upstream).sum(), x)
    exact = x.detach().double().requires_grad_()
    expected = F.linear(exact, plain.weight.double(), plain.bias.double() if bias else None)
    (gradient,) = torch.autograd.grad((expected * upstream).sum(), exact)
    torch.testing.assert_close(y.double(), expected, atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(found.double(), gradient, atol=1e-5, rtol=1e-6)
    with torch.no_grad():
        assert torch.equal(module(x), y)
    assert len(calls) == 3


@needs_onednn
def test_an_upstream_gradient_may_be_one_number_spread_out(calls: list[tuple[int, ...]]) -> None:
    module = frozen()
    freeze_linear_modules(module)
    x = drawn(9, 6).requires_grad_()
    module(x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, module.weight.sum(dim=0).expand(9, 6))
    assert calls == [(9, 6), (9, 5)]


@pytest.mark.skipif(not room.onednn_is_faster(), reason="a property of the kernels that this processor would be given")
def test_a_row_comes_out_the_same_whatever_it_is_with(calls: list[tuple[int, ...]]) -> None:
    """To the last bit: whether a model can be packed is told by texts of a few tokens, apart and together."""
    module = frozen(192, 576)
    freeze_linear_modules(module)
    x = drawn(70, 576)
    together = module(x)
    for rows in (2, 5, 7, 33):
        assert torch.equal(module(x[:rows]), together[:rows])
    assert len(calls) == 5


@needs_onednn
def test_a_product_takes_a_transposed_weight(calls: list[tuple[int, ...]]) -> None:
    weight, x = drawn(6, 5), drawn(9, 6)
    torch.testing.assert_close(product(x, weight.T).double(), x.double() @ weight.double(), atol=1e-6, rtol=1e-6)
    assert calls == [(9, 6)]


@needs_onednn
@pytest.mark.parametrize("kind", ["no rows", "bfloat16", "float64", "autocast"])
def test_everything_else_is_left_to_torch(kind: str, calls: list[tuple[int, ...]]) -> None:
    module, x = frozen(), drawn(0 if kind == "no rows" else 9, 6)
    dtype = {"bfloat16": torch.bfloat16, "float64": torch.float64}.get(kind, torch.float32)
    module, x = module.to(dtype), x.to(dtype)
    with torch.autocast("cpu", enabled=kind == "autocast"):
        expected = module(x)
        module.__class__ = FrozenLinear
        assert torch.equal(module(x), expected)
        assert product(x, module.weight, module.bias).dtype == expected.dtype
    assert not calls


@pytest.mark.parametrize("trained", ["weight", "bias"])
def test_a_weight_that_is_trained_gets_its_gradient(trained: str, calls: list[tuple[int, ...]]) -> None:
    module = frozen()
    freeze_linear_modules(module)
    parameter = getattr(module, trained).requires_grad_()
    module(drawn(9, 6)).sum().backward()
    assert parameter.grad is not None
    assert not calls


def test_a_model_keeps_its_weights_and_their_names(calls: list[tuple[int, ...]]) -> None:
    class Own(nn.Linear):
        pass

    elsewhere = {"in_half": frozen().bfloat16(), "away": frozen().to("meta")}
    model = nn.ModuleDict({"plain": frozen(), "own": Own(2, 2), "norm": nn.LayerNorm(5), **elsewhere})
    before = {name: (value.data_ptr(), value.shape) for name, value in model.state_dict().items()}
    freeze_linear_modules(model)
    assert {name: (value.data_ptr(), value.shape) for name, value in model.state_dict().items()} == before
    assert [type(module) for module in model.values()] == [FrozenLinear, Own, nn.LayerNorm, nn.Linear, nn.Linear]


def test_a_model_stays_as_it_is_where_nothing_is_gained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "onednn_is_faster", lambda: False)
    model = nn.Sequential(frozen())
    freeze_linear_modules(model)
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize(
    ("capabilities", "faster"),
    [
        ({"avx512_f": True, "sse4a": True}, True),  # AMD from Zen 4 on
        ({"avx512_f": False, "sse4a": True}, False),  # AMD before: MKL and oneDNN both use AVX2
        ({"avx512_f": True, "sse4a": False}, False),  # Intel, which MKL is made for
        ({"architecture": "aarch64"}, False),
        ({}, False),  # a torch that does not tell
    ],
)
def test_which_processors_gain(capabilities: dict[str, bool], faster: bool) -> None:
    assert room._has_idle_avx512(capabilities) is faster


def test_a_build_without_the_operation_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> Tensor:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")

    monkeypatch.setattr(room, "_onednn", missing)
    assert not room._onednn_works()
