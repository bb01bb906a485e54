from __future__ import annotations

import pytest
import torch
import transformers as hf
from tests.tiny import TARGETS, VOCABULARY, tiny_adapter, tiny_backbone, tiny_examples, tiny_tokenizer

from pomona.backbone.attach import attached
from pomona.backbone.batches import collate, pack
from pomona.backbone.load import Backbone
from pomona.backbone.loss import example_losses, make_batch, token_losses
from pomona.backbone.speed import CompletionHead, Packing, switched_on
from pomona.backbone.speed.packing import can_pack, packed_attention, packed_states

CPU = torch.device("cpu")


def test_a_packed_batch_lays_examples_end_to_end() -> None:
    examples = tiny_examples(3, shortest=4, longest=9)
    batch = pack(examples, CPU)
    assert batch.tokens.tolist() == [[token for example in examples for token in example.tokens]]
    assert batch.lengths == tuple(map(len, examples))
    assert bool(batch.content.all())
    starts = [0, len(examples[0]), len(examples[0]) + len(examples[1])]
    assert batch.targets.tolist() == [
        start + place
        for start, example in zip(starts, examples, strict=True)
        for place in range(example.completion_start, len(example))
    ]


def test_losses_and_gradients_are_those_of_a_padded_batch(backbone: Backbone) -> None:
    assert Packing in backbone.speed
    examples = tiny_examples(5, seed=2)
    assert len({len(example) for example in examples}) > 2
    adapter = tiny_adapter(backbone, targets=TARGETS[backbone.name.removeprefix("tiny-")])
    found = []
    with attached(backbone, [adapter]) as attachment:
        for batch in (pack(examples, CPU), collate(examples, 0, CPU)):
            losses = token_losses(backbone, batch)
            gradients = torch.autograd.grad(losses.sum(), list(attachment.parameters().values()))
            found.append((losses.flatten()[batch.targets], *gradients))
    for ours, theirs in zip(*found, strict=True):
        assert theirs.abs().max() > 1e-2
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)


def test_sequences_longer_than_a_sliding_window_see_no_further() -> None:
    backbone = tiny_backbone("gemma3")
    window = backbone.model.config.sliding_window
    lengths = (3 * window, 2, 2 * window + 1)
    tokens = torch.randint(5, 60, (1, sum(lengths)), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        packed = packed_states(backbone.model, tokens, lengths).split(lengths, dim=1)
        for part, own in zip(packed, tokens.split(lengths, dim=1), strict=True):
            expected = backbone.model.base_model(input_ids=own, use_cache=False).last_hidden_state
            torch.testing.assert_close(part, expected, atol=1e-5, rtol=1e-5)


def test_the_models_own_attention_is_back_afterwards(llama: Backbone) -> None:
    before = llama.model.config._attn_implementation
    tokens = torch.tensor([[3, 4, 5, 6]])
    expected = llama.model(input_ids=tokens).logits
    with packed_attention(llama.model):
        assert llama.model.config._attn_implementation != before
        torch.testing.assert_close(llama.model(input_ids=tokens).logits, expected, atol=1e-6, rtol=1e-5)
    assert llama.model.config._attn_implementation == before


def test_a_model_with_a_state_that_runs_through_the_row_is_padded() -> None:
    config = hf.MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, state_size=4)
    model = hf.MambaForCausalLM(config).requires_grad_(False).eval()
    backbone = Backbone(model, tiny_tokenizer(), "tiny-mamba", speed=switched_on(model))
    assert not can_pack(model)
    assert make_batch(backbone, tiny_examples(2)).lengths is None
    assert all(loss > 0 for loss in example_losses(backbone, tiny_examples(2), 2))


@pytest.mark.parametrize("capped", [False, True])
def test_a_model_that_caps_its_scores_is_padded(capped: bool) -> None:
    cap = 50.0 if capped else None
    config = hf.Gemma2Config(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        attn_logit_softcapping=cap,
        final_logit_softcapping=cap,
    )
    model = hf.Gemma2ForCausalLM(config).requires_grad_(False).eval()
    backbone = Backbone(model, tiny_tokenizer(), "tiny-gemma2", speed=switched_on(model))
    assert (CompletionHead in backbone.speed) is not capped
    assert (Packing in backbone.speed) is not capped
    examples = tiny_examples(3, seed=4)
    losses = example_losses(backbone, examples, 3)
    for example, loss in zip(examples, losses, strict=True):
        logits = backbone.model(input_ids=torch.tensor([example.tokens])).logits[0].log_softmax(-1)
        places = range(example.completion_start, len(example))
        expected = -sum(float(logits[place - 1, example.tokens[place]]) for place in places) / len(places)
        assert loss == pytest.approx(expected, abs=1e-4)
