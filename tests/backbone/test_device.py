"""Precision and device by default, and what is said of a GPU that is not used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tiny import save_tiny_model

from pomona.backbone import device
from pomona.backbone.device import described, resolve_dtype, unused_gpu
from pomona.backbone.load import load_backbone
from pomona.backbone.speed import CompletionHead, Packing
from pomona.errors import InputError

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def test_auto_is_float32_on_a_cpu_and_bfloat16_on_a_gpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_dtype("auto", CPU) == torch.float32
    for there, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, there=there: there)
        assert resolve_dtype("auto", GPU) == expected
    assert resolve_dtype("float16", GPU) == torch.float16
    with pytest.raises(InputError, match=r"unknown dtype .*Use one of auto, float32, bfloat16, float16"):
        resolve_dtype("int8", CPU)


def test_tf32_is_for_models_in_half_precision_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Products:
        allow_tf32 = False

    products = Products()
    monkeypatch.setattr(torch.backends.cuda, "matmul", products)
    device.use_tensor_cores(CPU, torch.bfloat16)
    device.use_tensor_cores(GPU, torch.float32)
    assert not products.allow_tf32
    device.use_tensor_cores(GPU, torch.bfloat16)
    assert products.allow_tf32


def test_a_backbone_says_where_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_backbone(str(folder), "cpu", "bfloat16").where == "bfloat16 on cpu"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda place: "NVIDIA H200")
    assert described(GPU, torch.bfloat16) == "bfloat16 on cuda:0 (NVIDIA H200)"


@pytest.mark.parametrize(
    ("built", "why"),
    [
        (None, "is built without CUDA: install torch's build for CUDA"),
        ("13.2", "is built for CUDA 13.2, which the driver may be too old"),
    ],
)
def test_a_gpu_that_is_not_used_is_told_of(
    built: str | None, why: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(device, "_NVIDIA", (tmp_path / "nvidia0",))
    assert unused_gpu() is None
    assert load_backbone(str(folder)).warnings == ()
    (tmp_path / "nvidia0").touch()
    (told,) = load_backbone(str(folder)).warnings
    assert told.startswith("this machine has an NVIDIA GPU that is not used, so the model is on the CPU; torch ")
    assert why in told
    assert load_backbone(str(folder), "cpu").warnings == ()  # as asked for


def test_an_attention_implementation_is_checked_before_loading_and_used(folder: Path) -> None:
    found = load_backbone(str(folder), "cpu", attention="eager")
    assert found.model.config._attn_implementation == "eager"
    assert CompletionHead in found.speed
    assert Packing not in found.speed  # it has an attention of its own
    assert Packing in load_backbone(str(folder), "cpu", attention="sdpa").speed
    with pytest.raises(InputError, match=r"attention: no such attention implementation .*Did you mean 'sdpa'"):
        load_backbone("no such model", attention="sdpaa")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="attention: its package is not installed, or this machine has no GPU for it"):
            load_backbone("no such model", attention="flash_attention_2")
