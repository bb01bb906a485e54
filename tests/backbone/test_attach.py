"""The trainable merge against PEFT with all adapters active, and what `attached` and `folded` promise to put back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import peft
import pytest
import torch
import torch.nn.functional as F
from tests.tiny import TARGETS, texts_of, tiny_adapter, tiny_backbone, tiny_examples, tiny_model
from torch import Tensor, nn

from pomona.adapters import Adapter, Factors, write_adapter
from pomona.backbone.attach import Attachment, attached, new_adapter, target_paths
from pomona.backbone.batches import Batch, collate
from pomona.backbone.generate import generate
from pomona.backbone.load import Backbone
from pomona.backbone.loss import token_losses
from pomona.backbone.trainable import Concat, Linear, TrainableMerge, trainable_merges
from pomona.backbone.trainable.base import AdaptedModule
from pomona.errors import InputError
from pomona.merging import merge

# peft 0.21 still asks transformers 5.23 for a name that it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

CPU = torch.device("cpu")


def architecture(backbone: Backbone) -> str:
    return backbone.name.removeprefix("tiny-")


def two_adapters(backbone: Backbone) -> list[Adapter]:
    """Different ranks and scalings; the second lacks the last module."""
    targets = TARGETS[architecture(backbone)]
    first = tiny_adapter(backbone, seed=1, rank=3, scaling=0.7, targets=targets)
    last = first.modules[-1]
    return [first, tiny_adapter(backbone, seed=2, rank=5, scaling=1.3, targets=targets, leave_out=[last])]


def batch_of(backbone: Backbone, count: int = 5) -> Batch:
    return collate(tiny_examples(count, seed=3), int(backbone.tokenizer.pad_token_id), CPU)  # pyright: ignore[reportArgumentType]


def logits(model: nn.Module, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(input_ids=batch.tokens).logits[batch.content]


def in_peft(name: str, adapters: list[Adapter]) -> peft.PeftModel:
    """A fresh copy of the model with the adapters laid into PEFT by hand, all of them active."""
    model: peft.PeftModel | None = None
    for place, adapter in enumerate(adapters):
        first = adapter[adapter.modules[0]]
        config = peft.LoraConfig(
            r=first.rank,
            lora_alpha=first.scaling * first.rank,  # pyright: ignore[reportArgumentType]
            lora_dropout=0.0,
            target_modules=list(adapter.modules),
            fan_in_fan_out=name == "gpt2",
        )
        if model is None:
            model = peft.PeftModel(tiny_model(name), config, adapter_name="0")
        else:
            model.add_adapter(str(place), config)
        for path in adapter:
            A, B = peft_weights(model, path, place)
            A.data.copy_(adapter[path].A)
            B.data.copy_(adapter[path].B)
    assert model is not None
    inner: Any = model.base_model
    inner.set_adapter([str(place) for place in range(len(adapters))])
    return model.eval()


def peft_weights(model: Any, path: str, place: int) -> tuple[nn.Parameter, nn.Parameter]:
    """PEFT's A and B of one adapter on one module."""
    layer = model.base_model.model.get_submodule(path)
    return layer.lora_A[str(place)].weight, layer.lora_B[str(place)].weight


