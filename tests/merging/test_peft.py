"""Parity with PEFT's add_weighted_adapter on a tiny random Llama."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.merging.peft_pair import NAMES, peft_pair

from pomona.adapters import read_adapter
from pomona.merging import merge

# peft 0.21 still asks transformers 5.23 for a name that it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[peft.PeftModel, Path]:
    """A PEFT model with two adapters of one rank and different scalings, and the folder where it saved them."""
    folder = tmp_path_factory.mktemp("peft")
    return peft_pair(folder, 1), folder


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.7, 0.2), (0.5, -1.5)])
@pytest.mark.parametrize(
    ("method", "combination", "rank"),
    [("concat", "cat", None), ("linear", "linear", None), ("svd", "svd", None), ("svd", "svd", 6)],
)
def test_same_delta_as_peft(
    model: tuple[peft.PeftModel, Path], method: str, combination: str, rank: int | None, weights: tuple[float, float]
) -> None:
    lora, folder = model
    merged_name = f"{method}-{rank}-{weights}".replace(".", "_")
    tuner: Any = lora.base_model
    tuner.add_weighted_adapter(list(NAMES), list(weights), merged_name, combination_type=combination, svd_rank=rank)
    merged = merge([read_adapter(folder / name) for name in NAMES], method, weights, rank)
    assert len(merged) == 4
    for module in merged:
        layer: Any = lora.get_submodule(f"base_model.model.{module}")
        expected = layer.get_delta_weight(merged_name)
        torch.testing.assert_close(merged.delta(module), expected, rtol=1e-5, atol=1e-5)
