from __future__ import annotations

import json
import math
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file
from tests.adapters.builders import Q0, Q1, V0, embedding_tensors, peft_config, peft_tensors, random_adapter, write_folder

import pomona.adapters.write as write_module
import pomona.whole_folders as whole_module
from pomona.adapters import Adapter, Factors, check_finite, read_adapter, write_adapter
from pomona.errors import InputError, PomonaError
from pomona.merging import merge


def test_round_trip_is_bit_identical_in_fp32(tmp_path: Path) -> None:
    adapter = random_adapter(0)
    adapter[Q0].B[0, 0] = 0.0
    adapter[Q0].B[0, 1] = -0.0
    write_adapter(adapter, tmp_path / "out")
    again = read_adapter(tmp_path / "out")
    assert again.fingerprint() == adapter.fingerprint()
    assert again.modules == adapter.modules
    assert again.base_model == "base"
    assert again.provenance["path"] == str(tmp_path / "out")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_kept_where_nothing_is_folded(tmp_path: Path, dtype: torch.dtype) -> None:
    adapter = random_adapter(0, dtype=dtype)
    write_adapter(adapter, tmp_path / "out")
    assert read_adapter(tmp_path / "out").fingerprint() == adapter.fingerprint()


def test_scaling_is_folded_into_the_up_projection_in_fp32(tmp_path: Path) -> None:
    adapter = random_adapter(0, modules=[Q0], scaling=0.3, dtype=torch.bfloat16)
    write_adapter(adapter, tmp_path / "out")
    factors = read_adapter(tmp_path / "out")[Q0]
    assert factors.scaling == 1.0
    assert torch.equal(factors.A, adapter[Q0].A.float())
    assert torch.equal(factors.B, adapter[Q0].B.float() * 0.3)


def test_smaller_ranks_are_padded_with_zeros(tmp_path: Path) -> None:
    small, large = random_adapter(1, modules=[Q0], rank=2), random_adapter(2, modules=[V0], rank=5)
    empty = {Q1: Factors(torch.zeros(0, 12), torch.zeros(20, 0))}
    adapter = Adapter({**small.factors, **large.factors, **empty})
    write_adapter(adapter, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (5, 5)
    again = read_adapter(tmp_path / "out")
    assert {again[module].rank for module in again} == {5}
    assert torch.equal(again[Q0].A[:2], small[Q0].A)
    assert again[Q0].A[2:].count_nonzero() == 0
    assert torch.equal(again[Q0].B[:, :2], small[Q0].B)
    assert again[Q0].B[:, 2:].count_nonzero() == 0
    assert torch.equal(again.delta(Q1), torch.zeros(20, 12))


def test_config_is_plain_and_names_the_adapted_modules_only(tmp_path: Path) -> None:
    write_adapter(random_adapter(0, modules=[Q1, V0]), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text()) == {
        "base_model_name_or_path": "base",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": 4,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": 4,
        "target_modules": [V0, Q1],
        "task_type": "CAUSAL_LM",
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_patterns_and_rslora(tmp_path: Path) -> None:
    # The first pattern that matches wins, and `q_proj` matches by a suffix of whole path parts only.
    ranks = {Q0: 2, "model.layers.0.self_attn.my_q_proj": 4, Q1: 3}
    config = peft_config(
        target_modules=["q_proj", "my_q_proj"],
        rank_pattern={"layers.1.self_attn.q_proj": 3, "q_proj": 2},
        alpha_pattern={r".*\.1\..*": 12},
        use_rslora=True,
    )
    adapter = read_adapter(write_folder(tmp_path / "a", peft_tensors(ranks), config))
    assert {module: adapter[module].scaling for module in adapter} == pytest.approx(
        {Q0: 8 / math.sqrt(2), "model.layers.0.self_attn.my_q_proj": 8 / math.sqrt(4), Q1: 12 / math.sqrt(3)}, rel=1e-12
    )


def test_plain_scaling_is_alpha_over_r(tmp_path: Path) -> None:
    adapter = read_adapter(write_folder(tmp_path / "a", config=peft_config(lora_alpha=6)))
    assert [adapter[module].scaling for module in adapter] == [1.5] * 4


def test_unknown_and_old_config_fields_are_tolerated(tmp_path: Path) -> None:
    config = peft_config(revision=None, enable_lora=None, merge_weights=False, a_field_of_the_future={"x": 1})
    assert len(read_adapter(write_folder(tmp_path / "a", config=config))) == 4


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], r".*\.self_attn\.[qv]_proj", "all-linear", None])
def test_a_config_of_peft_0_3(tmp_path: Path, targets: object) -> None:
    """Its fields, as it wrote them: no patterns, no flags of later years, nulls."""
    config = {
        "base_model_name_or_path": "base",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": None,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": 4,
        "revision": None,
        "target_modules": targets,
        "task_type": "CAUSAL_LM",
    }
    adapter = read_adapter(write_folder(tmp_path / "a", config=config))
    assert [adapter[module].scaling for module in adapter] == [4.0] * 4
    assert adapter.provenance["warnings"] == []


