from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import save_file
from tests.adapters.builders import Q0, Q1, V0, V1, embedding_tensors, peft_config, peft_tensors, write_folder

import pomona.adapters.check as check_module
from pomona.adapters import Finding, check_adapters
from pomona.errors import InputError


def base_folder(path: Path, rows: int = 20, **config: object) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    save_file({f"{module}.weight": torch.zeros(rows, 12) for module in (Q0, V0, Q1, V1)}, path / "model.safetensors")
    return path


LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_size": 20,
    "num_key_value_heads": 2,
}


def test_all_is_well(tmp_path: Path) -> None:
    folders = [write_folder(tmp_path / name, config=peft_config(target_modules=["q_proj", "v_proj"])) for name in "ab"]
    findings = check_adapters(folders)
    assert [(one.level, one.subject) for one in findings] == [("ok", str(folder)) for folder in folders]
    assert findings[0].message == "4 modules, all values finite, trained on base"


def test_every_adapter_is_looked_at_after_an_error(tmp_path: Path) -> None:
    tensors = peft_tensors()
    tensors[f"base_model.model.{Q0}.lora_A.weight"][0, 0] = torch.inf
    targets = {"target_modules": ["q_proj", "v_proj"]}
    write_folder(tmp_path / "nan", tensors)
    write_folder(tmp_path / "dora", config=peft_config(use_dora=True))
    write_folder(tmp_path / "small", peft_tensors(in_features=6), peft_config(**targets, base_model_name_or_path="other"))
    write_folder(tmp_path / "good", config=peft_config(**targets))
    findings = check_adapters([tmp_path / name for name in ("nan", "missing", "dora", "good", "small")])
    assert [one.level for one in findings] == ["error", "error", "error", "ok", "ok", "error"]
    assert "NaN" in findings[0].message
    assert "no such folder" in findings[1].message
    assert "use_dora" in findings[2].message
    assert "20 x 6" in findings[5].message


def test_contradicting_bases_are_a_warning(tmp_path: Path) -> None:
    targets = {"target_modules": ["q_proj", "v_proj"]}
    write_folder(tmp_path / "a", config=peft_config(**targets))
    write_folder(tmp_path / "b", config=peft_config(**targets, base_model_name_or_path="other"))
    assert [one.level for one in check_adapters([tmp_path / "a", tmp_path / "b"])] == ["ok", "ok", "warning"]


def test_targets_without_factors_are_a_warning(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", config=peft_config(target_modules=["q_proj", "v_proj", "up_proj"]))
    (finding,) = [one for one in check_adapters([folder]) if one.level == "warning"]
    assert finding == Finding("warning", str(folder), "target_modules names up_proj, for which the file has no factors")


def test_what_reading_had_to_say_is_told_once(tmp_path: Path) -> None:
    folders = [write_folder(tmp_path / name, embedding_tensors(), peft_config(target_modules=["embed_tokens"])) for name in "ab"]
    warnings = [one for one in check_adapters(folders, targets=["peft"]) if one.level == "warning"]
    assert [one.subject for one in warnings] == [str(folder) for folder in folders]
    assert all("copies of the base model's own weights" in one.message for one in warnings)


def test_no_adapters_no_findings() -> None:
    assert check_adapters([]) == []


def test_against_the_base(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", config=peft_config(target_modules=["q_proj", "v_proj"]))
    base = base_folder(tmp_path / "base", **LLAMA)
    (_, finding) = check_adapters([folder], base)
    assert finding == Finding("ok", f"{folder} on {base}", "4 of 4 modules have the base's shapes")
    other = base_folder(tmp_path / "other", rows=24, **LLAMA)
    (_, finding, *_) = check_adapters([folder], other)
    assert (finding.level, finding.subject) == ("error", f"{folder} on {other}")
    assert "adapts a weight of 20 x 12 (out x in), but the base's is 24 x 12 as it is stored. Use the base" in finding.message
    assert finding.message.endswith("; so 3 more modules")


def test_a_base_that_cannot_be_read_is_an_error_among_the_findings(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", config=peft_config(target_modules=["q_proj", "v_proj"]))
    (_, finding) = check_adapters([folder], tmp_path / "nowhere")
    assert (finding.level, finding.subject) == ("error", str(tmp_path / "nowhere"))
    assert "no such folder" in finding.message


def test_a_base_without_an_identity_can_still_be_compared(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", config=peft_config(target_modules=["q_proj", "v_proj"]))
    findings = check_adapters([folder], base_folder(tmp_path / "base"))
    assert [one.level for one in findings] == ["ok", "warning", "ok"]
    assert "does not name the model's class" in findings[1].message


def test_programs_are_warned_of_unless_they_are_asked_for(tmp_path: Path) -> None:
    tensors = peft_tensors({Q0: 600})
    folder = write_folder(tmp_path / "a", tensors, peft_config(r=600, target_modules=["q_proj"]))
    problem = "vllm will not load it: it has rank 600, and vLLM takes at most 512. Give `rank` 512."
    assert check_adapters([folder])[1:] == [Finding("warning", str(folder), problem)]
    asked = check_adapters([folder], targets=["vllm", "peft"])[1:]
    assert asked == [
        Finding("error", str(folder), problem),
        Finding("ok", str(folder), 'peft will load it, exported with target="peft"'),
    ]


def test_programs_hear_of_the_base(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", config=peft_config(target_modules=["q_proj", "v_proj"]))
    base = base_folder(tmp_path / "base", **{**LLAMA, "architectures": ["NeverHeardOfForCausalLM"]})
    (finding,) = [one for one in check_adapters([folder], base, ["llama.cpp"]) if one.level == "error"]
    assert "llama.cpp will not load it: it is for a NeverHeardOfForCausalLM" in finding.message
    with mock.patch.object(check_module, "problems_for", return_value=[]) as asked:
        check_adapters([folder], base, ["vllm"])
    (_, _, known), _ = asked.call_args
    assert (known.name, known.layers) == ("NeverHeardOfForCausalLM", 2)


def test_an_unknown_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"target: unknown program \(got 'vlm'\)\. Did you mean 'vllm'\?"):
        check_adapters([tmp_path], targets=["vlm"])
