from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from tests.backbone.plain_norms import batch_of
from tests.tiny import TARGETS, VOCABULARY, tiny_adapter, tiny_backbone, tiny_examples, tiny_tokenizer
from torch import Tensor, nn

from pomona.backbone.attach import Attachment, attached
from pomona.backbone.gradient_checkpointing import gradient_checkpointing
from pomona.backbone.load import Backbone
from pomona.backbone.loss import token_losses
from pomona.backbone.speed import switched_on
from pomona.errors import InputError


def loss_of(attachment: Attachment, packed: bool, count: int = 4) -> Tensor:
    batch = batch_of(attachment.backbone, tiny_examples(count, longest=30), packed)
    torch.manual_seed(5)  # the dropout of the adapters
    return token_losses(attachment.backbone, batch).sum()


def gradients(backbone: Backbone, dropout: float, packed: bool, checkpointed: bool) -> dict[str, Tensor]:
    targets = TARGETS.get(backbone.name.removeprefix("tiny-"), ("self_attn.q_proj", "self_attn.v_proj"))
    block = gradient_checkpointing(backbone) if checkpointed else nullcontext()
    with block, attached(backbone, [tiny_adapter(backbone, targets=targets)], dropout=dropout) as attachment:
        attachment.train(True)
        loss_of(attachment, packed).backward()
        found = {name: parameter.grad for name, parameter in attachment.parameters().items()}
    assert all(grad is not None and grad.abs().max() > 0 for grad in found.values())
    return {name: grad for name, grad in found.items() if grad is not None}


LAYOUTS = pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])


@LAYOUTS
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients_are_the_same(backbone: Backbone, dropout: float, packed: bool) -> None:
    plain, found = (gradients(backbone, dropout, packed, checkpointed) for checkpointed in (False, True))
    assert found.keys() == plain.keys()
    assert all(torch.equal(value, plain[name]) for name, value in found.items())


def test_the_base_model_drops_nothing() -> None:
    """OPT drops hidden states between the modules of a layer: in training mode it would drop here."""
    import transformers as hf

    torch.manual_seed(0)
    config = hf.OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        word_embed_proj_dim=32,
        dropout=0.5,
    )
    model = hf.OPTForCausalLM(config).requires_grad_(False).eval()
    backbone = Backbone(model, tiny_tokenizer(), "tiny-opt", speed=switched_on(model))
    plain, found = (gradients(backbone, 0.0, False, checkpointed) for checkpointed in (False, True))
    assert all(torch.equal(value, plain[name]) for name, value in found.items())
    assert not any(module.training for module in backbone.model.modules())


@contextmanager
def counting(kept: dict[int, int]) -> Iterator[None]:
    """Bytes of every storage that the backward pass will need."""

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield


def saved_bytes(backbone: Backbone, packed: bool, checkpointed: bool) -> int:
    kept: dict[int, int] = {}
    block = gradient_checkpointing(backbone) if checkpointed else nullcontext()
    targets = TARGETS[backbone.name.removeprefix("tiny-")]
    with block, attached(backbone, [tiny_adapter(backbone, targets=targets)]) as attachment:
        attachment.train(True)
        with counting(kept):
            loss = loss_of(attachment, packed, count=16)
        for parameter in backbone.model.parameters():  # weights are kept anyway
            kept.pop(parameter.untyped_storage().data_ptr(), None)
        loss.backward()
    layers = backbone.model.config.num_hidden_layers
    hidden_state = 16 * 30 * 32 * 4
    return sum(kept.values()) + (layers * hidden_state if checkpointed else 0)


@LAYOUTS
def test_far_less_is_kept_for_the_backward_pass(backbone: Backbone, packed: bool) -> None:
    """Beside a layer's input, of the layers nothing is: counted by what autograd saves, and one hidden state a layer."""
    without, with_it = saved_bytes(backbone, packed, checkpointed=False), saved_bytes(backbone, packed, checkpointed=True)
    assert with_it < 0.4 * without


def test_passes_without_gradient_keep_their_cache(llama: Backbone) -> None:
    tokens = torch.tensor([[1, 20, 30, 40, 50]])
    with torch.no_grad():
        plain: Any = llama.model(input_ids=tokens, use_cache=True)
        with gradient_checkpointing(llama):
            found: Any = llama.model(input_ids=tokens, use_cache=True)
    assert found.past_key_values.get_seq_length() == 5
    assert torch.equal(found.logits, plain.logits)


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_put_back(fails: bool) -> None:
    backbone = tiny_backbone("qwen2")
    layers = list(backbone.model.base_model.layers)  # pyright: ignore[reportArgumentType, reportCallIssue]
    own = layers[1].forward
    layers[1].forward = own  # as others' hooks do
    before = [(module.training, dict(vars(module))) for module in backbone.model.modules()]
    with pytest.raises(ZeroDivisionError) if fails else nullcontext(), gradient_checkpointing(backbone):
        assert all("forward" in vars(layer) and layer.forward is not own for layer in layers)
        assert [module.training for module in backbone.model.modules()] == [training for training, _ in before]
        if fails:
            raise ZeroDivisionError
    assert [(module.training, dict(vars(module))) for module in backbone.model.modules()] == before


def test_a_model_without_layers_that_can_run_again_is_refused() -> None:
    backbone = Backbone(nn.Sequential(nn.Linear(2, 2)), tiny_tokenizer(), "plain")  # pyright: ignore[reportArgumentType]
    with (
        pytest.raises(InputError, match=r"^tuning\.gradient_checkpointing: .*cannot be computed again"),
        gradient_checkpointing(backbone),
    ):
        pass