def mean_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean loss of the completion tokens, from all logits, one example at a time."""
    total = torch.zeros(())
    completions = torch.zeros(batch.tokens.numel(), dtype=torch.bool).index_fill(0, batch.targets, True).view(batch.tokens.shape)
    for tokens, completion, content in zip(batch.tokens, completions, batch.content, strict=True):
        length = int(content.sum())
        all_logits = model(input_ids=tokens[None, :length]).logits[0]
        wanted = completion[1:length]
        total = total + F.cross_entropy(all_logits[:-1][wanted], tokens[1:length][wanted], reduction="sum")
    return total / len(batch.targets)


def test_loss_and_gradients_are_those_of_peft_with_both_adapters_active(backbone: Backbone) -> None:
    adapters = two_adapters(backbone)
    batch = batch_of(backbone)
    reference = in_peft(architecture(backbone), adapters)
    expected = mean_loss(reference, batch)
    expected.backward()
    with attached(backbone, adapters) as attachment:
        attachment.train(True)
        loss = token_losses(backbone, batch).sum() / len(batch.targets)
        loss.backward()
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)
        assert len(adapters[1]) == len(adapters[0]) - 1
        assert tuple(attachment.layers) == adapters[0].modules
        for path, layer in attachment.layers.items():
            row = 0
            for place, adapter in enumerate(adapters):
                if path not in adapter:
                    continue
                rank = adapter[path].rank
                grad_A, grad_B = (weight.grad for weight in peft_weights(reference, path, place))
                assert layer.A.grad is not None
                assert layer.B.grad is not None
                assert grad_A is not None
                assert grad_A.abs().max() > 1e-3
                torch.testing.assert_close(layer.A.grad[row : row + rank], grad_A, atol=1e-5, rtol=0)
                torch.testing.assert_close(layer.B.grad[:, row : row + rank], grad_B, atol=1e-5, rtol=0)
                row += rank
            assert row == layer.A.shape[0]


def test_merge_weights_multiply_the_scalings(llama: Backbone) -> None:
    adapters = two_adapters(llama)
    batch = batch_of(llama)
    path = adapters[0].modules[0]
    with attached(llama, adapters, weights=[0.5, -2.0]) as attachment:
        expected = 0.5 * adapters[0].delta(path) - 2.0 * adapters[1].delta(path)
        torch.testing.assert_close(attachment.export().delta(path), expected, atol=1e-6, rtol=0)
        weighted = logits(llama.model, batch)
    scaled = [
        Adapter({path: Factors(adapter[path].A, adapter[path].B, adapter[path].scaling * weight) for path in adapter})
        for adapter, weight in zip(adapters, [0.5, -2.0], strict=True)
    ]
    with attached(llama, scaled):
        torch.testing.assert_close(weighted, logits(llama.model, batch), atol=1e-5, rtol=0)


def test_merge_weights_may_differ_by_depth_and_by_module(llama: Backbone) -> None:
    adapters = two_adapters(llama)
    by_module = [{"filter": "v_proj", "value": -1.0}, {"value": [0.25, 0.75]}]
    with attached(llama, adapters, weights=[[2.0, 3.0], by_module]) as attachment:
        for path, layer in attachment.layers.items():
            upper = ".layers.1." in path
            second = -1.0 if path.endswith("v_proj") else 0.75 if upper else 0.25
            weights = [3.0 if upper else 2.0, second]
            expected = torch.zeros_like(adapters[0].delta(path), dtype=torch.float64)
            for weight, adapter in zip(weights, adapters, strict=True):
                if path in adapter:
                    expected += weight * adapter.delta(path).double()
            assert torch.allclose(layer.export().delta(torch.float64), expected, atol=1e-6)


def test_a_module_that_no_filter_matches_is_an_input_error_that_leaves_the_model_alone(llama: Backbone) -> None:
    before = dict(llama.model.named_modules())
    with (
        pytest.raises(InputError, match=r"weights\[0\]: no entry's filter matches a module \(got 'model\.layers\.0"),
        attached(llama, two_adapters(llama), weights=[[{"filter": "k_proj", "value": 1.0}], 1.0]),
    ):
        pass
    assert dict(llama.model.named_modules()) == before


def test_dropout_works_while_training_only_and_on_the_adapters_only(llama: Backbone) -> None:
    batch = batch_of(llama)
    untrained = new_adapter(llama, ["q_proj"], 2, 4.0, torch.Generator().manual_seed(0))
    plain = logits(llama.model, batch)
    with attached(llama, two_adapters(llama), dropout=0.5) as attachment:
        still = logits(llama.model, batch)
        attachment.train(True)
        torch.manual_seed(0)
        assert not torch.allclose(logits(llama.model, batch), still, atol=1e-3)
        assert not any(module.training for module in llama.model.modules() if not isinstance(module, AdaptedModule))
        attachment.train(False)
        assert torch.equal(logits(llama.model, batch), still)
    with attached(llama, [untrained], dropout=0.5) as attachment:
        attachment.train(True)
        assert torch.equal(logits(llama.model, batch), plain)  # B is zero: whatever is dropped, the frozen path is whole


def test_the_exported_adapter_means_the_same_to_peft_alone(backbone: Backbone, tmp_path: Path) -> None:
    batch = batch_of(backbone)
    prompts = ["Return the sum", "Raise", "a b c d e f g h i j k l m n o p"]
    with attached(backbone, two_adapters(backbone)) as attachment:
        ours = logits(backbone.model, batch)
        with attachment.folded():
            texts = texts_of(generate(backbone, prompts, max_new_tokens=8, batch_size=3, stop_at_line_end=False))
        write_adapter(attachment.export(), tmp_path / "adapter")
    alone = peft.PeftModel.from_pretrained(tiny_model(architecture(backbone)), tmp_path / "adapter").eval()
    plain = logits(backbone.model, batch)
    assert (plain - ours).abs().max() > 0.1
    torch.testing.assert_close(logits(alone, batch), ours, atol=1e-5, rtol=0)
    for prompt, text in zip(prompts, texts, strict=True):
        tokens = torch.tensor([backbone.tokenizer(prompt)["input_ids"]])
        with torch.no_grad():
            output = alone.generate(input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=8, do_sample=False)
        assert backbone.tokenizer.decode(output[0, tokens.shape[1] :], skip_special_tokens=True) == text  # pyright: ignore


def test_folded_gives_the_same_logits_and_leaves_the_base_bit_for_bit(backbone: Backbone) -> None:
    batch = batch_of(backbone)
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    with attached(backbone, two_adapters(backbone)) as attachment:
        unfolded = logits(backbone.model, batch)
        with attachment.folded():
            folded = logits(backbone.model, batch)
            assert not all(torch.equal(layer.base.weight, before[f"{path}.weight"]) for path, layer in attachment.layers.items())  # pyright: ignore
        torch.testing.assert_close(folded, unfolded, atol=1e-5, rtol=0)
        assert torch.equal(logits(backbone.model, batch), unfolded)
    after = backbone.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_is_not_in_float32_keeps_its_update_beside_it() -> None:
    """Rounded to bfloat16, a small update is lost in part; a model in which one module is in float32 folds that alone."""
    backbone = tiny_backbone()
    nn.Module.to(backbone.model, torch.bfloat16)
    exact = backbone.model.get_submodule("model.layers.0.mlp.down_proj").float()
    exact.register_forward_pre_hook(lambda module, inputs: (inputs[0].float(),))
    exact.register_forward_hook(lambda module, inputs, output: output.bfloat16())
    batch = batch_of(backbone)
    with attached(backbone, two_adapters(backbone)) as attachment:
        unfolded = logits(backbone.model, batch)
        with attachment.folded():
            assert [path for path, layer in attachment.modules.items() if layer.folded] == ["model.layers.0.mlp.down_proj"]
            folded = logits(backbone.model, batch)
    torch.testing.assert_close(folded, unfolded, atol=0.02, rtol=0)


def test_folded_restores_the_base_when_the_block_raises(backbone: Backbone) -> None:
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    with attached(backbone, two_adapters(backbone)) as attachment:
        unfolded = logits(backbone.model, batch_of(backbone))

        def interrupted() -> None:
            with attachment.folded():
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert torch.equal(logits(backbone.model, batch_of(backbone)), unfolded)
    assert all(torch.equal(value, before[name]) for name, value in backbone.model.state_dict().items())


def test_folding_twice_is_refused_and_does_no_harm(llama: Backbone) -> None:
    """The inner block would add the update a second time without a word."""
    with attached(llama, two_adapters(llama)) as attachment:
        unfolded = logits(llama.model, batch_of(llama))

        def again() -> None:
            with attachment.folded():
                pass

        with attachment.folded():
            with pytest.raises(ValueError, match="folded already"):
                again()
            torch.testing.assert_close(logits(llama.model, batch_of(llama)), unfolded, atol=1e-5, rtol=0)
        assert torch.equal(logits(llama.model, batch_of(llama)), unfolded)


@pytest.mark.parametrize("failing", [False, True])
def test_leaving_attached_restores_the_very_modules(backbone: Backbone, failing: bool) -> None:
    modules = dict(backbone.model.named_modules())

    def visit() -> None:
        with attached(backbone, two_adapters(backbone)) as attachment:
            for path, layer in attachment.layers.items():
                assert backbone.model.get_submodule(path) is layer
                assert layer.base is modules[path]
            if failing:
                raise RuntimeError("within the block")

    if failing:
        with pytest.raises(RuntimeError, match="within the block"):
            visit()
    else:
        visit()
    after = dict(backbone.model.named_modules())
    assert list(after) == list(modules)
    assert all(after[path] is module for path, module in modules.items())
    assert not any(module.training for module in after.values())


def test_the_given_adapters_are_not_changed_by_training(llama: Backbone) -> None:
    adapters = two_adapters(llama)
    before = [adapter.fingerprint() for adapter in adapters]
    with attached(llama, adapters[:1]) as attachment, torch.no_grad():
        for parameter in attachment.parameters().values():
            parameter.add_(1.0)
    assert [adapter.fingerprint() for adapter in adapters] == before


def test_the_observer_sees_every_pass_until_it_is_taken_away(llama: Backbone) -> None:
    """Undropped inputs and scaled hidden values, in the order of the modules, whether or not the model trains."""
    batch = batch_of(llama)
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def observer(module: str, inputs: Tensor, hidden: Tensor) -> None:
        seen[module] = (inputs.detach().clone(), hidden.detach().clone())

    with attached(llama, two_adapters(llama), weights=[0.5, -2.0]) as attachment:
        attachment.observe(observer)
        for mode in (False, True):
            seen.clear()
            attachment.train(mode)
            logits(llama.model, batch)
            assert list(seen) == list(attachment.layers)
            for path, layer in attachment.layers.items():
                inputs, hidden = seen[path]
                torch.testing.assert_close(hidden, inputs @ layer.effective().A.T, atol=1e-6, rtol=1e-5)
        seen.clear()
        attachment.observe(None)
        logits(llama.model, batch)
        assert seen == {}


def test_export_folds_the_scaling_into_b_and_effective_into_a(llama: Backbone) -> None:
    adapter = tiny_adapter(llama, rank=3, scaling=0.7)
    path = adapter.modules[0]
    A, B = adapter[path].A, adapter[path].B
    B[0, 1] = 0.0
    with attached(llama, [adapter], weights=[2.0]) as attachment:
        exported, effective = attachment.export()[path], attachment.layers[path].effective()
    assert exported.scaling == 1.0
    assert torch.equal(exported.A, A)
    assert torch.equal(exported.B, B * 1.4)
    assert torch.equal(effective.A, A * 1.4)
    assert torch.equal(effective.B, B)
    assert int((exported.B == 0).sum()) == 1


def test_an_unknown_module_is_an_input_error_that_leaves_the_model_alone(llama: Backbone) -> None:
    adapter = Adapter({"model.layers.0.self_attn.q_prj": Factors(torch.ones(2, 32), torch.ones(32, 2))})
    with pytest.raises(InputError, match=r"q_prj: the model has no such linear module.*q_proj"), attached(llama, [adapter]):
        pass
    assert not any(isinstance(module, AdaptedModule) for module in llama.model.modules())


def test_a_misfitting_adapter_is_an_input_error(llama: Backbone) -> None:
    narrow = Adapter({"model.layers.0.self_attn.q_proj": Factors(torch.ones(2, 16), torch.ones(32, 2))})
    with pytest.raises(InputError, match="32 x 16"), attached(llama, [narrow]):
        pass


def test_conv1d_is_read_as_out_by_in() -> None:
    """GPT-2 keeps c_attn as [32, 96]; an adapter of the transposed shape does not fit."""
    gpt2 = tiny_backbone("gpt2")
    path = "transformer.h.0.attn.c_attn"
    with attached(gpt2, [Adapter({path: Factors(torch.ones(2, 32), torch.ones(96, 2))})]) as attachment:
        assert attachment.export().provenance["fan_in_fan_out"] is True
    wrong = Adapter({path: Factors(torch.ones(2, 96), torch.ones(32, 2))})
    with pytest.raises(InputError, match="96 x 32"), attached(gpt2, [wrong]):
        pass


def test_new_adapter_draws_a_as_kaiming_and_leaves_b_zero(llama: Backbone) -> None:
    adapter = new_adapter(llama, ["q_proj", "down_proj"], 8, 16.0, torch.Generator().manual_seed(3))
    assert [path.rpartition(".")[2] for path in adapter] == ["q_proj", "down_proj"] * 2
    for path in adapter:
        factors = adapter[path]
        bound = 1 / math.sqrt(factors.in_features)  # Kaiming with a = sqrt(5): sqrt(6 / (6 I))
        assert factors.scaling == 2.0
        assert not factors.B.any()
        assert factors.B.shape == (llama.shapes()[path][0], 8)
        assert 0.9 * bound < float(factors.A.abs().max()) <= bound
        assert abs(float(factors.A.mean())) < 0.1 * bound
    again = new_adapter(llama, ["q_proj", "down_proj"], 8, 16.0, torch.Generator().manual_seed(3))
    other = new_adapter(llama, ["q_proj", "down_proj"], 8, 16.0, torch.Generator().manual_seed(4))
    assert again.fingerprint() == adapter.fingerprint() != other.fingerprint()


def test_new_adapter_names_the_nearest_module(llama: Backbone) -> None:
    with pytest.raises(InputError, match=r"target_modules: .*\(got 'qproj'\)\. Did you mean 'q_proj'\?"):
        new_adapter(llama, ["qproj"], 2, 2.0, torch.Generator())


WEIGHTS = (1.2, -0.6, 0.8)
MERGES = [
    Concat(frozen=frozenset({0})),
    Concat(train_weights=True),
    Linear(),
    Linear(paper=True),
    Linear(frozen=frozenset({0})),
    Linear(paper=True, train_weights=True, frozen=frozenset({2})),
]


def three_adapters(backbone: Backbone) -> list[Adapter]:
    """Different ranks, scalings and modules: the second lacks the last module, the third has the first kind of module alone."""
    return [
        *two_adapters(backbone),
        tiny_adapter(backbone, seed=4, rank=4, scaling=0.5, targets=TARGETS[architecture(backbone)][:1]),
    ]


class Plain(nn.Module):
    """A frozen module with a merge of plain float64 tensors, one adapter after the other."""

    def __init__(self, base: nn.Module, pairs: dict[int, Factors], how: TrainableMerge) -> None:
        super().__init__()
        self.base, self.how = base, how
        self.leaves = {
            place: (pair.A.double().requires_grad_(), pair.B.double().requires_grad_(), leaf(WEIGHTS[place]))
            for place, pair in pairs.items()
        }
        self.scalings = {place: 1.0 if how.paper else pair.scaling for place, pair in pairs.items()}

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        if isinstance(self.how, Concat):
            for place, (A, B, w) in self.leaves.items():
                y = y + w * self.scalings[place] * ((x @ A.T) @ B.T)
            return y
        rank = max(len(A) for A, _, _ in self.leaves.values())
        A_sum, B_sum = torch.zeros(()), torch.zeros(())
        for place, (A, B, w) in self.leaves.items():
            share = w * self.scalings[place]
            A_sum = A_sum + share.sign() * share.abs().sqrt() * F.pad(A, (0, 0, 0, rank - len(A)))
            B_sum = B_sum + share.abs().sqrt() * F.pad(B, (0, rank - len(A)))
        return y + (x @ A_sum.T) @ B_sum.T


def leaf(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def in_plain_tensors(backbone: Backbone, adapters: Sequence[Adapter], how: TrainableMerge) -> tuple[nn.Module, dict[str, Plain]]:
    model = tiny_model(architecture(backbone)).double()
    plain = {}
    for path in adapters[0].modules:
        pairs = {place: adapter[path] for place, adapter in enumerate(adapters) if path in adapter}
        plain[path] = Plain(model.get_submodule(path), pairs, how)
        model.set_submodule(path, plain[path])
    return model, plain


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("llama", "all-linear"),
        ("gpt2", "ALL-LINEAR"),
        ("gemma3", r".*\.(0|2)\.(self_attn\.[qk]_proj|mlp\..*_proj)"),
        ("gpt2", r"transformer\.h\.1\..*c_proj"),
        ("llama", ["q_proj", "mlp.down_proj", "model.layers.1.self_attn.o_proj"]),
        ("gpt2", ["c_proj"]),
    ],
)
def test_target_modules_are_those_that_peft_adapts(name: str, targets: list[str] | str) -> None:
    config = peft.LoraConfig(target_modules=targets, fan_in_fan_out=name == "gpt2")
    wrapped = peft.get_peft_model(tiny_model(name), config)
    adapted = [
        path.removeprefix("base_model.model.")
        for path, module in wrapped.named_modules()
        if isinstance(module, peft.tuners.lora.Linear)
    ]
    assert target_paths(tiny_backbone(name), targets) == adapted
    assert adapted


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            ("q_proj", "qprj"),
            r"target_modules: the model has no such linear module \(got 'qprj'\)\. Did you mean 'q_proj'\? Known: down_",
        ),
        (("proj",), r"\(got 'proj'\)"),
        ((".*q_proj",), r"\(got '\.\*q_proj'\)\. Did you mean 'q_proj'"),
        (
            "q_proj",
            r"\(got 'q_proj'\)\. A text is a regular expression for whole paths, such as 'model\.layers\.0\..*'; names stand in a",
        ),
        (r".*\.qprj", r"Did you mean 'q_proj'"),
        ("lm_head", r"\(got 'lm_head'\)"),
    ],
)
def test_targets_that_match_nothing_name_the_nearest(llama: Backbone, targets: tuple[str, ...] | str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        target_paths(llama, targets)


@pytest.mark.parametrize("how", MERGES, ids=str)
def test_loss_and_gradients_of_each_adapter_are_those_of_plain_tensors(backbone: Backbone, how: TrainableMerge) -> None:
    adapters, batch = three_adapters(backbone), batch_of(backbone)
    reference, plain = in_plain_tensors(backbone, adapters, how)
    expected = mean_loss(reference, batch)
    expected.backward()
    with attached(backbone, adapters, weights=WEIGHTS, how=how) as attachment:
        loss = token_losses(backbone, batch).sum() / len(batch.targets)
        loss.backward()
        torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=0)
        checked = 0
        for path, layer in attachment.layers.items():
            row = 0
            trained = [place for place in plain[path].leaves if place not in how.frozen]
            assert layer.A.grad is not None
            assert layer.B.grad is not None
            for order, place in enumerate(trained):
                A, B, w = plain[path].leaves[place]
                assert A.grad is not None
                assert B.grad is not None
                assert w.grad is not None
                if isinstance(how, Concat):
                    grad_A, grad_B = layer.A.grad[row : row + len(A)], layer.B.grad[:, row : row + len(A)]
                else:
                    grad_A, grad_B = layer.A.grad[order, : len(A)], layer.B.grad[order, :, : len(A)]
                    assert not layer.A.grad[order, len(A) :].any()
                    assert not layer.B.grad[order, :, len(A) :].any()
                assert A.grad.abs().max() > 1e-3
                torch.testing.assert_close(grad_A.double(), A.grad, atol=1e-5, rtol=1e-4)
                torch.testing.assert_close(grad_B.double(), B.grad, atol=1e-5, rtol=1e-4)
                if how.train_weights:
                    assert layer.weights is not None
                    assert layer.weights.grad is not None
                    root = 1.0 if isinstance(how, Concat) else 2 * math.copysign(abs(WEIGHTS[place]) ** 0.5, WEIGHTS[place])
                    torch.testing.assert_close(layer.weights.grad[order].double(), w.grad * root, atol=1e-5, rtol=1e-4)
                row += len(A)
                checked += 1
        assert checked == sum(len(adapter) for place, adapter in enumerate(adapters) if place not in how.frozen)


@pytest.mark.parametrize("how", MERGES, ids=str)
def test_every_merge_means_the_same_folded_exported_and_to_peft(backbone: Backbone, how: TrainableMerge, tmp_path: Path) -> None:
    batch = batch_of(backbone)
    with attached(backbone, three_adapters(backbone), weights=WEIGHTS, how=how) as attachment:
        stir(backbone, attachment, batch)
        unfolded = logits(backbone.model, batch)
        with attachment.folded():
            folded = logits(backbone.model, batch)
        assert torch.equal(logits(backbone.model, batch), unfolded)
        exported = attachment.export()
    torch.testing.assert_close(folded, unfolded, atol=2e-5, rtol=0)
    assert exported.modules == three_adapters(backbone)[0].modules
    write_adapter(exported, tmp_path / "adapter")
    alone = peft.PeftModel.from_pretrained(tiny_model(architecture(backbone)), tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(alone, batch), unfolded, atol=2e-5, rtol=0)
    assert (logits(backbone.model, batch) - unfolded).abs().max() > 0.1


def stir(backbone: Backbone, attachment: Attachment, batch: Batch) -> None:
    """Two optimizer steps on all that is trained."""
    parameters = [*attachment.parameters().values(), *attachment.weight_parameters().values()]
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        token_losses(backbone, batch).mean().backward()
        optimizer.step()
    assert all(bool((now - then).abs().max() > 0.005) for now, then in zip(parameters, before, strict=True))


def test_a_sum_starts_as_the_static_merge_linear(backbone: Backbone) -> None:
    targets = TARGETS[architecture(backbone)]
    adapters = [
        tiny_adapter(backbone, seed=seed, rank=3, scaling=scaling, targets=targets) for seed, scaling in ((1, 0.7), (2, 1.3))
    ]
    static = merge(adapters, "linear", weights=[0.5, -2.0])
    with attached(backbone, adapters, weights=[0.5, -2.0], how=Linear()) as attachment:
        exported = attachment.export()
    for path in static:
        torch.testing.assert_close(exported.delta(path), static.delta(path), atol=1e-6, rtol=0)
        assert exported.delta(path).abs().max() > 0.05


def test_without_scaling_a_sum_is_what_the_published_code_trains(llama: Backbone) -> None:
    """delta = (sum_k B_k) (sum_k A_k)."""
    adapters = [tiny_adapter(llama, seed=seed, scaling=scaling) for seed, scaling in ((1, 0.7), (2, 1.3))]
    with attached(llama, adapters, how=Linear(paper=True)) as attachment:
        exported = attachment.export()
    for path in exported:
        expected = (adapters[0][path].B + adapters[1][path].B) @ (adapters[0][path].A + adapters[1][path].A)
        torch.testing.assert_close(exported.delta(path), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("combine", ["concat", "linear"])
def test_frozen_adapters_are_no_parameters_and_never_change(llama: Backbone, combine: Literal["concat", "linear"]) -> None:
    """The second adapter has q_proj alone; with it trained and the first frozen, v_proj and down_proj are frozen whole."""
    batch = batch_of(llama)
    adapters = [
        tiny_adapter(llama, seed=1, targets=TARGETS["llama"]),
        tiny_adapter(llama, seed=2, rank=2, targets=["self_attn.q_proj"]),
    ]
    with attached(llama, adapters[:1]) as attachment:
        expected = logits(llama.model, batch)
    seen: set[str] = set()
    with attached(llama, adapters, how=trainable_merges[combine](frozen=frozenset({0}))) as attachment:
        queries = [path for path in adapters[0] if path.endswith("q_proj")]
        assert list(attachment.layers) == queries
        assert list(attachment.modules) == list(adapters[0])
        assert list(attachment.parameters()) == [f"{path}.{side}" for path in queries for side in ("A", "B")]
        trainable = [parameter for parameter in llama.model.parameters() if parameter.requires_grad]
        assert {id(one) for one in trainable} == {id(one) for one in attachment.parameters().values()}
        attachment.observe(lambda module, inputs, hidden: seen.add(module))
        stir(llama, attachment, batch)
        assert seen == set(queries)
        with torch.no_grad():
            for parameter in trainable:
                parameter.zero_()
        torch.testing.assert_close(logits(llama.model, batch), expected, atol=1e-5, rtol=0)
        exported = attachment.export()
    for path in adapters[0]:
        torch.testing.assert_close(exported.delta(path), adapters[0].delta(path), atol=1e-6, rtol=0)


def test_trained_weights_are_parameters_apart_and_recorded_by_adapter(llama: Backbone) -> None:
    adapters = three_adapters(llama)
    only, last = next(path for path in adapters[0] if path not in adapters[2]), adapters[0].modules[-1]
    how = Concat(train_weights=True, frozen=frozenset({0}))
    with attached(llama, adapters, weights=WEIGHTS, how=Concat()) as attachment:
        assert attachment.weight_parameters() == {}
        assert attachment.merge_weights()[only] == [1.2, -0.6, 0.0]
        assert attachment.merge_weights()[last] == [1.2, 0.0, 0.0]
    with attached(llama, adapters, weights=WEIGHTS, how=how) as attachment:
        weights = attachment.weight_parameters()
        assert list(weights) == [f"{path}.weights" for path in adapters[0] if path != last]
        assert not any(name.endswith("weights") for name in attachment.parameters())
        before = attachment.export()
        with torch.no_grad():
            for weight in weights.values():
                weight.mul_(2.0)
        assert attachment.merge_weights()[only] == pytest.approx([1.2, -1.2, 0.0])
        assert attachment.merge_weights()[last] == [1.2, 0.0, 0.0]
        added = attachment.export().delta(only) - before.delta(only)
        torch.testing.assert_close(added, -0.6 * adapters[1].delta(only), atol=1e-6, rtol=0)


def test_a_weight_of_zero_takes_no_part(llama: Backbone) -> None:
    """Where no adapter is left, the module is as it was."""
    adapters = two_adapters(llama)
    lower = {"filter": "layers.0", "value": 0.0}
    modules = dict(llama.model.named_modules())
    for combine in ("concat", "linear"):
        with attached(llama, adapters, [[lower, {"value": 1.0}], 0.0], how=trainable_merges[combine]()) as attachment:
            assert list(attachment.modules) == [path for path in adapters[0] if ".layers.1." in path]
            assert all(llama.model.get_submodule(path) is modules[path] for path in adapters[0] if ".layers.0." in path)
            for path, layer in attachment.layers.items():
                assert layer.effective().rank == adapters[0][path].rank
                torch.testing.assert_close(layer.export().delta(), adapters[0].delta(path), atol=1e-6, rtol=0)


def test_a_merge_with_nothing_in_it_or_nothing_to_train_is_refused(llama: Backbone) -> None:
    adapters = two_adapters(llama)

    def enter(weights: list[float], frozen: set[int]) -> None:
        with attached(llama, adapters, weights, how=Concat(frozen=frozenset(frozen))):
            pass

    with pytest.raises(InputError, match=r"weights: no adapter takes part .*\[0\.0, 0\.0\]"):
        enter([0.0, 0.0], set())
    with pytest.raises(InputError, match=r"frozen: there is nothing left to train \(got \[0, 1\]\)"):
        enter([1.0, 1.0], {0, 1})
    with pytest.raises(InputError, match="nothing left to train"):
        enter([1.0, 0.0], {0})
    with pytest.raises(ValueError, match=r"frozen \[2\]: there are 2 adapters"):
        enter([1.0, 1.0], {2})
    assert not any(isinstance(module, AdaptedModule) for module in llama.model.modules())


def test_a_merge_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match=r"no such trainable merge \(got 'linar'\)\. Did you mean 'linear'\?"):
        trainable_merges.create("linar")
    with pytest.raises(InputError, match="has no parameter 'frozen'"):
        trainable_merges.create("concat", {"frozen": frozenset({0})})  # a setting, which a recipe gives by a key of its own
    with pytest.raises(InputError, match="paper: Concat has no published code to follow"):
        Concat(paper=True)


@pytest.mark.parametrize("combine", ["concat", "linear"])
def test_an_update_of_zero_leaves_the_model_bit_for_bit(backbone: Backbone, combine: Literal["concat", "linear"]) -> None:
    batch = batch_of(backbone)
    plain = logits(backbone.model, batch)
    adapters = [
        Adapter({path: Factors(one[path].A, torch.zeros_like(one[path].B), one[path].scaling) for path in one})
        for one in three_adapters(backbone)
    ]
    with attached(backbone, adapters, how=trainable_merges[combine](frozen=frozenset({1}))):
        assert torch.equal(logits(backbone.model, batch), plain)
