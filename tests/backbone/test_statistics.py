from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from benchmarks.tiny_architectures import ARCHITECTURES
from tests.backbone.plain_norms import assert_norms, batch_of, plain_squares, tokens_of
from tests.tiny import TARGETS, tiny_adapter, tiny_backbone, tiny_examples, tiny_tokenizer
from torch import Tensor, nn

from pomona.adapters import Factors
from pomona.backbone.attach import Attachment, attached
from pomona.backbone.batches import Encoded
from pomona.backbone.gradient_checkpointing import gradient_checkpointing
from pomona.backbone.load import Backbone
from pomona.backbone.loss import example_losses, token_losses
from pomona.backbone.speed import switched_on
from pomona.backbone.statistics import StreamedNorms
from pomona.backbone.trainable import Concat, Linear, TrainableMerge
from pomona.backbone.trainable.concat import ConcatModule


def run_batch(attachment: Attachment, norms: StreamedNorms, examples: Sequence[Encoded], packed: bool = False) -> Tensor:
    """A training batch's loss, as the training loop takes it."""
    batch = batch_of(attachment.backbone, examples, packed)
    attachment.train(True)
    norms.begin_batch(batch.content)
    loss = token_losses(attachment.backbone, batch).sum()
    norms.end_batch()
    attachment.train(False)
    return loss


def run_step(attachment: Attachment, norms: StreamedNorms, *batches: Sequence[Encoded]) -> None:
    for examples in batches:
        run_batch(attachment, norms, examples)
    norms.end_step()


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("how", [Concat(), Linear()], ids=["concat", "sum"])
def test_a_batch_gives_what_a_loop_over_single_examples_gives(backbone: Backbone, how: TrainableMerge, packed: bool) -> None:
    examples = tiny_examples(5, seed=4, shortest=6, longest=20)
    assert len({len(example) for example in examples}) > 2
    targets = TARGETS[backbone.name.removeprefix("tiny-")]
    adapters = [tiny_adapter(backbone, seed, rank=2 + seed, scaling=1.7, targets=targets) for seed in range(2)]
    with attached(backbone, adapters, how=how) as attachment:
        norms = StreamedNorms(attachment, forgetting=1.0)
        run_batch(attachment, norms, examples, packed)
        norms.end_step()
        assert_norms(norms, plain_squares(backbone, attachment, examples), tokens_of(examples))


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_a_model_that_flattens_batches(packed: bool) -> None:
    """OPT's linear maps behind the attention get [B * T, I]."""
    model = ARCHITECTURES["opt"].build()
    opt = Backbone(model, tiny_tokenizer(), "tiny-opt", speed=switched_on(model))
    examples = tiny_examples(4, seed=4, shortest=6, longest=16)
    with attached(opt, [tiny_adapter(opt, targets=("q_proj", "fc1"))]) as attachment:
        norms = StreamedNorms(attachment, forgetting=1.0)
        run_batch(attachment, norms, examples, packed)
        norms.end_step()
        assert_norms(norms, plain_squares(opt, attachment, examples), tokens_of(examples))


def test_forgetting_under_accumulation_is_the_plain_sum_over_steps(llama: Backbone) -> None:
    """sum_u f^(t-u) S_u over sum_u f^(t-u) n_u, in float64, with factors that change from step to step."""
    f = 0.7
    examples = tiny_examples(9, seed=6, shortest=5, longest=16)
    steps = [[examples[:2], examples[2:3]], [examples[3:4]], [examples[4:6], examples[6:7], examples[7:]]]
    with attached(llama, [tiny_adapter(llama)]) as attachment:
        norms = StreamedNorms(attachment, forgetting=f)
        totals = {path: (torch.zeros(()).double(), torch.zeros(()).double()) for path in attachment.layers}
        tokens = 0.0
        for batches in steps:
            seen = [example for batch in batches for example in batch]
            run_step(attachment, norms, *batches)
            squares = plain_squares(llama, attachment, seen)
            totals = {path: tuple(f * old + new for old, new in zip(totals[path], squares[path], strict=True)) for path in totals}
            tokens = f * tokens + tokens_of(seen)
            assert_norms(norms, totals, tokens)  # pyright: ignore[reportArgumentType]
            with torch.no_grad():
                for parameter in attachment.parameters().values():
                    parameter.mul_(1.4)


def test_a_step_counts_once_it_ends(llama: Backbone) -> None:
    with attached(llama, [tiny_adapter(llama)]) as attachment:
        norms = StreamedNorms(attachment, forgetting=0.5)
        run_step(attachment, norms, tiny_examples(2))
        before = {name: value.clone() for name, value in norms.state().items()}
        run_batch(attachment, norms, tiny_examples(2, seed=1))
        assert all(torch.equal(value, before[name]) for name, value in norms.state().items())
        norms.end_step()
        assert not all(torch.equal(value, before[name]) for name, value in norms.state().items())


