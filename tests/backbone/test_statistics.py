from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from tests.tiny import TARGETS, tiny_adapter, tiny_examples
from torch import Tensor, nn

from pomona.adapters import Factors
from pomona.backbone.attach import AdaptedLinear, Attachment, attached
from pomona.backbone.batches import Encoded, collate
from pomona.backbone.load import Backbone
from pomona.backbone.loss import token_losses
from pomona.backbone.statistics import StreamedNorms

CPU = torch.device("cpu")
PAD = 0


def run_batch(backbone: Backbone, attachment: Attachment, norms: StreamedNorms, examples: Sequence[Encoded]) -> None:
    batch = collate(examples, PAD, CPU)
    norms.begin_batch(batch.content)
    attachment.train(True)
    token_losses(backbone, batch)
    attachment.train(False)


def plain_loop(backbone: Backbone, attachment: Attachment, examples: Sequence[Encoded]) -> dict[str, tuple[Tensor, Tensor]]:
    """Root mean squares of each module's input and scaled hidden values, one unpadded example after the other, in float64."""
    squares: dict[str, list[Tensor]] = {path: [] for path in attachment.layers}

    def keeper(path: str, layer: AdaptedLinear) -> Callable[[nn.Module, Any], None]:
        def keep(module: nn.Module, args: Any) -> None:
            x = args[0][0].double()
            hidden = (x @ layer.A.detach().double().T) * layer.scale_R.double()
            squares[path].append(torch.cat([x, hidden], dim=1) ** 2)

        return keep

    hooks = [layer.register_forward_pre_hook(keeper(path, layer)) for path, layer in attachment.layers.items()]
    with torch.no_grad():
        for example in examples:
            backbone.model(input_ids=torch.tensor([example.tokens]))
    for hook in hooks:
        hook.remove()
    found = {}
    for path, rows in squares.items():
        means = torch.cat(rows).mean(dim=0).sqrt()
        found[path] = means.tensor_split([attachment.layers[path].A.shape[1]])
    return found


def assert_norms(norms: StreamedNorms, expected: dict[str, tuple[Tensor, Tensor]]) -> None:
    for path, (inputs, hidden) in expected.items():
        assert inputs.min() > 0
        torch.testing.assert_close(norms[path].input_norm_I.double(), inputs, atol=0, rtol=2e-6)
        torch.testing.assert_close(norms[path].hidden_norm_R.double(), hidden, atol=0, rtol=2e-5)


def test_a_padded_batch_gives_what_a_loop_over_unpadded_examples_gives(backbone: Backbone) -> None:
    examples = tiny_examples(5, seed=4, shortest=6, longest=20)
    assert len({len(example) for example in examples}) > 2
    adapter = tiny_adapter(backbone, scaling=1.7, targets=TARGETS[backbone.name.removeprefix("tiny-")])
    with attached(backbone, [adapter]) as attachment:
        norms = StreamedNorms(attachment, forgetting=1.0)
        attachment.observe(norms)
        norms.begin_step()
        run_batch(backbone, attachment, norms, examples)
        attachment.observe(None)
        assert_norms(norms, plain_loop(backbone, attachment, examples))


def test_batches_of_one_step_and_steps_without_forgetting_are_one_sum(llama: Backbone) -> None:
    """Accumulation: four examples in three batches over two steps are the four examples."""
    examples = tiny_examples(4, seed=6)
    with attached(llama, [tiny_adapter(llama)]) as attachment:
        norms = StreamedNorms(attachment, forgetting=1.0)
        attachment.observe(norms)
        norms.begin_step()
        run_batch(llama, attachment, norms, examples[:2])
        run_batch(llama, attachment, norms, examples[2:3])
        norms.begin_step()
        run_batch(llama, attachment, norms, examples[3:])
        attachment.observe(None)
        assert_norms(norms, plain_loop(llama, attachment, examples))


def test_probes_and_dev_losses_leave_no_trace(llama: Backbone) -> None:
    with attached(llama, [tiny_adapter(llama)]) as attachment:
        norms = StreamedNorms(attachment, forgetting=0.9)
        attachment.observe(norms)
        norms.begin_step()
        run_batch(llama, attachment, norms, tiny_examples(3))
        before = {name: value.clone() for name, value in norms.state().items()}
        token_losses(llama, collate(tiny_examples(3, seed=9), PAD, CPU))
        assert all(torch.equal(value, before[name]) for name, value in norms.state().items())


