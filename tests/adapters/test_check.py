from __future__ import annotations

from pathlib import Path

import torch
from tests.adapters.builders import Q0, peft_config, peft_tensors, write_folder

from pomona.adapters import check_adapters


def test_all_is_well(tmp_path: Path) -> None:
    folders = [write_folder(tmp_path / name) for name in "ab"]
    findings = check_adapters(folders)
    assert [(one.level, one.subject) for one in findings] == [("ok", str(folder)) for folder in folders]
    assert findings[0].message == "4 modules, all values finite, trained on base"


def test_every_adapter_is_looked_at_after_an_error(tmp_path: Path) -> None:
    tensors = peft_tensors()
    tensors[f"base_model.model.{Q0}.lora_A.weight"][0, 0] = torch.inf
    write_folder(tmp_path / "nan", tensors)
    write_folder(tmp_path / "dora", config=peft_config(use_dora=True))
    write_folder(tmp_path / "small", peft_tensors(in_features=6), peft_config(base_model_name_or_path="other"))
    write_folder(tmp_path / "good")
    findings = check_adapters([tmp_path / name for name in ("nan", "missing", "dora", "good", "small")])
    assert [one.level for one in findings] == ["error", "error", "error", "ok", "ok", "error"]
    assert "NaN" in findings[0].message
    assert "no such folder" in findings[1].message
    assert "use_dora" in findings[2].message
    assert "20 x 6" in findings[5].message


def test_contradicting_bases_are_a_warning(tmp_path: Path) -> None:
    write_folder(tmp_path / "a")
    write_folder(tmp_path / "b", config=peft_config(base_model_name_or_path="other"))
    assert [one.level for one in check_adapters([tmp_path / "a", tmp_path / "b"])] == ["ok", "ok", "warning"]


def test_no_adapters_no_findings() -> None:
    assert check_adapters([]) == []