def test_only_what_runs_between_begin_batch_and_end_batch_counts(llama: Backbone) -> None:
    """Probes and dev losses come between batches of a step, in training mode or not."""
    examples, others = tiny_examples(4), tiny_examples(3, seed=9)
    with attached(llama, [tiny_adapter(llama)]) as attachment:
        norms = StreamedNorms(attachment, forgetting=0.9)
        run_batch(attachment, norms, examples[:3])
        example_losses(llama, others, 2)
        attachment.train(True)
        token_losses(llama, batch_of(llama, others))
        run_batch(attachment, norms, examples[3:])
        norms.end_step()
        token_losses(llama, batch_of(llama, others))
        assert_norms(norms, plain_squares(llama, attachment, examples), tokens_of(examples))


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_what_gradient_checkpointing_runs_again_is_not_counted_again(backbone: Backbone, packed: bool) -> None:
    examples = tiny_examples(4, seed=2)
    states = []
    targets = TARGETS[backbone.name.removeprefix("tiny-")]
    for block in (nullcontext(), gradient_checkpointing(backbone)):
        with block, attached(backbone, [tiny_adapter(backbone, targets=targets)]) as attachment:
            norms = StreamedNorms(attachment, forgetting=1.0)
            for batch in (examples[:3], examples[3:]):
                run_batch(attachment, norms, batch, packed).backward()
            norms.end_step()
            states.append({name: value.clone() for name, value in norms.state().items()})
    torch.testing.assert_close(states[1], states[0], atol=0, rtol=1e-6)


def keeper(read: dict[str, Tensor], path: str) -> Callable[[nn.Module, Any], None]:
    """A hook that keeps what a module reads."""

    def keep(module: nn.Module, args: Any) -> None:
        read[path] = args[0]

    return keep


@pytest.mark.parametrize("mode", ["bfloat16", "autocast"])
def test_low_precision_is_summed_in_fp32(mode: str) -> None:
    """Whether the weights are bf16 or only the arithmetic: the squares of the very numbers that the modules read, in float64."""
    backbone = tiny_backbone("llama")
    if mode == "bfloat16":
        nn.Module.to(backbone.model, torch.bfloat16)
    examples = tiny_examples(6, seed=3, shortest=20, longest=40)
    content = batch_of(backbone, examples).content
    with attached(backbone, [tiny_adapter(backbone)]) as attachment:
        norms = StreamedNorms(attachment, forgetting=1.0)
        read: dict[str, Tensor] = {}
        for path, layer in attachment.layers.items():
            layer.base.register_forward_pre_hook(keeper(read, path))
        with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
            run_step(attachment, norms, examples)
        assert len(read) == 4
        assert mode == "autocast" or all(x.dtype == torch.bfloat16 for x in read.values())
        for path, x in read.items():
            expected = x[content].double().square().mean(dim=0).sqrt()
            torch.testing.assert_close(norms[path].input_norm_I.double(), expected, atol=0, rtol=1e-6)
            assert norms[path].hidden_norm_R.dtype == torch.float32
            hidden = x[content].double() @ attachment.layers[path].effective().A.double().T
            tolerance = 1e-5 if mode == "bfloat16" else 2e-2  # autocast computes the hidden values themselves in bf16
            torch.testing.assert_close(
                norms[path].hidden_norm_R.double(), hidden.square().mean(dim=0).sqrt(), atol=0, rtol=tolerance
            )


def hand_made(rank: int = 1, in_features: int = 2) -> Attachment:
    """One module called `m` with A = ones, observed by hand."""
    layer = ConcatModule("m", nn.Linear(in_features, 2), [Factors(torch.ones(rank, in_features), torch.ones(2, rank))], [1.0], 0.0)
    return Attachment(None, {"m": layer})  # pyright: ignore[reportArgumentType]


def show(attachment: Attachment, module: str, inputs: Tensor, hidden: Tensor) -> None:
    """What a forward pass does with whoever observes the module."""
    observer = attachment.layers[module].observer
    assert observer is not None
    observer(module, inputs, hidden)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_large_inputs_do_not_overflow(dtype: torch.dtype) -> None:
    """The square of 1e4 is beyond fp16, and 300 tokens of it beyond bf16's whole numbers."""
    attachment = hand_made()
    norms = StreamedNorms(attachment, forgetting=1.0)
    norms.begin_batch(torch.ones(3, 100, dtype=torch.bool))
    large = torch.full((3, 100, 2), 1e4).to(dtype)
    show(attachment, "m", large, large[..., :1])
    norms.end_batch()
    norms.end_step()
    assert norms["m"].input_norm_I.tolist() == pytest.approx([float(large[0, 0, 0])] * 2, rel=1e-6)
    assert norms["m"].hidden_norm_R.tolist() == pytest.approx([float(large[0, 0, 0])], rel=1e-6)


