"""Quantised bases: trained beside, never folded into; PEFT on the same quantised model is the judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.tiny import TARGETS, save_tiny_model, tiny_adapter, tiny_examples
from torch import Tensor, nn

from pomona.adapters import Adapter
from pomona.backbone import quantised
from pomona.backbone.attach import attached
from pomona.backbone.batches import Encoded, collate
from pomona.backbone.generate import generate
from pomona.backbone.load import Backbone, load_backbone
from pomona.backbone.loss import example_losses, token_losses
from pomona.backbone.quantised import Quantization, dequantised, quantised_bits
from pomona.backbone.speed import CompletionHead, NeededRows, Packing
from pomona.errors import InputError, MissingPackageError

pytest.importorskip("bitsandbytes")
# peft 0.21 still asks transformers 5.23 for a name that it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

WAYS = {
    "nf4, double": Quantization(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    "fp4": Quantization(load_in_4bit=True),
    "int8": Quantization(load_in_8bit=True),
}
PATH = "model.layers.0.self_attn.q_proj"
EXAMPLES = tiny_examples(5, seed=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module", params=[(way, dtype) for way in WAYS for dtype in ("float32", "bfloat16")], ids=str)
def backbone(request: pytest.FixtureRequest, folder: Path) -> Backbone:
    way, dtype = request.param
    return load_backbone(str(folder), "cpu", dtype, quantization_config=WAYS[way])


def adapter_for(backbone: Backbone) -> Adapter:
    return tiny_adapter(backbone, seed=1, targets=TARGETS["llama"])


def padded(backbone: Backbone, examples: list[Encoded] = EXAMPLES) -> Any:
    return collate(examples, backbone.pad_id, torch.device("cpu"))


def gradients_of_peft(backbone: Backbone, adapter: Adapter) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """The loss and each module's gradients, of PEFT around the very same frozen model."""
    pair = adapter[PATH]
    config = peft.LoraConfig(r=pair.rank, lora_alpha=pair.scaling * pair.rank, target_modules=list(adapter))  # pyright: ignore
    wrapped: Any = peft.get_peft_model(backbone.model, config).eval()
    try:
        layers = {path: wrapped.base_model.model.get_submodule(path) for path in adapter}
        for path, layer in layers.items():
            layer.lora_A["default"].weight.data.copy_(adapter[path].A)
            layer.lora_B["default"].weight.data.copy_(adapter[path].B)
        batch = padded(backbone)
        logits = wrapped(input_ids=batch.tokens).logits.float().flatten(0, 1)[batch.targets - 1]
        loss = nn.functional.cross_entropy(logits, batch.tokens.flatten()[batch.targets])
        loss.backward()
        return loss.detach(), {
            path: (layer.lora_A["default"].weight.grad, layer.lora_B["default"].weight.grad) for path, layer in layers.items()
        }
    finally:
        wrapped.unload()


def test_loss_and_gradients_are_those_of_peft_on_the_same_model(backbone: Backbone) -> None:
    adapter = adapter_for(backbone)
    assert quantised_bits(backbone.model.get_submodule(PATH)) in (4, 8)
    expected, of_peft = gradients_of_peft(backbone, adapter)
    with attached(backbone, [adapter]) as attachment:
        example_losses(backbone, EXAMPLES, 2)  # a pass without gradient before, which must not end the gradient of the next one
        batch = padded(backbone)
        loss = token_losses(backbone, batch).flatten()[batch.targets].mean()
        loss.backward()
        assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-4 if backbone.model.dtype == torch.float32 else 5e-3)
        for path, layer in attachment.layers.items():
            for ours, theirs in zip((layer.A.grad, layer.B.grad), of_peft[path], strict=True):
                assert ours is not None
                assert theirs.norm() > 1e-3
                error = float((ours - theirs).norm() / theirs.norm())
                assert error < (1e-4 if backbone.model.dtype == torch.float32 else 0.05)


def test_answers_and_losses_are_unfolded_and_the_codes_stay(backbone: Backbone) -> None:
    adapter = adapter_for(backbone)
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    bare = example_losses(backbone, EXAMPLES, 2)
    with attached(backbone, [adapter]) as attachment:
        beside = example_losses(backbone, EXAMPLES, 2)
        with attachment.folded():
            assert not any(layer.folded for layer in attachment.modules.values())
            assert example_losses(backbone, EXAMPLES, 2) == beside != bare
            assert generate(backbone, ["Return the sum", "Raise"], max_new_tokens=4, batch_size=2)
    after = backbone.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_matrix_behind_the_codes_is_what_the_module_multiplies_with(backbone: Backbone) -> None:
    module: Any = backbone.model.get_submodule(PATH)
    weight_OI = dequantised(module)
    assert tuple(weight_OI.shape) == backbone.shapes()[PATH] == (32, 32)
    with torch.no_grad():
        found = module(torch.eye(32, dtype=backbone.model.dtype)).float().T
    torch.testing.assert_close(found, weight_OI, atol=1e-3, rtol=5e-3)


def test_it_is_tried_and_named_like_the_model_behind_it(backbone: Backbone, folder: Path) -> None:
    plain = load_backbone(str(folder), "cpu")
    assert all(kind in backbone.speed for kind in (CompletionHead, NeededRows, Packing))
    assert backbone.shapes() == plain.shapes()
    assert backbone.fingerprint != plain.fingerprint
    ours, theirs = backbone.base.identity, plain.base.identity
    assert ours is not None
    assert theirs is not None
    assert ours.differences(theirs) == []


@pytest.mark.parametrize("way", ["nf4, double", "int8"])
def test_a_checkpoint_that_is_quantised_already_is_loaded_by_its_config(way: str, folder: Path, tmp_path: Path) -> None:
    made = load_backbone(str(folder), "cpu", "bfloat16", quantization_config=WAYS[way])
    made.model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    found = load_backbone(str(tmp_path), "cpu", "bfloat16")
    assert example_losses(found, EXAMPLES, 2) == example_losses(made, EXAMPLES, 2)
    with pytest.raises(InputError, match="quantization_config: the model is quantised already"):
        load_backbone(str(tmp_path), "cpu", quantization_config=WAYS[way])


def test_another_quantiser_is_refused_by_its_name(folder: Path, tmp_path: Path) -> None:
    config = (folder / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace("{", '{"quantization_config": {"quant_method": "gptq", "bits": 4},', 1))
    with pytest.raises(InputError, match=r"quantised \(gptq, 4-bit\), and adapters are trained beside bitsandbytes' modules alone"):
        load_backbone(str(tmp_path), "cpu")


def test_without_the_package_it_is_said_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised, "_PACKAGES", ("accelerate", "no_such_package"))
    with pytest.raises(MissingPackageError, match=r"a quantised model needs no_such_package .*pip install 'pomona\[quantised\]'"):
        load_backbone(str(folder), "cpu", quantization_config=WAYS["int8"])


@pytest.mark.parametrize("given", [{}, {"load_in_4bit": True, "load_in_8bit": True}])
def test_one_of_four_and_eight_bits_is_given(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="give one of load_in_4bit: true and load_in_8bit: true"):
        Quantization(**given)
