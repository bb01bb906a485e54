"""Entries of 1e20 and more: one rule for every merge method, and no page of LAPACK's words from any verb."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.adapters.builders import Q0, write_folder
from tests.end_to_end.setting import call

from pomona.adapters import Adapter, Factors, read_adapter
from pomona.errors import InputError
from pomona.merging import merge, merge_methods

TENSORS = "adapter_model.safetensors"


def of(scale: float, seed: int, side: str = "AB") -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    A_RI, B_OR = torch.randn(4, 12, generator=generator), torch.randn(20, 4, generator=generator)
    sizes = {"A": A_RI * (scale if "A" in side else 1), "B": B_OR * (scale if "B" in side else 1)}
    return Adapter({Q0: Factors(sizes["A"], sizes["B"])}, provenance={"path": f"adapter of {scale:g}"})


@pytest.mark.parametrize("side", ["A", "B", "AB"])
@pytest.mark.parametrize("scale", [1e18, 1e20, 3e30, 1e37])
@pytest.mark.parametrize("method", list(merge_methods))
def test_a_merge_is_finite_or_refused_with_its_source(method: str, scale: float, side: str) -> None:
    adapters = [of(1.0, 1), of(scale, 2, side)]
    refused, merged = _merged(adapters, method)
    if merged is not None:
        assert bool(torch.isfinite(merged.delta(Q0)).all())
        assert side != "AB" or scale < 1e19
    else:
        assert refused.startswith(f"adapter of {scale:g}: {Q0}: has entries up to ")


def _merged(adapters: list[Adapter], method: str) -> tuple[str, Adapter | None]:
    """The message where the merge is refused, and the merge where it is made."""
    try:
        return "", merge(adapters, method)
    except InputError as error:
        return str(error), None


def test_a_product_of_finite_factors_that_float32_does_not_hold() -> None:
    for method in ("concat", "linear", "svd"):
        with pytest.raises(InputError, match=rf"adapter of 1e\+20: {Q0}: has entries up to \d\.\d+e\+20: the merge is not finite"):
            merge([of(1e20, 1)], method)
    assert torch.isfinite(merge([of(1e18, 1)], "concat").delta(Q0)).all()  # 1e36


def test_weights_count_when_the_source_is_named() -> None:
    with pytest.raises(InputError, match=r"adapter of 1e\+19"):
        merge([of(1e18, 1), of(1e19, 2)], "concat", [1e-3, 1e6])


def large(folder: Path, value: float, dtype: torch.dtype = torch.float32) -> Path:
    """A sound adapter with entries of this size in each factor."""
    write_folder(folder)
    named = {key: torch.full_like(tensor, value, dtype=dtype) for key, tensor in load_file(folder / TENSORS).items()}
    save_file(named, folder / TENSORS)
    return folder


@pytest.mark.parametrize("value", [1e20, 1e30, 3e38, -3e38])
def test_every_verb_ends_with_a_result_or_a_line(value: float, tmp_path: Path) -> None:
    large(tmp_path / "large", value)
    write_folder(tmp_path / "good")
    for arguments in (
        ("inspect", "large"),
        ("inspect", "large", "good"),
        ("check", "large", "good"),
        ("export", "large", "--for", "peft", "-o", "out"),
        ("export", "large", "--for", "peft", "--rank", "2", "-o", "compressed"),
        ("convert", "large", "--output", "converted"),
        *(("merge", "good", "large", "--method", method, "-o", method) for method in ("svd", "ties", "tsv", "knots", "concat")),
        ("merge", "good", "large", "--weights", "nan", "-o", "weighted"),
    ):
        outcome = call(tmp_path, *arguments)
        assert outcome.code in {0, 2}, (arguments, outcome)
        assert len(outcome.errors) == (outcome.code == 2 and arguments[0] != "check")
        assert "linalg" not in outcome.err
    for folder in tmp_path.glob("*/adapter_config.json"):
        for module, factors in read_adapter(folder.parent).factors.items():
            assert all(math.isfinite(float(side.sum(dtype=torch.float64))) for side in (factors.A, factors.B)), module


def test_what_float32_does_not_hold(tmp_path: Path) -> None:
    large(tmp_path / "large", 1e39, torch.float64)
    for arguments in (("inspect", "large"), ("merge", "large", "-o", "out")):
        outcome = call(tmp_path, *arguments)
        assert outcome.code == 2
        assert f"{TENSORS}: base_model.model.{Q0}.lora_A.weight: holds values that float32 does not" in outcome.err