def test_null_stands_for_every_field_that_may_be_missing(tmp_path: Path) -> None:
    empty = ("rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "fan_in_fan_out", "megatron_config", "exclude_modules")
    config = peft_config(**dict.fromkeys(empty), base_model_name_or_path=None, bias=None, ensure_weight_tying=None)
    adapter = read_adapter(write_folder(tmp_path / "a", config=config))
    assert [adapter[module].scaling for module in adapter] == [2.0] * 4
    assert adapter.base_model is None


def test_an_adapter_in_the_only_subfolder_is_read(tmp_path: Path) -> None:
    inner = write_folder(tmp_path / "outer" / "default")
    (tmp_path / "outer" / "README.md").write_text("notes")
    write_folder(tmp_path / "outer" / ".default.1234.partial")
    adapter = read_adapter(tmp_path / "outer")
    assert adapter.provenance["path"] == str(inner)
    assert adapter.fingerprint() == read_adapter(inner).fingerprint()


def test_a_folder_that_is_an_adapter_is_read_before_those_in_it(tmp_path: Path) -> None:
    write_folder(tmp_path / "outer")
    write_folder(tmp_path / "outer" / "other", peft_tensors({Q0: 4}))
    assert len(read_adapter(tmp_path / "outer")) == 4


def test_several_adapters_in_subfolders_are_named(tmp_path: Path) -> None:
    for name in ("german", "czech"):
        write_folder(tmp_path / "outer" / name)
    with pytest.raises(InputError, match=r"outer: holds 2 adapters: czech, german\. Give one of them: .*outer/german\."):
        read_adapter(tmp_path / "outer")


EMBEDDING = "model.embed_tokens"


def test_embedding_factors_and_the_copy_beside_them(tmp_path: Path) -> None:
    tensors = {**peft_tensors({Q0: 4}), **embedding_tensors(vocabulary=30, hidden=12)}
    tensors[f"base_model.model.{EMBEDDING}.base_layer.weight"].fill_(math.nan)  # it is never read
    config = peft_config(target_modules=["q_proj", "embed_tokens"])
    adapter = read_adapter(write_folder(tmp_path / "a", tensors, config))
    check_finite(adapter)
    assert adapter.modules == (EMBEDDING, Q0)
    assert adapter.embeddings == {EMBEDDING}
    A, B = (tensors[f"base_model.model.{EMBEDDING}.lora_embedding_{side}"] for side in "AB")
    torch.testing.assert_close(adapter.delta(EMBEDDING), 2 * B @ A)
    assert adapter.delta(EMBEDDING).shape == (12, 30)
    (warning,) = adapter.provenance["warnings"]  # type: ignore[misc]
    assert warning.startswith(f"the copies of the base model's own weights at {EMBEDDING} are left out; if tokens were added")

    write_adapter(adapter, tmp_path / "b")
    assert set(load_file(tmp_path / "b" / "adapter_model.safetensors")) == {key for key in tensors if "base_layer" not in key}
    again = read_adapter(tmp_path / "b")
    assert again.embeddings == {EMBEDDING}
    assert again.provenance["warnings"] == []
    torch.testing.assert_close(again.delta(EMBEDDING), adapter.delta(EMBEDDING))


def test_a_head_adapted_with_its_embedding(tmp_path: Path) -> None:
    """Its copy is [out, in] as any linear weight, and it comes last."""
    head = {f"base_model.model.lm_head.lora_{side}.weight": torch.ones(shape) for side, shape in (("A", (4, 12)), ("B", (30, 4)))}
    tensors = {**head, "base_model.model.lm_head.base_layer.weight": torch.zeros(30, 12), **embedding_tensors()}
    config = peft_config(target_modules=["lm_head", "embed_tokens"])
    adapter = read_adapter(write_folder(tmp_path / "a", tensors, config))
    assert adapter.modules == (EMBEDDING, "lm_head")
    assert adapter.embeddings == {EMBEDDING}


def test_weight_tying_without_the_heads_factors_is_a_warning(tmp_path: Path) -> None:
    config = peft_config(target_modules=["embed_tokens"], ensure_weight_tying=True)
    adapter = read_adapter(write_folder(tmp_path / "a", embedding_tensors(), config))
    assert "ensure_weight_tying is on but the file has no factors of the head" in str(adapter.provenance["warnings"])


def test_experts_come_by_number(tmp_path: Path) -> None:
    prefix = "model.layers.1.block_sparse_moe.experts"
    names = [f"{prefix}.{expert}.{side}" for expert in (0, 2, 10) for side in ("w1", "w2", "w3")]
    config = peft_config(target_modules=["w1", "w2", "w3"])
    adapter = read_adapter(write_folder(tmp_path / "a", peft_tensors(dict.fromkeys(reversed(names), 4)), config))
    assert list(adapter) == names
    merged = merge([adapter, adapter], method="concat", weights=[1.0, -0.5])
    write_adapter(merged, tmp_path / "b")
    again = read_adapter(tmp_path / "b")
    # The experts between are written as zeros, without which PEFT could not put them together.
    assert list(again) == [f"{prefix}.{expert}.{side}" for expert in range(11) for side in ("w1", "w2", "w3")]
    for name in again:
        expected = 0.5 * adapter.delta(name) if name in adapter else torch.zeros(20, 12)
        torch.testing.assert_close(again.delta(name), expected, rtol=1e-5, atol=1e-5)


def test_modules_come_in_the_models_order(tmp_path: Path) -> None:
    names = [
        f"model.layers.{layer}.{name}" for layer in (0, 2, 10) for name in ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj")
    ]
    adapter = read_adapter(write_folder(tmp_path / "a", peft_tensors(dict.fromkeys(reversed(names), 4))))
    assert list(adapter.modules) == names


def test_tensors_are_read_when_asked_for(tmp_path: Path) -> None:
    tensors = peft_tensors()
    tensors[f"base_model.model.{V0}.lora_B.weight"][3, 1] = math.nan
    adapter = read_adapter(write_folder(tmp_path / "a", tensors))
    assert torch.equal(adapter[Q0].A, tensors[f"base_model.model.{Q0}.lora_A.weight"])
    assert adapter[Q0].A is not adapter[Q0].A
    with pytest.raises(InputError, match=r"lora_B.*NaN"):
        adapter[V0]
    with pytest.raises(InputError, match=f"{V0}.*NaN"):
        check_finite(adapter)
    with pytest.raises(KeyError):
        adapter["model.layers.9.self_attn.q_proj"]


def test_check_finite_of_an_adapter_in_memory() -> None:
    adapter = random_adapter(0)
    check_finite(adapter)
    adapter[Q1].A[0, 0] = math.inf
    with pytest.raises(InputError, match=f"{Q1} A: holds NaN or infinite values"):
        check_finite(adapter)


def test_existing_folder_is_refused_and_stays(tmp_path: Path) -> None:
    first, second = random_adapter(1), random_adapter(2)
    write_adapter(first, tmp_path / "out")
    with pytest.raises(InputError, match="already exists"):
        write_adapter(second, tmp_path / "out")
    assert read_adapter(tmp_path / "out").fingerprint() == first.fingerprint()
    write_adapter(second, tmp_path / "out", force=True)
    assert read_adapter(tmp_path / "out").fingerprint() == second.fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_force_never_replaces_a_folder_of_other_things(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not an adapter folder"):
        write_adapter(random_adapter(0), tmp_path, force=True)
    with pytest.raises(InputError, match="not an adapter folder"):
        write_adapter(random_adapter(0), tmp_path / "notes.txt", force=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_empty_folder_and_missing_parents_are_fine(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "empty", tmp_path / "deep" / "deeper" / "out"):
        write_adapter(random_adapter(0), target)
        assert len(read_adapter(target)) == 4


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write_module, "write_tensors", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_adapter(random_adapter(0), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_failed_replacement_gives_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = random_adapter(1)
    write_adapter(old, tmp_path / "out")
    monkeypatch.setattr(whole_module, "_renameat2", lambda: None)
    rename = Path.rename

    def refuse_new(self: Path, target: Path) -> Path:
        if self.parent.name.endswith(".partial") and not target.exists():
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_new)
    with pytest.raises(InputError, match="Input/output error"):
        write_adapter(random_adapter(2), tmp_path / "out", force=True)
    assert read_adapter(tmp_path / "out").fingerprint() == old.fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("foreign", ["README.md", "checkpoint-500/optimizer.pt", "trainer_state.json", ".hidden"])
def test_only_what_pomona_writes_is_replaced(tmp_path: Path, foreign: str) -> None:
    target = tmp_path / "out"
    write_adapter(random_adapter(1), target)
    (target / foreign).parent.mkdir(exist_ok=True)
    (target / foreign).write_text("mine")
    with pytest.raises(InputError, match=f"also holds {foreign}, which Pomona does not write"):
        write_adapter(random_adapter(2), target, force=True)
    assert (target / foreign).read_text() == "mine"
    assert read_adapter(target).fingerprint() == random_adapter(1).fingerprint()


def test_a_failed_exchange_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_adapter(random_adapter(1), tmp_path / "out")
    monkeypatch.setattr(whole_module, "_exchange", mock.Mock(side_effect=OSError(5, "Input/output error")))
    with pytest.raises(InputError, match="Input/output error"):
        write_adapter(random_adapter(2), tmp_path / "out", force=True)
    assert read_adapter(tmp_path / "out").fingerprint() == random_adapter(1).fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_open_adapter_survives_its_own_replacement(tmp_path: Path) -> None:
    write_adapter(random_adapter(1), tmp_path / "out")
    opened = read_adapter(tmp_path / "out")
    fingerprint = opened.fingerprint()
    write_adapter(random_adapter(2), tmp_path / "out", force=True)
    assert opened.fingerprint() == fingerprint


def test_infinite_result_is_not_written(tmp_path: Path) -> None:
    adapter = Adapter({Q0: Factors(torch.ones(1, 2), torch.full((2, 1), 1e38), 10.0)})
    with pytest.raises(PomonaError, match=f"{Q0}: has NaN or infinite values"):
        write_adapter(adapter, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_shared_and_strided_factors_are_written(tmp_path: Path) -> None:
    storage = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    factors = Factors(storage.T[:4], storage[:, :4])
    write_adapter(Adapter({Q0: factors, V0: factors}), tmp_path / "out")
    saved = load_file(tmp_path / "out" / "adapter_model.safetensors")
    for module in (Q0, V0):
        assert torch.equal(saved[f"base_model.model.{module}.lora_A.weight"], storage.T[:4])
        assert torch.equal(saved[f"base_model.model.{module}.lora_B.weight"], storage[:, :4])


def test_fan_in_fan_out_travels(tmp_path: Path) -> None:
    adapter = read_adapter(write_folder(tmp_path / "a", config=peft_config(fan_in_fan_out=True)))
    write_adapter(Adapter(adapter.factors, provenance=adapter.provenance), tmp_path / "b")
    assert read_adapter(tmp_path / "b").provenance["fan_in_fan_out"] is True
