"""Modules that transformers 5 renamed: the newer name, the older one, and PEFT's logits as the judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tests.adapters.builders import Q0, peft_config, peft_tensors, random_adapter, write_folder
from tests.adapters.renamed_models import PEFT_TRANSLATES, as_before, assert_same_effect, build, logits, older, trained
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from pomona.adapters import read_adapter, write_adapter
from pomona.adapters.base_modules import misfit, respelled
from pomona.adapters.export import export_adapter
from pomona.adapters.names import newer_spelling, older_spelling, older_spellings, two_spellings
from pomona.backbone.base_modules import modules_of, modules_of_folder
from pomona.errors import InputError
from pomona.merging import merge

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's and transformers' own, about models of this size


@pytest.fixture(scope="module", params=["gemma3", "qwen2_vl"])
def name(request: pytest.FixtureRequest) -> str:
    """One family of each kind: PEFT renames the keys of the first, and passes over those of the second."""
    return request.param


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: build(name) for name in (*PEFT_TRANSLATES, "qwen2_vl", "qwen2_5_vl")}


@pytest.mark.parametrize("family", PEFT_TRANSLATES)
def test_names_are_those_of_transformers(family: str, models: dict[str, Any]) -> None:
    renamings = [one for one in get_model_conversion_mapping(models[family]) if isinstance(one, WeightRenaming)]
    for module in ("language_model.model.layers.1.mlp.up_proj", "language_model.lm_head", "multi_modal_projector.linear_1"):
        assert newer_spelling(module) == rename_source_key(f"{module}.weight", renamings, [])[0].removesuffix(".weight")
        assert older_spelling(newer_spelling(module)) == module
        assert module in older_spellings(newer_spelling(module))


@given(st.lists(st.sampled_from(["model", "language_model", "layers", "0", "q_proj", "vision_tower", "lm_head"]), min_size=1))
def test_a_newer_name_is_its_own(parts: list[str]) -> None:
    newer = newer_spelling(".".join(parts))
    assert newer_spelling(newer) == newer


@pytest.mark.parametrize("module", [Q0, "lm_head", "model.language_model.layers.0.q", "language_model.model.decoder.layers.0.q"])
def test_names_that_stay(module: str) -> None:
    """The last is BLIP-2's, which transformers 5 did not rename."""
    assert newer_spelling(module) == module


def test_both_names_in_one_file_are_refused(tmp_path: Path) -> None:
    modules = ["language_model.model.layers.0.q_proj", "model.language_model.layers.0.q_proj"]
    folder = write_folder(tmp_path / "a", peft_tensors(dict.fromkeys(modules, 4)))
    with pytest.raises(InputError, match=r"language_model\.model\.layers\.0\.q_proj: is model\.language_model.*PEFT would use one"):
        read_adapter(folder)


def test_an_older_adapter_is_written_so_that_peft_loads_it(name: str, models: dict[str, Any], tmp_path: Path) -> None:
    model = models[name]
    newer = trained(model, tmp_path / "newer", 1)
    before = as_before(name, newer, tmp_path / "before")
    bare, expected = logits(model), logits(model, newer)
    adapter = read_adapter(before)
    if name in PEFT_TRANSLATES:
        assert "is the older name of" in str(adapter.provenance["warnings"])
        assert all(module.startswith("model.language_model.") for module in adapter)
        write_adapter(adapter, tmp_path / "written")
        assert_same_effect(logits(model, tmp_path / "written"), expected, bare)
        again = read_adapter(tmp_path / "written")
        assert again.modules == adapter.modules
    # Where the base is known, its own names are written, whatever PEFT renames.
    write_adapter(respelled(adapter, modules_of(model)), tmp_path / "fitted")
    assert_same_effect(logits(model, tmp_path / "fitted"), expected, bare)
    assert set(load_file(tmp_path / "fitted" / "adapter_model.safetensors")) == set(load_file(newer / "adapter_model.safetensors"))


def test_an_older_and_a_newer_adapter_are_merged(name: str, models: dict[str, Any], tmp_path: Path) -> None:
    model = models[name]
    newer = [trained(model, tmp_path / str(seed), seed) for seed in (1, 2)]
    given = [read_adapter(as_before(name, newer[0], tmp_path / "before")), read_adapter(newer[1])]
    if name not in PEFT_TRANSLATES:
        with pytest.raises(InputError, match=r"model\.language_model\.layers\.0.*may be model\.layers\.0.*merge --base"):
            merge(given)
        given = [respelled(adapter, modules_of(model)) for adapter in given]
    write_adapter(merge(given, "concat"), tmp_path / "merged")
    assert_same_effect(logits(model, tmp_path / "merged"), logits(model, *newer), logits(model))


def test_the_base_as_the_hub_has_it_is_merged_into(name: str, models: dict[str, Any], tmp_path: Path) -> None:
    """transformers writes a checkpoint's own, older names again, and so does a merge into it."""
    model = models[name]
    newer = trained(model, tmp_path / "newer", 1)
    base = tmp_path / "base"
    model.save_pretrained(base)
    names = set(load_file(base / "model.safetensors"))
    assert f"{older(name, 'model.language_model.layers.0.self_attn.q_proj')}.weight" in names
    for number, folder in enumerate((newer, as_before(name, newer, tmp_path / "before"))):
        adapter = read_adapter(folder)
        table = modules_of_folder(base, adapter.modules)
        assert table is not None
        out = tmp_path / f"out{number}"
        export_adapter(adapter, "merged", out, base=base, modules=table)
        assert set(load_file(out / "model.safetensors")) == names
        assert_same_effect(logits(type(model).from_pretrained(out).eval()), logits(model, newer), logits(model))


@pytest.mark.parametrize("family", ["gemma3", "qwen2_vl", "qwen2_5_vl"])
def test_a_path_must_be_whole(family: str, models: dict[str, Any]) -> None:
    """What PEFT passes over is no module of the base: a prefix less, one more, the names of another model."""
    table = modules_of(models[family])
    for start in (
        "",
        "model.model.",
        "language_model.",
        "transformer.model.language_model.",
        *(["model."] if family == "gemma3" else []),
    ):
        module = f"{start}layers.0.self_attn.q_proj"
        if start == "language_model." and family == "gemma3":
            continue  # transformers renames it too
        found = misfit(random_adapter(0, [module], in_features=16, out_features=16), module, table)
        assert found is not None, module
        assert found.problem == "the base model has no such module"


def test_only_one_of_two_names(tmp_path: Path) -> None:
    both = {"model.layers.0.q", "model.language_model.layers.0.q"}
    assert two_spellings(["model.layers.0.q"], ["model.language_model.layers.0.q"]) == tuple(sorted(both, reverse=True))
    assert two_spellings(both, ["model.layers.0.q"]) is None  # a model that has both has two modules
    assert two_spellings(["model.layers.0.q"], ["model.layers.1.q"]) is None
    assert two_spellings(["encoder.layers.0.q"], ["decoder.layers.0.q"]) is None


def test_a_target_under_the_newer_name_only(tmp_path: Path) -> None:
    """What loads in PEFT: it renames the keys, and finds the targets as they are."""
    module = "language_model.model.layers.0.self_attn.q_proj"
    config = peft_config(target_modules=[newer_spelling(module)])
    adapter = read_adapter(write_folder(tmp_path / "a", peft_tensors({module: 4}), config))
    assert adapter.modules == (newer_spelling(module),)
    assert torch.equal(adapter.delta(newer_spelling(module)), read_adapter(tmp_path / "a").delta(newer_spelling(module)))