def hand_made(rank: int = 1, in_features: int = 2) -> Attachment:
    """One module called `m` with A = ones, observed by hand."""
    layer = AdaptedLinear("m", nn.Linear(in_features, 2), [Factors(torch.ones(rank, in_features), torch.ones(2, rank))], [1.0], 0.0)
    return Attachment(None, {"m": layer})  # pyright: ignore[reportArgumentType]


def test_forgetting_by_hand_over_three_steps() -> None:
    """f = 1/2. Sums: step 1: 16 over 1 token; step 2: 8 + 4 over 1/2 + 1; step 3: 6 + 9 + 16 over 3/4 + 2 (two batches)."""
    norms = StreamedNorms(hand_made(), forgetting=0.5)
    steps = [([4.0],), ([2.0],), ([3.0], [4.0])]
    expected = [(16 / 1) ** 0.5, (12 / 1.5) ** 0.5, (31 / 2.75) ** 0.5]
    for batches, value in zip(steps, expected, strict=True):
        norms.begin_step()
        for (x,) in batches:
            norms.begin_batch(torch.tensor([[True, False]]))
            inputs = torch.tensor([[[x, 10 * x], [99.0, 99.0]]])  # the second position is padding
            norms("m", inputs, -2 * inputs[..., :1])
        assert norms["m"].input_norm_I.tolist() == pytest.approx([value, 10 * value], rel=1e-6)
        assert norms["m"].hidden_norm_R.tolist() == pytest.approx([2 * value], rel=1e-6)


def test_forgetting_everything_leaves_the_last_step_alone() -> None:
    norms = StreamedNorms(hand_made(), forgetting=0.0)
    for x in (7.0, 3.0):
        norms.begin_step()
        norms.begin_batch(torch.ones(1, 2, dtype=torch.bool))
        norms("m", torch.full((1, 2, 2), x), torch.full((1, 2, 1), x))
    assert norms["m"].input_norm_I.tolist() == [3.0, 3.0]
    assert norms["m"].hidden_norm_R.tolist() == [3.0]


def test_modules_that_share_their_input_and_modules_that_do_not() -> None:
    """The shared square is keyed by the tensor itself: another tensor of the same shape has its own."""
    pair = [Factors(torch.ones(1, 2), torch.ones(2, 1))]
    layers = {name: AdaptedLinear(name, nn.Linear(2, 2), pair, [1.0], 0.0) for name in "qkv"}
    norms = StreamedNorms(Attachment(None, layers), forgetting=1.0)  # pyright: ignore[reportArgumentType]
    norms.begin_step()
    norms.begin_batch(torch.ones(1, 1, dtype=torch.bool))
    shared, own = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[5.0, 6.0]]])
    for name, inputs in (("q", shared), ("k", shared), ("v", own)):
        norms(name, inputs, inputs[..., :1])
    assert norms["q"].input_norm_I.tolist() == norms["k"].input_norm_I.tolist() == [1.0, 2.0]
    assert norms["v"].input_norm_I.tolist() == [5.0, 6.0]


def test_the_same_tensor_seen_in_a_new_batch_is_summed_under_the_new_mask() -> None:
    norms = StreamedNorms(hand_made(), forgetting=1.0)
    norms.begin_step()
    inputs = torch.tensor([[[3.0, 0.0], [4.0, 0.0]]])
    for content in ([[True, False]], [[False, True]]):
        norms.begin_batch(torch.tensor(content))
        norms("m", inputs, inputs[..., :1])
    assert norms["m"].input_norm_I.tolist() == pytest.approx([(25 / 2) ** 0.5, 0.0])


def test_the_state_goes_through_a_checkpoint_bit_for_bit(llama: Backbone) -> None:
    with attached(llama, [tiny_adapter(llama)]) as attachment:
        first, second = StreamedNorms(attachment, 0.9), StreamedNorms(attachment, 0.9)
        attachment.observe(first)
        for seed in range(3):
            first.begin_step()
            run_batch(llama, attachment, first, tiny_examples(3, seed=seed))
        second.load_state({name: value.clone() for name, value in first.state().items()})
        for norms in (first, second):
            attachment.observe(norms)
            norms.begin_step()
            run_batch(llama, attachment, norms, tiny_examples(3, seed=9))
        assert first.state().keys() == second.state().keys()
        assert all(torch.equal(value, second.state()[name]) for name, value in first.state().items())
