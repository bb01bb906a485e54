from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.adapters.builders import Q0, V0, embedding_tensors, peft_config, peft_tensors, random_adapter, write_folder

from pomona.adapters import Adapter, check_compatible, read_adapter
from pomona.adapters.base_modules import BaseModule, BaseModules
from pomona.errors import InputError


def linear(shapes: Mapping[str, tuple[int, int]]) -> BaseModules:
    return BaseModules({module: BaseModule("linear", shape) for module, shape in shapes.items()})


def test_adapters_of_one_base_fit() -> None:
    shapes = linear(dict.fromkeys(random_adapter(0), (20, 12)))
    assert check_compatible([random_adapter(0), random_adapter(1, modules=[Q0], rank=9)], shapes, "base") == []


def test_shapes_that_contradict_each_other() -> None:
    other = Adapter(random_adapter(1, in_features=13).factors, provenance={"path": "b"})
    with pytest.raises(InputError) as caught:
        check_compatible([random_adapter(0), other])
    problem = "adapts a weight of 20 x 13 (out x in), but adapter 1 adapts a weight of 20 x 12 (out x in)"
    assert str(caught.value) == f"b: {Q0}: {problem}. Merge adapters of one base model only."


def test_shape_that_contradicts_the_model() -> None:
    with pytest.raises(
        InputError, match=rf"adapter 1: {Q0}: adapts a weight of 20 x 12 .*base's is 12 x 20 .* trained on, base\.$"
    ):
        check_compatible([random_adapter(0, modules=[Q0])], linear({Q0: (12, 20)}))


def test_module_that_the_model_does_not_have() -> None:
    with pytest.raises(InputError, match=f"{V0}: the model has no such linear module.*nearest name here is {Q0}"):
        check_compatible([random_adapter(0, modules=[V0])], linear({Q0: (20, 12)}))


def test_different_base_models_are_a_warning() -> None:
    adapters = [random_adapter(0, base_model=name) for name in ("org/Tiny-1B", None, "/models/tiny-1b/", "org/Other")]
    assert check_compatible(adapters) == ["adapter 4 was trained on 'org/Other', but adapter 1 is for 'org/Tiny-1B'"]
    assert check_compatible(adapters[:1], base_model="Other") == [
        "adapter 1 was trained on 'org/Tiny-1B', but the model is 'Other'"
    ]


def test_no_common_module_is_a_warning() -> None:
    (warning,) = check_compatible([random_adapter(0, modules=[Q0]), random_adapter(1, modules=[V0])])
    assert "no module is adapted by all" in warning


def test_folders_are_checked_without_reading_tensors(tmp_path: Path) -> None:
    tensors = peft_tensors()
    for matrix in tensors.values():
        matrix.fill_(float("nan"))  # any read would raise
    adapter = read_adapter(write_folder(tmp_path / "a", tensors))
    assert check_compatible([adapter], linear(dict.fromkeys(adapter, (20, 12)))) == []


def embedding_adapter(path: Path, vocabulary: int = 30) -> Adapter:
    config = peft_config(target_modules=["embed_tokens"])
    return read_adapter(write_folder(path, embedding_tensors(vocabulary=vocabulary), config))


def test_vocabularies_that_contradict_each_other(tmp_path: Path) -> None:
    adapters = [embedding_adapter(tmp_path / "a"), embedding_adapter(tmp_path / "b", 32)]
    with pytest.raises(InputError) as caught:
        check_compatible(adapters)
    has = f"adapts an embedding of 32 x 12 (vocabulary x hidden), but {tmp_path / 'a'} adapts an embedding of 30 x 12"
    assert str(caught.value).startswith(f"{tmp_path / 'b'}: model.embed_tokens: {has} (vocabulary x hidden). Merge")


def test_an_embedding_is_not_a_linear_module_of_the_same_numbers() -> None:
    linear = random_adapter(0, modules=["model.embed_tokens"])
    embedding = Adapter(linear.factors, embeddings=frozenset(linear))
    with pytest.raises(InputError, match=r"adapter 2: model\.embed_tokens: adapts an embedding of 12 x 20 .* a weight of 20 x 12"):
        check_compatible([linear, embedding])


def test_an_embedding_cannot_be_attached_to_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.embed_tokens: adapts an embedding, and only factors of linear modules within"):
        check_compatible([embedding_adapter(tmp_path / "a")], linear({"model.embed_tokens": (12, 30)}))


def test_what_reading_had_to_say_is_passed_on(tmp_path: Path) -> None:
    adapter = embedding_adapter(tmp_path / "a")
    (warning,) = check_compatible([adapter])
    assert warning == f"{tmp_path / 'a'}: {adapter.provenance['warnings'][0]}"  # type: ignore[index]
    assert "copies of the base model's own weights at model.embed_tokens are left out" in warning
    merged = Adapter(random_adapter(0).factors, provenance={"warnings": ["of a merge"]})
    assert check_compatible([merged]) == []


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("model.layers.0.mlp.experts.down_proj[0/4]", "adapts a parameter that is no linear module"),
        ("model.layers.0.mlp.gate.weight[0/1]", "adapts a parameter that is no linear module"),
        ("model.layers.0.mlp.experts.3.down_proj", "adapts a single expert, and this version of transformers keeps all experts"),
    ],
)
def test_experts_cannot_be_attached_to_a_model(module: str, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        check_compatible([random_adapter(0, modules=[module])], linear({Q0: (20, 12)}))
    assert "pomona export --for merged" in str(caught.value)
