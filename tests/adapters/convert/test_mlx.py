"""Adapters of mlx-lm, made here from PEFT's by its conventions: `y = x W^T + scale (x a) b`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.adapters.convert.models import Q0, assert_same_effect, new_model, peft_adapter, peft_logits, saved
from torch import Tensor

from pomona.adapters import read_adapter
from pomona.adapters.convert import convert
from pomona.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]
PARAMETERS: dict[str, Any] = {"rank": 3, "scale": 5 / 3, "dropout": 0.0, "keys": ["self_attn.q_proj"]}
CONFIG: dict[str, Any] = {"fine_tune_type": "lora", "lora_parameters": PARAMETERS, "num_layers": 2, "model": "somewhere/base"}


def mlx_folder(folder: Path, tensors: dict[str, Tensor], **changes: Any) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **changes}))
    save_file(tensors, folder / "adapters.safetensors")
    return folder


def as_mlx(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix("base_model.model.")
        for ours, theirs in ((".lora_A.weight", ".lora_a"), (".lora_B.weight", ".lora_b"), (".lora_magnitude_vector", ".m")):
            if name.endswith(ours):
                found[name.removesuffix(ours) + theirs] = tensor.T.contiguous() if tensor.ndim == 2 else tensor
    return found


def small(rank: int = 2, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = {f"{Q0}.lora_a": (6, rank), f"{Q0}.lora_b": (rank, 4)}
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


@pytest.mark.parametrize("dora", [False, True])
def test_peft_gives_the_logits_of_its_twin(dora: bool, tmp_path: Path) -> None:
    base = saved(new_model(), tmp_path / "base")
    expected = peft_adapter(base, tmp_path / "peft", use_dora=dora)
    twin = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    folder = mlx_folder(tmp_path / "mlx", as_mlx(twin), fine_tune_type="dora" if dora else "lora")
    done = convert(folder, tmp_path / "out", base=base, rank=100 if dora else None)
    assert_same_effect(peft_logits(tmp_path / "out"), expected)
    assert done.kind == ("mlx-lm DoRA" if dora else "mlx-lm LoRA")
    assert (done.approximation is None) != dora
    if not dora:
        written = load_file(tmp_path / "out" / "adapter_model.safetensors")
        assert written.keys() == twin.keys()
        assert all(torch.equal(written[key], twin[key]) for key in twin)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_value_is_kept(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = small(dtype=dtype)
    folder = mlx_folder(tmp_path / "mlx", tensors, lora_parameters={"rank": 2, "scale": 20.0, "dropout": 0.1})
    done = convert(folder / "adapters.safetensors", tmp_path / "out")
    written = read_adapter(tmp_path / "out")
    assert written.modules == (Q0,)
    assert (written[Q0].scaling, written.base_model, done.approximation) == (20.0, "somewhere/base", None)
    assert torch.equal(written[Q0].A, tensors[f"{Q0}.lora_a"].T)
    assert torch.equal(written[Q0].B, tensors[f"{Q0}.lora_b"].T)
    assert written[Q0].A.dtype == dtype
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["lora_alpha"] == 40


def test_an_embedding_acts_on_one_hot_rows(tmp_path: Path) -> None:
    a, b = torch.randn(9, 2), torch.randn(2, 4)
    tensors = {"model.embed_tokens.lora_a": a, "model.embed_tokens.lora_b": b}
    folder = mlx_folder(tmp_path / "mlx", tensors, lora_parameters={"rank": 2, "scale": 0.5})
    done = convert(folder, tmp_path / "out")
    written = read_adapter(tmp_path / "out")
    assert written.embeddings == {"model.embed_tokens"}
    torch.testing.assert_close(written.delta("model.embed_tokens").T, 0.5 * (a @ b))  # rows of the embedding, one a token
    assert any("ties its output head" in warning for warning in done.warnings)


def test_magnitudes_of_an_embedding_are_one_a_token(tmp_path: Path) -> None:
    base = saved(new_model(), tmp_path / "base")
    W = load_file(base / "model.safetensors")["model.embed_tokens.weight"]
    a, b, m = torch.randn(50, 2), torch.randn(2, 16), 1 + torch.rand(50)
    tensors = {f"model.embed_tokens.{name}": value for name, value in (("lora_a", a), ("lora_b", b), ("m", m))}
    folder = mlx_folder(tmp_path / "mlx", tensors, fine_tune_type="dora", lora_parameters={"rank": 2, "scale": 0.5})
    convert(folder, tmp_path / "out", base=base, rank=16)
    changed = W + 0.5 * (a @ b)
    expected = m[:, None] * changed / changed.norm(dim=1, keepdim=True) - W
    torch.testing.assert_close(read_adapter(tmp_path / "out").delta("model.embed_tokens").T, expected, rtol=1e-4, atol=1e-5)


def test_older_configs_scale_by_alpha_too(tmp_path: Path) -> None:
    parameters = {"rank": 2, "alpha": 16.0, "scale": 10.0, "dropout": 0.0}
    folder = mlx_folder(tmp_path / "old", small(), lora_parameters=parameters, lora_layers=16)
    config = json.loads((folder / "adapter_config.json").read_text())
    del config["num_layers"]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    convert(folder, tmp_path / "out")
    assert read_adapter(tmp_path / "out")[Q0].scaling == 80.0
    unclear = mlx_folder(tmp_path / "unclear", small(), lora_parameters=parameters)
    with pytest.raises(InputError, match=r"`scaling` 80 or `scaling` 10\."):
        convert(unclear, tmp_path / "other")
    convert(unclear, tmp_path / "other", scaling=10.0)
    assert read_adapter(tmp_path / "other")[Q0].scaling == 10.0


def test_a_model_for_mlx_is_no_base_for_others(tmp_path: Path) -> None:
    folder = mlx_folder(tmp_path / "mlx", small(), lora_parameters={"rank": 2, "scale": 1.0}, model="mlx-community/small-4bit")
    assert any("mlx-community/small-4bit" in warning for warning in convert(folder, tmp_path / "one").warnings)
    assert convert(folder, tmp_path / "two", base_name="owner/small").warnings == ()
    assert read_adapter(tmp_path / "two").base_model == "owner/small"


def test_whole_layers_are_a_difference_from_the_base(tmp_path: Path) -> None:
    model = new_model()
    base = saved(model, tmp_path / "base")
    change = torch.randn(16, 3) @ torch.randn(3, 16)
    weight = model.get_parameter(f"{Q0}.weight") + change
    folder = mlx_folder(tmp_path / "mlx", {f"{Q0}.weight": weight}, fine_tune_type="full")
    done = convert(folder, tmp_path / "out", base=base, rank=3)
    assert done.approximation is not None
    assert done.approximation.error < 1e-5
    torch.testing.assert_close(read_adapter(tmp_path / "out").delta(Q0), change, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("tensors", "config", "said"),
    [
        (small(), {"fine_tune_type": "dora"}, "fine_tune_type: is 'dora', but there are no magnitudes"),
        ({**small(), f"{Q0}.m": torch.ones(4)}, {}, "fine_tune_type: is 'lora', but there are magnitudes"),
        ({f"{Q0}.lora_a": torch.zeros(6, 2)}, {}, f"{Q0}: has no lora_b"),
        ({"a.lora_a": torch.zeros(4, 2, 6), "a.lora_b": torch.zeros(4, 5, 2)}, {}, "of fused experts"),
        ({**small(), "model.norm.weight": torch.ones(3)}, {}, "model.norm.weight: is neither"),
        (
            small(),
            {"lora_parameters": {"rank": 3, "scale": 1.0}},
            "lora_parameters.rank: is not the rank of the tensors, 2 (got 3)",
        ),
        (small(), {"lora_parameters": None}, "lora_parameters: is missing"),
        (small(), {"lora_parameters": {"rank": 2}}, "lora_parameters.scale: must be a finite number (got None)"),
        ({**small(), f"{Q0}.lora_b": torch.full((2, 4), float("nan"))}, {"lora_parameters": {"rank": 2, "scale": 1.0}}, "NaN"),
    ],
)
def test_refusals_write_nothing(tensors: dict[str, Tensor], config: dict[str, Any], said: str, tmp_path: Path) -> None:
    folder = mlx_folder(tmp_path / "mlx", tensors, **config)
    with pytest.raises(InputError) as caught:
        convert(folder, tmp_path / "out")
    assert said in str(caught.value)
    assert str(folder) in str(caught.value)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["mlx"]
