from __future__ import annotations

import torch
from tests.tiny import tiny_adapter, tiny_backbone, tiny_examples

from pomona.backbone.attach import attached
from pomona.backbone.batches import pack
from pomona.backbone.gradient_checkpointing import gradient_checkpointing
from pomona.backbone.load import Backbone
from pomona.backbone.loss import hidden_states, token_losses
from pomona.backbone.speed import NeededRows, Packing
from pomona.backbone.speed.needed_rows import only_rows

CPU = torch.device("cpu")
FIRST = {"gpt2": ("attn.c_attn",)}


def test_needed_states_and_gradients_are_the_same(backbone: Backbone) -> None:
    assert NeededRows in backbone.speed
    batch = pack(tiny_examples(4, seed=1), CPU)
    needed = batch.targets
    targets = FIRST.get(backbone.name.removeprefix("tiny-"), ("self_attn.q_proj", "self_attn.v_proj"))
    with attached(backbone, [tiny_adapter(backbone, targets=targets)]) as attachment:
        parameters = list(attachment.parameters().values())
        found = []
        for asked in (needed, None):
            states = hidden_states(backbone, batch, asked)[0, needed]
            found.append((states, *torch.autograd.grad(states.square().sum(), parameters)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_last_mlp_sees_only_the_rows_that_are_read(llama: Backbone) -> None:
    batch = pack(tiny_examples(3), CPU)
    last = [module for path, module in llama.model.named_modules() if path.endswith(".mlp.gate_proj")][-1]
    assert Packing in llama.speed
    assert NeededRows in llama.speed
    rows: list[int] = []
    hook = last.register_forward_pre_hook(lambda _, args: rows.append(args[0][..., 0].numel()))
    token_losses(llama, batch)
    hook.remove()
    assert rows == [len(batch.targets)]
    assert "forward" not in vars(last)


def test_nothing_is_left_out_before_an_adapter_or_where_layers_run_again() -> None:
    llama = tiny_backbone("llama")
    needed = torch.arange(4)
    parts = llama.model.model.layers[-1]

    def left_out() -> list[str]:
        with only_rows(llama.model, needed):
            return [name for name, module in parts.named_modules() if name and "forward" in vars(module)]

    assert left_out() == ["self_attn.o_proj", "mlp"]
    with attached(llama, [tiny_adapter(llama, targets=("self_attn.o_proj",))]):
        assert left_out() == ["mlp"]
    with attached(llama, [tiny_adapter(llama, targets=("mlp.down_proj",))]):
        assert left_out() == []
    with gradient_checkpointing(llama):
        assert left_out() == []
