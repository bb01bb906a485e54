"""Parity with the element-wise merges of PEFT's add_weighted_adapter on a tiny random Llama."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import peft
import pytest
import torch
from peft.utils import merge_utils
from tests.merging.peft_pair import NAMES, peft_pair
from torch import Tensor

from pomona.adapters import Adapter, read_adapter
from pomona.merging import dare_linear, dare_ties, merge

# peft 0.21 still asks transformers 5.23 for a name that it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

RANDOM: dict[str, ModuleType] = {"dare_linear": dare_linear, "dare_ties": dare_ties}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[peft.PeftModel, list[Adapter]]:
    """A PEFT model with two adapters of one rank and different scalings, and what Pomona reads of them."""
    folder = tmp_path_factory.mktemp("peft")
    lora = peft_pair(folder, 2)
    return lora, [read_adapter(folder / name) for name in NAMES]


def by_peft(lora: peft.PeftModel, combination: str, weights: tuple[float, float], **options: Any) -> dict[str, Tensor]:
    """Module -> delta."""
    name = f"{combination}-{weights}-{options}".translate(str.maketrans("", "", ".{}' "))
    tuner: Any = lora.base_model
    tuner.add_weighted_adapter(list(NAMES), list(weights), name, combination_type=combination, **options)
    layers: dict[str, Any] = {
        path.removeprefix("base_model.model."): layer for path, layer in lora.named_modules() if path.endswith(("q_proj", "v_proj"))
    }
    return {path: layer.get_delta_weight(name) for path, layer in layers.items()}


def same(merged: Adapter, expected: dict[str, Tensor]) -> None:
    assert len(merged) == len(expected) == 4
    for module in merged:
        assert expected[module].count_nonzero() > 0
        torch.testing.assert_close(merged.delta(module), expected[module], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.7, 0.2), (0.5, -1.5), (-1.0, -0.3)])
@pytest.mark.parametrize("density", [0.2, 0.53])
def test_magnitude_prune_on_factors(
    model: tuple[peft.PeftModel, list[Adapter]], weights: tuple[float, float], density: float
) -> None:
    lora, adapters = model
    merged = merge(adapters, "magnitude_prune", weights, density=density, on="factors")
    same(merged, by_peft(lora, "magnitude_prune", weights, density=density))


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.7, 0.2), (0.5, -1.5), (-1.0, -0.3)])
@pytest.mark.parametrize("density", [0.2, 0.53])
@pytest.mark.parametrize("majority", ["total", "frequency"])
def test_ties_on_factors(
    model: tuple[peft.PeftModel, list[Adapter]], weights: tuple[float, float], density: float, majority: str
) -> None:
    lora, adapters = model
    merged = merge(adapters, "ties", weights, density=density, majority=majority, on="factors")
    same(merged, by_peft(lora, "ties", weights, density=density, majority_sign_method=majority))


@pytest.mark.parametrize("density", [0.2, 0.6])
@pytest.mark.parametrize("method", ["ties", "magnitude_prune"])
def test_deltas_at_full_rank_are_pefts_svd_variants(
    model: tuple[peft.PeftModel, list[Adapter]], method: str, density: float
) -> None:
    lora, adapters = model
    merged = merge(adapters, method, (1.0, 1.0), rank=16, density=density)
    same(merged, by_peft(lora, f"{method}_svd", (1.0, 1.0), density=density, svd_rank=16))


@pytest.mark.parametrize(
    ("method", "on", "weights"),
    [
        *((method, "factors", weights) for method in RANDOM for weights in [(1.0, 1.0), (0.7, 0.2), (0.5, -1.5)]),
        *(("dare_linear", "deltas", weights) for weights in [(1.0, 1.0), (0.7, 0.2), (0.5, -1.5)]),
        ("dare_ties", "deltas", (1.0, 1.0)),  # else votes are weighted here, and not in PEFT
    ],
)
def test_dare_with_the_same_masks(
    model: tuple[peft.PeftModel, list[Adapter]],
    method: str,
    on: str,
    weights: tuple[float, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PEFT draws its masks from the global random state; here it is given those that Pomona drew for the same tensor."""
    lora, adapters = model
    drawn: list[tuple[Tensor, Tensor]] = []
    thinned = RANDOM[method].thinned  # pyright: ignore[reportAttributeAccessIssue]

    def recorded(values: Tensor, keep_probability: float, generator: torch.Generator) -> Tensor:
        result = thinned(values, keep_probability, generator)
        drawn.append((values.clone(), result != 0))
        return result

    def replayed(tensor: Tensor, density: float, rescale: bool) -> Tensor:
        assert rescale
        (mask,) = [mask for values, mask in drawn if values.shape == tensor.shape and torch.allclose(values, tensor, atol=1e-6)]
        return tensor * mask / density

    monkeypatch.setattr(RANDOM[method], "thinned", recorded)
    monkeypatch.setattr(merge_utils, "random_pruning", replayed)
    merged = merge(adapters, method, weights, rank=16 if on == "deltas" else None, density=0.6, on=on)
    assert len(drawn) == (8 if on == "deltas" else 16)
    options = {"svd_rank": 16} if on == "deltas" else {}
    same(merged, by_peft(lora, method + ("_svd" if on == "deltas" else ""), weights, density=0.6, **options))
