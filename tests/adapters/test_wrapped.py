"""Keys that are not PEFT's own: PEFT passes over most of them in silence, Pomona reads what they mean and says so."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.adapters.builders import Q0, V0, peft_config, peft_tensors, write_folder
from tests.adapters.test_peft import attached_modules, logits, new_llama, saved_by_peft
from transformers import PreTrainedModel
from typer.testing import CliRunner

from pomona.adapters import check_adapters, read_adapter, write_adapter
from pomona.adapters.export import export_peft
from pomona.cli.main import app
from pomona.errors import InputError
from pomona.merging import merge

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Found missing adapter keys:UserWarning"),
]
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
Rename = Callable[[str], str]


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    return new_llama()


def renamed(folder: Path, rename: Rename) -> None:
    save_file({rename(key): tensor for key, tensor in load_file(folder / TENSORS).items()}, folder / TENSORS)


def on_peft(model: PreTrainedModel, folder: Path) -> torch.Tensor:
    return logits(peft.PeftModel.from_pretrained(copy.deepcopy(model), str(folder)).eval())


def named(name: str) -> Rename:
    return lambda key: key.replace("lora_A.", f"lora_A.{name}.").replace("lora_B.", f"lora_B.{name}.")


# name -> (how the keys are spelt, part of the warning or None, whether PEFT applies the file as it is)
SPELLINGS: dict[str, tuple[Rename, str | None, bool]] = {
    "wrapped twice": (lambda key: PREFIX + key, "start with 'base_model.model.base_model.model.' instead of", False),
    "wrapped three times": (lambda key: PREFIX * 2 + key, "so PEFT would apply none of them", False),
    "no prefix": (lambda key: key.removeprefix(PREFIX), "the keys lack 'base_model.model.'", False),
    "DDP around PEFT": (lambda key: f"module.{key}", "start with 'module.base_model.model.'", False),
    "PEFT around DDP": (lambda key: key.replace(PREFIX, f"{PREFIX}module."), "'base_model.model.module.'", False),
    "compiled": (lambda key: key.replace(PREFIX, f"{PREFIX}_orig_mod."), "'base_model.model._orig_mod.'", False),
    "compiled by layer": (lambda key: key.replace(".self_attn", "._orig_mod.self_attn"), "_orig_mod in the keys' paths is", False),
    "sharded by layer": (
        lambda key: key.replace(".self_attn", "._fsdp_wrapped_module._checkpoint_wrapped_module.self_attn"),
        "_checkpoint_wrapped_module and _fsdp_wrapped_module in the keys' paths are",
        False,
    ),
    "adapted again": (lambda key: key.replace(".lora_", ".base_layer.lora_"), "base_layer in the keys' paths", False),
    "the default adapter's name": (named("default"), None, True),
    "another adapter's name": (named("german"), "the keys name the adapter 'german'", False),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_peft_applies_the_written_adapter(spelling: str, llama: PreTrainedModel, tmp_path: Path) -> None:
    rename, warning, applied = SPELLINGS[spelling]
    expected = logits(saved_by_peft(llama, tmp_path / "a", target_modules=["q_proj", "v_proj"]))
    effect = float((expected - logits(llama)).abs().max())
    assert effect > 1e-2
    whole = read_adapter(tmp_path / "a")
    assert whole.provenance["warnings"] == []
    renamed(tmp_path / "a", rename)
    # B is zero where PEFT finds no tensors for what it attached.
    assert bool((on_peft(llama, tmp_path / "a") - expected).abs().max() < 1e-4 * effect) == applied

    adapter = read_adapter(tmp_path / "a")
    assert adapter.fingerprint() == whole.fingerprint()
    told = str(adapter.provenance["warnings"])
    assert told == "[]" if warning is None else warning in told
    write_adapter(adapter, tmp_path / "written")
    write_adapter(merge([adapter], "concat"), tmp_path / "merged")
    export_peft(adapter, tmp_path / "exported")
    assert (on_peft(llama, tmp_path / "merged") - expected).abs().max() < 1e-4 * effect
    assert len({read_adapter(tmp_path / name).fingerprint() for name in ("written", "exported")}) == 1
    for module in adapter:
        torch.testing.assert_close(read_adapter(tmp_path / "written").delta(module), whole.delta(module))
    assert all(finding.level != "error" for finding in check_adapters([tmp_path / "a"], targets=["peft"]))


def test_an_adapter_made_of_an_adapted_model(llama: PreTrainedModel, tmp_path: Path) -> None:
    """As it happens: a model that PEFT has adapted already is adapted again, and the names there are in the config."""
    config: dict[str, Any] = {"r": 2, "lora_alpha": 3, "init_lora_weights": False}
    once = peft.get_peft_model(copy.deepcopy(llama), peft.LoraConfig(target_modules=["q_proj"], **config))
    targets = r"base_model\.model\.model\.layers\.\d\.self_attn\.q_proj"
    patterns = {r"^base_model\.model\.model\.layers\.0\.self_attn\.q_proj": 4}
    again = peft.LoraConfig(target_modules=targets, rank_pattern=patterns, **config)
    with pytest.warns(UserWarning, match="second time|multiple adapters"):
        twice: Any = peft.get_peft_model(once, again).eval()
    twice.save_pretrained(str(tmp_path / "a"))
    keys = load_file(tmp_path / "a" / TENSORS)
    assert any(key.startswith(PREFIX * 2) for key in keys)
    adapter = read_adapter(tmp_path / "a")
    assert adapter[Q0].rank == 4
    assert "auto_mapping" not in adapter.provenance  # it would name PEFT's own class as the base model's
    write_adapter(adapter, tmp_path / "b")
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(llama), str(tmp_path / "b")).eval()
    assert attached_modules(loaded) == set(adapter)
    torch.testing.assert_close(logits(loaded), logits(twice), rtol=1e-5, atol=1e-5)


def test_the_verbs_agree_on_a_wrapped_adapter(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", {PREFIX + key: tensor for key, tensor in peft_tensors().items()})
    for command in (
        ["inspect", str(folder), "--json"],
        ["check", str(folder), "--for", "peft"],
        ["merge", str(folder), "--method", "concat", "--output", str(tmp_path / "m")],
        ["export", str(folder), "--for", "peft", "--output", str(tmp_path / "e")],
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    for written in ("m", "e"):
        assert set(load_file(tmp_path / written / TENSORS)) == set(peft_tensors())
    told = CliRunner().invoke(app, ["check", str(folder)])
    assert "so PEFT would apply none of them" in " ".join(told.output.split())


def test_a_missing_rank_or_alpha_is_peft_s_default(llama: PreTrainedModel, tmp_path: Path) -> None:
    assert (peft.LoraConfig().r, peft.LoraConfig().lora_alpha) == (8, 8)
    settings = {"target_modules": ["q_proj"], "init_lora_weights": False}
    adapted = peft.get_peft_model(copy.deepcopy(llama), peft.LoraConfig(r=8, lora_alpha=8, **settings)).eval()
    adapted.save_pretrained(str(tmp_path / "a"))
    file = tmp_path / "a" / CONFIG
    config = {name: value for name, value in json.loads(file.read_text()).items() if name not in ("r", "lora_alpha")}
    file.write_text(json.dumps(config))
    adapter = read_adapter(tmp_path / "a")
    assert {adapter[module].scaling for module in adapter} == {1.0}
    assert "r is missing and is taken as 8, as PEFT does" in str(adapter.provenance["warnings"])
    torch.testing.assert_close(on_peft(llama, tmp_path / "a"), logits(adapted), rtol=1e-5, atol=1e-5)
    del config["target_modules"]  # PEFT has a table of model types for this
    file.write_text(json.dumps(config))
    assert read_adapter(tmp_path / "a").fingerprint() == adapter.fingerprint()


@pytest.mark.parametrize(
    ("field", "variant"),
    [
        ("velora_config", peft.tuners.lora.config.VeloraConfig(num_groups=4)),
        ("monteclora_config", peft.tuners.lora.config.MontecloraConfig(num_samples=2)),
    ],
)
def test_variants_that_work_in_training_only(field: str, variant: object, llama: PreTrainedModel, tmp_path: Path) -> None:
    """They bring tensors of their own, and in use they are the plain LoRA."""
    adapted = saved_by_peft(llama, tmp_path / "a", target_modules=["q_proj"], **{field: variant})
    plain = {key for key in load_file(tmp_path / "a" / TENSORS) if key.endswith((".lora_A.weight", ".lora_B.weight"))}
    assert plain != set(load_file(tmp_path / "a" / TENSORS))
    adapter = read_adapter(tmp_path / "a")
    assert f"{field} works in training only" in str(adapter.provenance["warnings"])
    write_adapter(adapter, tmp_path / "b")
    assert set(load_file(tmp_path / "b" / TENSORS)) == plain
    torch.testing.assert_close(on_peft(llama, tmp_path / "b"), logits(adapted), rtol=1e-5, atol=1e-5)


def test_patterns_that_match_nothing_are_a_warning_as_in_peft(llama: PreTrainedModel, tmp_path: Path) -> None:
    config = peft_config(rank_pattern={"q_porj": 2, "q_proj": 4}, alpha_pattern={r"layers\.9\..*": 5})
    adapter = read_adapter(write_folder(tmp_path / "a", config=config))
    assert adapter.provenance["warnings"] == [
        "rank_pattern: q_porj match no adapted module and are ignored, as in PEFT",
        r"alpha_pattern: layers\.9\..* match no adapted module and are ignored, as in PEFT",
    ]
    settings: dict[str, Any] = {"target_modules": ["q_proj"], "rank_pattern": {"q_porj": 2, "q_proj": 4}}
    with pytest.warns(RuntimeWarning, match=r"rank_pattern keys did not match any targeted module and were ignored: \['q_porj'\]"):
        peft.get_peft_model(copy.deepcopy(llama), peft.LoraConfig(r=4, **settings))


def test_a_byte_order_mark_is_no_part_of_the_config(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a")
    fingerprint = read_adapter(folder).fingerprint()
    (folder / CONFIG).write_bytes(b"\xef\xbb\xbf" + (folder / CONFIG).read_bytes())
    assert read_adapter(folder).fingerprint() == fingerprint


def test_a_file_of_two_adapters_names_both(tmp_path: Path) -> None:
    tensors = {named("german")(key): tensor for key, tensor in peft_tensors({Q0: 4}).items()}
    tensors |= {named("czech")(key): tensor for key, tensor in peft_tensors({V0: 4}).items()}
    with pytest.raises(InputError, match=r"holds the factors of several adapters, 'czech' and 'german'\. Save each adapter into"):
        read_adapter(write_folder(tmp_path / "a", tensors))
