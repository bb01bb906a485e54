"""Adapters of a pool: their losses against merged models, their agreement with the gradient against autograd on dense weights."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from tests.tiny import tiny_adapter, tiny_backbone, tiny_examples
from torch import Tensor

from pomona.adapters import Adapter, Factors
from pomona.backbone import pool
from pomona.backbone.linear_modules import is_transposed
from pomona.backbone.load import Backbone
from pomona.backbone.pool import agreements, pool_losses
from pomona.errors import PomonaError

EXAMPLES = [*tiny_examples(5, seed=1), *tiny_examples(2, seed=4, completion=2)]


def adapters(backbone: Backbone) -> list[Adapter]:
    """Of several ranks, scalings and modules, one whose update is zero."""
    ends = ("attn.c_attn",) if backbone.name == "tiny-gpt2" else ("self_attn.q_proj",)
    more = ("attn.c_attn", "mlp.c_proj") if backbone.name == "tiny-gpt2" else ("self_attn.v_proj", "mlp.down_proj")
    one, two = tiny_adapter(backbone, 1, 3, 0.7, ends), tiny_adapter(backbone, 2, 2, -1.5, more)
    zero = Adapter({m: Factors(one[m].A, torch.zeros_like(one[m].B)) for m in one}, backbone.name)
    return [one, two, zero, tiny_adapter(backbone, 3, 4, 0.3, (*ends, *more))]


def mean_loss(backbone: Backbone, examples: Sequence = EXAMPLES) -> Tensor:
    """By the definition, an example at a time."""
    total, count = torch.zeros(()), 0
    for example in examples:
        tokens = torch.tensor(example.tokens)
        logits = backbone.model(input_ids=tokens[None]).logits[0].float()
        first = example.completion_start
        total = total + F.cross_entropy(logits[first - 1 : -1], tokens[first:], reduction="sum")
        count += len(tokens) - first
    return total / count


def weight(backbone: Backbone, module: str) -> torch.nn.Parameter:
    return backbone.model.get_submodule(module).weight  # pyright: ignore[reportReturnType]


def dense(backbone: Backbone, adapter: Adapter, module: str) -> Tensor:
    """The update in the layout of the weight."""
    delta = adapter.delta(module)
    return delta.T if is_transposed(backbone.model.get_submodule(module)) else delta


@pytest.mark.parametrize("max_tokens", [1, 64, 4096])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_losses_are_those_of_merged_models(architecture: str, max_tokens: int) -> None:
    backbone = tiny_backbone(architecture)
    found = pool_losses(backbone, adapters(backbone), EXAMPLES, max_tokens)
    with torch.no_grad():
        expected = [float(mean_loss(backbone))]
        for adapter in adapters(backbone):
            for module in adapter:
                weight(backbone, module).add_(dense(backbone, adapter, module))
            expected.append(float(mean_loss(backbone)))
            for module in adapter:
                weight(backbone, module).sub_(dense(backbone, adapter, module))
    assert found == pytest.approx(expected, rel=1e-5)
    assert found[3] == pytest.approx(found[0])
    assert len({round(loss, 3) for loss in found}) == 4


def expected_agreements(backbone: Backbone, pool_of: Sequence[Adapter]) -> list[float]:
    """Autograd on the dense weights of every module that any adapter has."""
    modules = sorted({module for adapter in pool_of for module in adapter})
    weights = [weight(backbone, module).requires_grad_() for module in modules]
    try:
        gradients = torch.autograd.grad(mean_loss(backbone), weights)
    finally:
        for one in weights:
            one.requires_grad_(False)
    G = torch.cat([gradient.flatten() for gradient in gradients]).double()
    found = []
    for adapter in pool_of:
        parts = [
            dense(backbone, adapter, module) if module in adapter else torch.zeros_like(weight(backbone, module))
            for module in modules
        ]
        D = torch.cat([part.flatten() for part in parts]).double()
        found.append(-float(G @ D / (G.norm() * D.norm())) if D.any() else 0.0)
    return found


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
def test_agreement_is_that_of_the_dense_gradient(architecture: str, checkpointing: bool) -> None:
    backbone = tiny_backbone(architecture)
    done: list[int] = []
    found = agreements(
        backbone,
        adapters(backbone),
        EXAMPLES,
        3,
        torch.Generator().manual_seed(0),
        checkpointing=checkpointing,
        advance=done.append,
    )
    assert found == pytest.approx(expected_agreements(backbone, adapters(backbone)), rel=1e-4, abs=1e-6)
    assert found[2] == 0.0
    assert sum(done) == len(EXAMPLES)
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())


def test_a_sketch_of_the_gradient_keeps_the_order_and_nearly_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone()
    monkeypatch.setattr(pool, "SKETCH", 24)  # of 32 and 48 input features
    found = agreements(backbone, adapters(backbone), EXAMPLES, 8, torch.Generator().manual_seed(0))
    expected = expected_agreements(backbone, adapters(backbone))
    ratios = [one / other for one, other in zip(found, expected, strict=True) if other]
    assert ratios == pytest.approx([ratios[0]] * 3, rel=1e-4), "the norm is one number for all"
    assert ratios[0] == pytest.approx(1.0, abs=0.2)
    assert ratios[0] != pytest.approx(1.0, abs=1e-5)


def test_a_small_step_along_an_adapter_changes_the_loss_as_its_agreement_says() -> None:
    backbone = tiny_backbone()
    (adapter,) = pool_of = [tiny_adapter(backbone, 5)]
    (agreement,) = agreements(backbone, pool_of, EXAMPLES, 8, torch.Generator().manual_seed(0))
    step = Adapter({m: Factors(adapter[m].A, adapter[m].B, adapter[m].scaling * 1e-2) for m in adapter}, backbone.name)
    before, after = pool_losses(backbone, [step], EXAMPLES, 1024)
    assert (after < before) == (agreement > 0)


def test_a_loss_that_is_not_finite_is_an_error_that_names_the_adapter() -> None:
    backbone = tiny_backbone()
    good = tiny_adapter(backbone, 1)
    module = good.modules[1]
    bad = Adapter({module: Factors(good[module].A * float("inf"), good[module].B)})
    with pytest.raises(PomonaError, match="the training loss of adapter 2 of the pool is not finite"):
        pool_losses(backbone, [good, bad], EXAMPLES, 1024)
