"""Folders that are something else than a PEFT adapter: what they are is said, and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.adapters.builders import Q0, peft_config, write_folder

from pomona.adapters import read_adapter
from pomona.errors import InputError

ONE = {"weight": torch.ones(2, 2)}


def folder_of(path: Path, *names: str) -> Path:
    path.mkdir()
    for name in names:
        if name.endswith(".safetensors"):
            save_file(ONE, path / name)
        else:
            (path / name).write_text("{}")
    return path


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["config.json", "model.safetensors"],
            r"base: is a whole model and no adapter\. .*pomona convert .*base --to lora --rank R",
        ),
        (["config.json", "model.safetensors.index.json"], "is a whole model and no adapter"),
        (["config.json", "pytorch_model.bin"], "is a whole model and no adapter"),
        (
            ["adapters.safetensors"],
            r"adapters\.safetensors: is an adapter of mlx-lm, whose factors are transposed\. Convert it: pomona",
        ),
        (["adapter_config.json", "adapters.safetensors"], "is an adapter of mlx-lm"),
        (["adapter_config.json", "model.safetensors"], "is a whole model and no adapter"),
        (["adapter_model.safetensors"], r"has no adapter_config\.json, which says how its factors count"),
        (["adapter_model.bin"], r"has no adapter_config\.json, which says"),
        (["lora.gguf"], r"has no adapter_config\.json but a GGUF file, lora\.gguf"),
        (["README.md"], r"base: has no adapter_config\.json\. Give the folder of a PEFT adapter"),
    ],
)
def test_what_a_folder_is(names: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_adapter(folder_of(tmp_path / "base", *names))


def test_a_folder_of_mlx_lm_names_its_config(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mlx", "adapters.safetensors")
    (folder / "adapter_config.json").write_text(
        json.dumps({"fine_tune_type": "lora", "lora_parameters": {"rank": 8, "scale": 20.0}})
    )
    with pytest.raises(InputError, match=r"mlx-lm.*pomona convert .*mlx --output DIR"):
        read_adapter(folder)


def test_a_gguf_file_given_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "lora.gguf").write_bytes(b"GGUF\x03\0\0\0")
    with pytest.raises(InputError, match=r"lora\.gguf: is a GGUF file, the format of llama\.cpp\. Give the PEFT folder"):
        read_adapter(tmp_path / "lora.gguf")


def test_the_newest_checkpoint_is_that_of_the_highest_number(tmp_path: Path) -> None:
    for step in (1000, 200, 30):
        write_folder(tmp_path / "outer" / f"checkpoint-{step}")
    with pytest.raises(
        InputError, match=r"3 adapters: checkpoint-30, checkpoint-200, checkpoint-1000\. Give one .*checkpoint-1000\."
    ):
        read_adapter(tmp_path / "outer")


def test_of_many_checkpoints_the_last_are_shown(tmp_path: Path) -> None:
    for step in range(8, 13):
        write_folder(tmp_path / "outer" / f"checkpoint-{step}", {}, peft_config())
    write_folder(tmp_path / "outer" / "checkpoint-2", {Q0: torch.ones(1)}, peft_config())
    with pytest.raises(
        InputError, match=r"6 adapters: \.\.\., checkpoint-8, .*checkpoint-12\. Give one of them: .*checkpoint-12\."
    ):
        read_adapter(tmp_path / "outer")