def test_forgetting_by_hand_over_three_steps() -> None:
    """f = 1/2. Sums: step 1: 16 over 1 token; step 2: 8 + 4 over 1/2 + 1; step 3: 6 + 9 + 16 over 3/4 + 2 (two batches)."""
    attachment = hand_made()
    norms = StreamedNorms(attachment, forgetting=0.5)
    steps = [([4.0],), ([2.0],), ([3.0], [4.0])]
    expected = [(16 / 1) ** 0.5, (12 / 1.5) ** 0.5, (31 / 2.75) ** 0.5]
    for batches, value in zip(steps, expected, strict=True):
        for (x,) in batches:
            norms.begin_batch(torch.tensor([[True, False]]))
            inputs = torch.tensor([[[x, 10 * x], [99.0, 99.0]]])  # the second position is padding
            show(attachment, "m", inputs, -2 * inputs[..., :1])
            norms.end_batch()
        norms.end_step()
        assert norms["m"].input_norm_I.tolist() == pytest.approx([value, 10 * value], rel=1e-6)
        assert norms["m"].hidden_norm_R.tolist() == pytest.approx([2 * value], rel=1e-6)


def test_forgetting_everything_leaves_the_last_step_alone() -> None:
    attachment = hand_made()
    norms = StreamedNorms(attachment, forgetting=0.0)
    for x in (7.0, 3.0):
        norms.begin_batch(torch.ones(1, 2, dtype=torch.bool))
        show(attachment, "m", torch.full((1, 2, 2), x), torch.full((1, 2, 1), x))
        norms.end_batch()
        norms.end_step()
    assert norms["m"].input_norm_I.tolist() == [3.0, 3.0]
    assert norms["m"].hidden_norm_R.tolist() == [3.0]


def test_modules_that_share_their_input_and_modules_that_do_not() -> None:
    """The shared square is keyed by the tensor itself: another tensor of the same shape has its own."""
    pair = [Factors(torch.ones(1, 2), torch.ones(2, 1))]
    layers = {name: ConcatModule(name, nn.Linear(2, 2), pair, [1.0], 0.0) for name in "qkv"}
    attachment = Attachment(None, layers)  # pyright: ignore[reportArgumentType]
    norms = StreamedNorms(attachment, forgetting=1.0)
    norms.begin_batch(torch.ones(1, 1, dtype=torch.bool))
    shared, own = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[5.0, 6.0]]])
    for name, inputs in (("q", shared), ("k", shared), ("v", own)):
        show(attachment, name, inputs, inputs[..., :1])
    norms.end_batch()
    norms.end_step()
    assert norms["q"].input_norm_I.tolist() == norms["k"].input_norm_I.tolist() == [1.0, 2.0]
    assert norms["v"].input_norm_I.tolist() == [5.0, 6.0]


def test_the_same_tensor_seen_in_a_new_batch_is_summed_under_the_new_mask() -> None:
    attachment = hand_made()
    norms = StreamedNorms(attachment, forgetting=1.0)
    inputs = torch.tensor([[[3.0, 0.0], [4.0, 0.0]]])
    for content in ([[True, False]], [[False, True]]):
        norms.begin_batch(torch.tensor(content))
        show(attachment, "m", inputs, inputs[..., :1])
        norms.end_batch()
    norms.end_step()
    assert norms["m"].input_norm_I.tolist() == pytest.approx([(25 / 2) ** 0.5, 0.0])


def test_what_was_observed_is_not_changed_and_not_kept() -> None:
    attachment = hand_made()
    norms = StreamedNorms(attachment, forgetting=1.0)
    norms.begin_batch(torch.tensor([[True, False]]))
    inputs, hidden = torch.full((1, 2, 2), 3.0), torch.full((1, 2, 1), 2.0)
    show(attachment, "m", inputs, hidden)
    norms.end_batch()
    assert inputs.eq(3.0).all()
    assert hidden.eq(2.0).all()
    assert attachment.layers["m"].observer is None


def test_the_state_goes_through_a_checkpoint_bit_for_bit(llama: Backbone) -> None:
    with attached(llama, [tiny_adapter(llama)]) as attachment:
        first, second = StreamedNorms(attachment, 0.9), StreamedNorms(attachment, 0.9)
        for seed in range(3):
            run_step(attachment, first, tiny_examples(3, seed=seed))
        second.load_state({name: value.clone() for name, value in first.state().items()})
        for norms in (first, second):
            run_step(attachment, norms, tiny_examples(3, seed=9))
        for path in attachment.layers:
            assert torch.equal(first[path].input_norm_I, second[path].input_norm_I)
            assert torch.equal(first[path].hidden_norm_R, second[path].hidden_norm_R)
        assert all(torch.equal(value, second.state()[name]) for name, value in first.state().items())
