"""Adapters of transformers 4 on single experts, as PEFT loads them on transformers 5: the rule that `check` goes by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import peft
import pytest
import torch
from peft.utils import transformers_weight_conversion as conversion
from tests.adapters.moe import (
    EXPERTS,
    loaded_by_peft,
    logits,
    relative_error,
    saved_by_transformers_4,
    single_experts,
    tiny_moe,
    with_updates,
)
from torch import Tensor, nn
from transformers import PreTrainedModel

from pomona.adapters import Adapter, Factors, read_adapter, write_adapter
from pomona.adapters.experts import SINGLE
from pomona.adapters.export import export_peft
from pomona.adapters.export.mixture import TRANSLATED, single_experts_problem
from pomona.errors import InputError
from pomona.merging import merge

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Found missing adapter keys while loading the checkpoint:UserWarning"),
]

FUSED_ROWS = {"gate_proj": 0, "w1": 0, "up_proj": 1, "w3": 1}
QWEN, MIXTRAL = ("gate_proj", "up_proj", "down_proj"), ("w1", "w2", "w3")


def fused(path: str) -> tuple[str, int, str]:
    """The path of the experts' module in transformers 5, the expert's number, and the old name."""
    match = SINGLE.fullmatch(path)
    assert match is not None
    return match["experts"].replace("block_sparse_moe", "mlp"), int(match["number"]), match["name"]


def target(path: str, parameters: Mapping[str, nn.Parameter]) -> Tensor:
    """What a module of transformers 4 has become: a part of a tensor of all experts, or a weight."""
    if SINGLE.fullmatch(path) is None:
        return parameters[f"{path}.weight"]
    experts, number, name = fused(path)
    if name in {"down_proj", "w2"}:
        return parameters[f"{experts}.down_proj"][number]
    whole = parameters[f"{experts}.gate_up_proj"][number]
    return whole.chunk(2)[FUSED_ROWS[name]]


def paths(model: PreTrainedModel, names: tuple[str, ...]) -> list[str]:
    old = "block_sparse_moe" if "w1" in names else "mlp"
    layers = [name.removesuffix(".gate_up_proj") for name, _ in model.named_parameters() if name.endswith("experts.gate_up_proj")]
    return [path for layer in layers for path in single_experts(layer.replace("mlp", old), names)]


def shapes(model: PreTrainedModel, old: list[str]) -> dict[str, tuple[int, int]]:
    parameters = dict(model.named_parameters())
    return {path: (target(path, parameters).shape[0], target(path, parameters).shape[1]) for path in old}


def by_hand(model: PreTrainedModel, *adapters: Adapter) -> Tensor:
    def change(parameters: dict[str, nn.Parameter]) -> None:
        for adapter in adapters:
            for path in adapter:
                target(path, parameters).add_(adapter.delta(path))

    return with_updates(model, change)


def base_folder(folder: Path, model: PreTrainedModel) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(model.config.to_dict()))
    return folder


def test_the_table_is_pefts_own() -> None:
    table: dict[str, str] = vars(conversion)["_MODEL_TO_CONVERSION_PATTERN"]
    expected = {kind: old for kind, old in table.items() if old in {"mixtral", "qwen2_moe"}}
    assert {kind for kind in expected if kind.islower()} == set(TRANSLATED)
    assert {kind: "w1" in names for kind, names in TRANSLATED.items()} == {
        kind: old == "mixtral" for kind, old in expected.items() if kind.islower()
    }


@pytest.mark.parametrize("kind", ["qwen3_moe", "olmoe", "glm4_moe", "mixtral"])
def test_single_experts_that_peft_loads(kind: str, tmp_path: Path) -> None:
    """As a trainer saved them, as Pomona writes them, and merged with another of another rank."""
    model = tiny_moe(kind)
    old = paths(model, MIXTRAL if kind == "mixtral" else QWEN)
    base, sizes = base_folder(tmp_path / "base", model), shapes(model, old)
    first = read_adapter(saved_by_transformers_4(tmp_path / "a", sizes, 1))
    second = read_adapter(saved_by_transformers_4(tmp_path / "b", sizes, 2, rank=1))
    assert single_experts_problem(first, base) is None
    assert relative_error(loaded_by_peft(model, tmp_path / "a"), by_hand(model, first), logits(model)) < 1e-4
    merged = merge([first, second], "concat")
    export_peft(merged, tmp_path / "merged", base)
    assert relative_error(loaded_by_peft(model, tmp_path / "merged"), by_hand(model, first, second), logits(model)) < 1e-4


@pytest.mark.parametrize(
    "kept",
    [
        lambda path: "experts.1." not in path,
        lambda path: path.endswith("down_proj") or ".layers.1." in path,
        lambda path: not path.endswith("up_proj"),
    ],
)
def test_what_lacks_for_peft_is_written_as_zeros(kept, tmp_path: Path) -> None:
    """Some experts, some layers, or one of two fused projections: PEFT takes all experts or none."""
    model = tiny_moe("qwen3_moe")
    adapter = read_adapter(saved_by_transformers_4(tmp_path / "a", shapes(model, paths(model, QWEN))))
    part = Adapter({path: adapter[path] for path in adapter if kept(path)})
    write_adapter(part, tmp_path / "b")
    assert relative_error(loaded_by_peft(model, tmp_path / "b"), by_hand(model, part), logits(model)) < 1e-4


@pytest.mark.parametrize(("kind", "shared"), [("deepseek_v3", "shared_experts"), ("glm4_moe", "shared_experts"), ("olmoe", None)])
def test_shared_experts_dense_layers_and_routers_beside_single_experts(kind: str, shared: str | None, tmp_path: Path) -> None:
    """PEFT passes over them in the adapter as it was trained, and loads all of what Pomona writes."""
    model = tiny_moe(kind)
    others = ["model.layers.0.self_attn.o_proj", "model.layers.1.mlp.gate"]
    if shared:
        others += [f"model.layers.0.mlp.{name}" for name in QWEN] + [f"model.layers.1.mlp.{shared}.{name}" for name in QWEN]
    adapter = read_adapter(saved_by_transformers_4(tmp_path / "a", shapes(model, [*paths(model, QWEN), *others])))
    expected = by_hand(model, adapter)
    assert (relative_error(loaded_by_peft(model, tmp_path / "a"), expected, logits(model)) > 0.05) == (shared is not None)
    write_adapter(adapter, tmp_path / "b")
    assert relative_error(loaded_by_peft(model, tmp_path / "b"), expected, logits(model)) < 1e-4
    assert list(read_adapter(tmp_path / "b")) == list(adapter)


def test_a_dense_layer_alone_needs_the_base(tmp_path: Path) -> None:
    """Nothing in the adapter says that the base is a mixture of experts; its `config.json` does."""
    model = tiny_moe("deepseek_v3")
    old = ["model.layers.0.mlp.down_proj", "model.layers.1.self_attn.o_proj"]
    adapter = read_adapter(saved_by_transformers_4(tmp_path / "a", shapes(model, old)))
    export_peft(adapter, tmp_path / "b", base_folder(tmp_path / "base", model))
    assert relative_error(loaded_by_peft(model, tmp_path / "b"), by_hand(model, adapter), logits(model)) < 1e-4


@pytest.mark.parametrize(("kind", "names"), [("qwen2_moe", QWEN), ("hy_v3", QWEN), ("phimoe", MIXTRAL)])
def test_single_experts_that_peft_passes_over_are_refused(kind: str, names: tuple[str, ...], tmp_path: Path) -> None:
    model = tiny_moe(kind)
    old = [*paths(model, names), "model.layers.0.self_attn.o_proj"]
    base = base_folder(tmp_path / "base", model)
    adapter = read_adapter(saved_by_transformers_4(tmp_path / "a", shapes(model, old)))
    found = loaded_by_peft(model, tmp_path / "a")
    assert relative_error(found, by_hand(model, adapter), logits(model)) > 0.05
    with pytest.raises(InputError, match=f'target="peft": it adapts single experts .* but not for {kind}'):
        export_peft(adapter, tmp_path / "b", base)
    assert not (tmp_path / "b").exists()


def test_numbers_of_experts_are_held_against_the_base(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base", tiny_moe("qwen3_moe"))
    pair = Factors(torch.ones(1, 4), torch.ones(4, 1))
    few = Adapter(dict.fromkeys(single_experts("model.layers.0.mlp.experts", QWEN, range(EXPERTS - 1)), pair))
    assert "adapts 3 experts a layer, but" in str(single_experts_problem(few, base))
    assert peft.__version__.startswith("0.21")
