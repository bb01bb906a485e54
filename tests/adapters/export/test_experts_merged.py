"""Bare parameters added to their base's files, against the model that PEFT makes of the same adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.adapters.moe import logits, relative_error, tiny_moe, trained_by_peft
from transformers import AutoModelForCausalLM

from pomona.adapters import check_adapters, read_adapter
from pomona.adapters.export import export_merged
from pomona.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning"),
]
BOTH = ["experts.gate_up_proj", "experts.down_proj"]


@pytest.mark.parametrize(
    ("kind", "changes", "parameters"),
    [
        ("qwen3_moe", {}, [*BOTH, "mlp.gate.weight"]),  # the files have a matrix an expert
        ("mixtral", {}, BOTH),  # and under another name
        ("gpt_oss", {}, [*BOTH, "router.weight", "down_proj_bias"]),  # one tensor, [E, I, O]
        ("gpt_oss", {"intermediate_size": 16}, ["experts.down_proj"]),  # square: the shape does not say which axis is which
        ("llama4_text", {}, BOTH),  # one tensor, whose last axis PEFT takes for the inputs
        ("qwen3_moe", {}, ["layers.1.mlp.experts.down_proj"]),
    ],
)
def test_the_merged_model_is_pefts(kind: str, changes: dict[str, Any], parameters: list[str], tmp_path: Path) -> None:
    model = tiny_moe(kind, **changes)
    model.save_pretrained(str(tmp_path / "base"))
    trained = trained_by_peft(model, tmp_path / "a", r=2, lora_alpha=3, target_modules=["o_proj"], target_parameters=parameters)
    adapter = read_adapter(tmp_path / "a")
    done = export_merged(adapter, tmp_path / "merged", tmp_path / "base")
    merged = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged")).eval()
    assert relative_error(logits(merged), trained, logits(model)) < 1e-4
    assert 0 <= done.details["rounding"]["error"] < 1e-5  # pyright: ignore[reportIndexIssue]
    found = check_adapters([tmp_path / "a"], tmp_path / "base")
    assert f"{len(adapter)} of {len(adapter)} modules have the base's shapes" in {finding.message for finding in found}


def test_experts_of_another_base_are_refused(tmp_path: Path) -> None:
    trained_by_peft(tiny_moe("gpt_oss"), tmp_path / "a", r=2, target_modules=[], target_parameters=BOTH)
    for name, kind, changes in (
        ("other", "gpt_oss", {"num_local_experts": 3}),
        ("wide", "gpt_oss", {"intermediate_size": 40}),
        ("renamed", "granitemoe", {}),
    ):
        tiny_moe(kind, **changes).save_pretrained(str(tmp_path / name))
        with pytest.raises(
            InputError,
            match=r"is one of 4 experts, but the base has 3 there|adapts a weight of 48 x 16|neither one tensor of this name",
        ):
            export_merged(read_adapter(tmp_path / "a"), tmp_path / "out", tmp_path / name)
        assert not (tmp_path / "out").exists()
    levels = {finding.level for finding in check_adapters([tmp_path / "a"], tmp_path / "wide") if " on " in finding.subject}
    assert "error" in levels
