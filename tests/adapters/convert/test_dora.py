"""DoRA as plain factors: PEFT's logits before and after."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.adapters.convert.models import Q0, assert_same_effect, new_model, peft_adapter, peft_logits, saved

from pomona.adapters import Factors, read_adapter
from pomona.adapters.convert import convert
from pomona.adapters.convert.dora import dora_delta
from pomona.errors import InputError

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning"),
    pytest.mark.filterwarnings("ignore:Model .*tie_word_embeddings=True:UserWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to:UserWarning"),
]

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "linear modules": ("llama", {}),
    "rsLoRA, ranks and alphas by pattern": (
        "llama",
        {"use_rslora": True, "rank_pattern": {"layers.1.self_attn.q_proj": 2}, "alpha_pattern": {"down_proj": 3}},
    ),
    "an embedding and the head": ("llama", {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}),
    "a tied head": ("tied", {"target_modules": ["q_proj", "lm_head"]}),
    "Conv1D": ("gpt2", {"target_modules": ["c_attn", "c_proj"]}),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(new_model(), tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def made(base: Path) -> Path:
    peft_adapter(base, base.parent / "dora", use_dora=True)
    return base.parent / "dora"


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """One to change."""
    return shutil.copytree(made, tmp_path / "dora")


@pytest.mark.parametrize("name", CASES)
def test_at_full_rank_peft_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    kind, changes = CASES[name]
    base = saved(new_model(kind), tmp_path / "base")
    expected = peft_adapter(base, tmp_path / "dora", kind, use_dora=True, **changes)
    done = convert(tmp_path / "dora", tmp_path / "out", rank=100, base=base)
    assert_same_effect(peft_logits(tmp_path / "out", kind), expected, kind)
    assert done.approximation is not None
    assert done.approximation.error < 1e-5
    assert done.kind == "DoRA"
    assert read_adapter(tmp_path / "out").base_model == str(base)


def test_a_lower_rank_says_its_error(base: Path, folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "full", rank=100, base=base)
    done = convert(folder, tmp_path / "out", rank=2, base=base)
    full, low = read_adapter(tmp_path / "full"), read_adapter(tmp_path / "out")
    assert done.rank == 2
    shares: dict[str, float] = {}
    lost = whole = 0.0
    for module in full:
        S = torch.linalg.svdvals(full.delta(module).double())
        least = float(S[2:].square().sum())  # Eckart and Young
        found = float((full.delta(module) - low.delta(module)).double().square().sum())
        assert found == pytest.approx(least, rel=1e-3)
        shares[module] = (found / float(S.square().sum())) ** 0.5
        lost, whole = lost + found, whole + float(S.square().sum())
    assert done.approximation is not None
    assert done.approximation.error == pytest.approx((lost / whole) ** 0.5, rel=1e-4)
    assert done.approximation.worst_module == max(shares, key=lambda module: shares[module])
    assert done.approximation.worst_error == pytest.approx(max(shares.values()), rel=1e-4)
    assert any("lose" in warning for warning in done.warnings)


def test_by_hand() -> None:
    W, factors = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), Factors(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0], [0.0]]), 2.0)
    # Row 0 becomes (3, 4) of norm 5, row 1 stays of norm 1.
    found = dora_delta(W, factors, torch.tensor([10.0, 3.0]))
    assert torch.equal(found, torch.tensor([[3.0, 8.0], [0.0, 2.0]]))


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to True:UserWarning")
def test_the_base_and_not_the_flag_says_how_a_weight_lies(base: Path, folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "expected", rank=2, base=base)
    edited(fan_in_fan_out=True)(folder)
    convert(folder, tmp_path / "out", rank=2, base=base)
    assert read_adapter(tmp_path / "out").fingerprint() == read_adapter(tmp_path / "expected").fingerprint()
    assert read_adapter(tmp_path / "out").provenance["fan_in_fan_out"] is False


@pytest.mark.parametrize("suffix", [".weight", ".default", ".default.weight"])
def test_magnitudes_by_other_names(suffix: str, base: Path, folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "expected", rank=2, base=base)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({key + (suffix if "magnitude" in key else ""): tensor for key, tensor in tensors.items()}, file)
    convert(folder, tmp_path / "out", rank=2, base=base)
    assert read_adapter(tmp_path / "out").fingerprint() == read_adapter(tmp_path / "expected").fingerprint()


def test_the_least_rank_that_keeps_to_an_error(base: Path, folder: Path, tmp_path: Path) -> None:
    done = convert(folder, tmp_path / "out", max_error=0.3, base=base)
    assert done.approximation is not None
    assert 0 < done.approximation.worst_error <= 0.3
    below = convert(folder, tmp_path / "below", rank=done.rank - 1, base=base)
    assert below.approximation is not None
    assert below.approximation.worst_error > 0.3


def lose_magnitude(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({key: tensor for key, tensor in tensors.items() if f"{Q0}.lora_magnitude" not in key}, file)


def cut_magnitude(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    key = f"base_model.model.{Q0}.lora_magnitude_vector"
    save_file({**tensors, key: tensors[key][:5].clone()}, file)


def lose_factors(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({key: tensor for key, tensor in tensors.items() if f"{Q0}.lora_A" not in key and f"{Q0}.lora_B" not in key}, file)


def lose_all_magnitudes(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({key: tensor for key, tensor in load_file(file).items() if "magnitude" not in key}, file)


def edited(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return edit


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (None, {}, "rank: is needed"),
        (None, {"rank": 2, "base": None}, "base: the base model's folder is needed"),
        (None, {"rank": 0}, "at least 1"),
        (None, {"max_error": 1.5}, "max_error: must be above 0 and below 1"),
        (None, {"rank": 2, "scaling": 3.0}, "scaling: has no effect"),
        (None, {"rank": 2, "drop": ["other"]}, "drop: has no effect"),
        (lose_magnitude, {"rank": 2}, f"{Q0}: has factors and no DoRA magnitude"),
        (cut_magnitude, {"rank": 2}, f"{Q0}: has magnitudes of shape (5,) and not (16,)"),
        (lose_factors, {"rank": 2}, f"{Q0}: has a DoRA magnitude and no factors"),
        (lose_all_magnitudes, {"rank": 2}, f"{Q0}: has factors and no DoRA magnitude"),
        (edited(use_dora=False), {"rank": 2}, "which PEFT passes over, since use_dora is not true"),
        (edited(bias="all"), {"rank": 2}, "adapter_config.json: bias: "),
    ],
)
def test_refusals_write_nothing(change: Any, options: dict[str, Any], said: str, base: Path, folder: Path, tmp_path: Path) -> None:
    if change is not None:
        change(folder)
    with pytest.raises(InputError) as caught:
        convert(folder, tmp_path / "out", **{"base": base, **options})
    assert said in str(caught.value)
    assert "pomona-convert-" not in str(caught.value)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["dora"]


def test_the_wrong_base(folder: Path, tmp_path: Path) -> None:
    other = saved(new_model("gpt2"), tmp_path / "other")
    with pytest.raises(InputError, match="no such module"):
        convert(folder, tmp_path / "out", rank=2, base=other)
