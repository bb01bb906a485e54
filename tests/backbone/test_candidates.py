"""Candidates side by side against each by itself: parameters set to its values, then `example_losses`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import TARGETS, VOCABULARY, tiny_adapter, tiny_backbone, tiny_examples, tiny_tokenizer
from torch import Tensor

from pomona.backbone.attach import Attachment, attached
from pomona.backbone.batches import Encoded
from pomona.backbone.candidates import candidate_losses
from pomona.backbone.load import Backbone
from pomona.backbone.loss import example_losses
from pomona.backbone.speed import CompletionHead, Packing, switched_on
from pomona.backbone.trainable import Concat, Linear, TrainableMerge, trainable_merges
from pomona.backbone.trainable.add_low_rank import add_low_rank_by_group

HOWS = [
    Concat(),
    Concat(frozen=frozenset({1})),
    Concat(train_weights=True, frozen=frozenset({0})),
    Linear(),
    Linear(train_weights=True, frozen=frozenset({1})),
]
EXAMPLES = tiny_examples(5, seed=3, longest=20)
WHOLE = 10_000
LLAMA = tiny_backbone("llama")


def adapters(backbone: Backbone) -> list[Any]:
    """Of different ranks; the first has a module that the second lacks, and the other way round."""
    targets = TARGETS[backbone.name.removeprefix("tiny-")]
    one = tiny_adapter(backbone, seed=1, rank=3, targets=targets)
    first, *_, last = one.modules
    return [
        tiny_adapter(backbone, seed=1, rank=3, targets=targets, leave_out=[first]),
        tiny_adapter(backbone, seed=2, rank=5, scaling=1.3, targets=targets, leave_out=[last]),
    ]


def drawn(attachment: Attachment, count: int) -> list[dict[str, Tensor]]:
    """The present values with half of the entries set to zero, others each time."""
    generator = torch.Generator().manual_seed(7)
    return [
        {
            name: value.detach() * (torch.rand(value.shape, generator=generator) < 0.5)
            for name, value in attachment.parameters().items()
        }
        for _ in range(count)
    ]


def one_by_one(attachment: Attachment, examples: Sequence[Encoded], candidates: Sequence[dict[str, Tensor]]) -> list[list[float]]:
    kept = {name: value.detach().clone() for name, value in attachment.parameters().items()}
    found = []
    with torch.no_grad():
        for values in [*candidates, kept]:
            for name, parameter in attachment.parameters().items():
                parameter.copy_(values[name])
            found.append(example_losses(attachment.backbone, examples, 2))
    return found[:-1]


def assert_close(found: list[list[float]], expected: list[list[float]]) -> None:
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), atol=1e-5, rtol=0)


def assert_differ(losses: list[list[float]]) -> None:
    """Each example tells every two candidates apart by far more than the tolerance."""
    values = torch.tensor(losses)
    gaps = (values[:, None] - values[None, :]).abs() + torch.eye(len(values))[..., None]
    assert gaps.min() > 1e-4


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("how", HOWS, ids=str)
def test_losses_are_those_of_each_candidate_by_itself(
    backbone: Backbone, how: TrainableMerge, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Packing in backbone.speed
    monkeypatch.setitem(vars(backbone), "speed", backbone.speed if packed else backbone.speed.without(Packing))
    with attached(backbone, adapters(backbone), weights=[0.8, -1.2], how=how) as attachment:
        candidates = drawn(attachment, 3)
        expected = one_by_one(attachment, EXAMPLES, candidates)
        assert_differ(expected)
        assert_close(candidate_losses(attachment, EXAMPLES, candidates, WHOLE), expected)


def test_losses_where_the_head_is_not_plain() -> None:
    import transformers as hf

    shape: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    config = hf.Gemma2Config(
        **shape, num_attention_heads=2, num_key_value_heads=1, head_dim=8, attn_logit_softcapping=5.0, final_logit_softcapping=5.0
    )
    torch.manual_seed(0)
    model: Any = hf.Gemma2ForCausalLM(config)
    for parameter in model.parameters():
        parameter.data.mul_(5)
    model.requires_grad_(False).eval()
    backbone = Backbone(model, tiny_tokenizer(), "tiny-gemma2", speed=switched_on(model))
    assert CompletionHead not in backbone.speed
    with attached(backbone, [tiny_adapter(backbone, size=1.0)]) as attachment:
        candidates = drawn(attachment, 3)
        expected = one_by_one(attachment, EXAMPLES, candidates)
        assert_differ(expected)
        assert_close(candidate_losses(attachment, EXAMPLES, candidates, WHOLE), expected)


def test_each_group_of_rows_gets_its_own_update() -> None:
    generator = torch.Generator().manual_seed(0)
    y, x, A, B = (torch.randn(shape, generator=generator) for shape in ((6, 2, 5), (6, 2, 4), (3, 2, 4), (3, 5, 2)))
    expected = y.double()
    for row in range(6):
        for place in range(2):
            expected[row, place] += B[row // 2].double() @ (A[row // 2].double() @ x[row, place].double())
    torch.testing.assert_close(add_low_rank_by_group(y.clone(), x, A, B).double(), expected, atol=1e-5, rtol=0)
    half = add_low_rank_by_group(y.bfloat16(), x.bfloat16(), A, B)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), expected, atol=0.1, rtol=0.02)


class Passes:
    """The shape of the tokens of each forward pass, and how many rows a frozen module read in each."""

    def __init__(self, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shapes: list[tuple[int, int]] = []
        forward = backbone.model.base_model.forward

        def counted(input_ids: Tensor, **others: object) -> object:
            self.shapes.append(tuple(input_ids.shape))  # pyright: ignore[reportArgumentType]
            return self.before(forward, input_ids, others)

        monkeypatch.setattr(backbone.model.base_model, "forward", counted)

    def before(self, forward: Any, input_ids: Tensor, others: dict[str, object]) -> object:
        return forward(input_ids=input_ids, **others)


def test_all_candidates_share_one_pass_where_they_fit(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = sum(map(len, EXAMPLES))
    with attached(llama, [tiny_adapter(llama)]) as attachment:
        candidates = drawn(attachment, 4)
        passes = Passes(llama, monkeypatch)
        rows: list[int] = []
        frozen: Any = llama.model.get_submodule("model.layers.0.mlp.gate_proj")
        hook = frozen.register_forward_pre_hook(lambda _, args: rows.append(args[0][..., 0].numel()))
        candidate_losses(attachment, EXAMPLES, candidates, 4 * tokens)
        hook.remove()
        assert passes.shapes == [(1, 4 * tokens)]
        assert rows == [4 * tokens]
        passes.shapes.clear()
        candidate_losses(attachment, EXAMPLES, candidates, 4 * tokens - 1)
        assert [columns % 4 for _, columns in passes.shapes] == [0, 0]
        assert sum(columns for _, columns in passes.shapes) == 4 * tokens


@pytest.mark.parametrize("packed", [True, False])
@settings(max_examples=8, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 12), min_size=1, max_size=5),
    count=st.integers(1, 5),
    max_tokens=st.integers(1, 60),
)
def test_no_pass_has_more_tokens_than_it_may_and_none_is_lost(
    packed: bool, lengths: list[int], count: int, max_tokens: int
) -> None:
    """Only an example that alone has more goes beyond, for one candidate."""
    examples = [Encoded((*range(3, 3 + length - 1), 2), length - 1) for length in lengths]
    with pytest.MonkeyPatch.context() as patch, attached(LLAMA, [tiny_adapter(LLAMA)]) as attachment:
        candidates = drawn(attachment, count)
        expected = one_by_one(attachment, examples, candidates)
        patch.setitem(vars(LLAMA), "speed", LLAMA.speed if packed else LLAMA.speed.without(Packing))
        passes = Passes(LLAMA, patch)
        assert_close(candidate_losses(attachment, examples, candidates, max_tokens), expected)
    for rows, columns in passes.shapes:
        assert rows * columns <= max_tokens or (rows == 1 and columns in lengths)


def test_no_dropout_and_no_observer_though_the_modules_are_in_training(llama: Backbone) -> None:
    how = Concat(frozen=frozenset({1}))
    seen: list[str] = []
    with attached(llama, adapters(llama), dropout=0.5, how=how) as attachment:
        assert len(attachment.modules) > len(attachment.layers)
        candidates = drawn(attachment, 2)
        expected = one_by_one(attachment, EXAMPLES, candidates)
        attachment.train(True)
        attachment.observe(lambda module, inputs, hidden: seen.append(module))
        assert_close(candidate_losses(attachment, EXAMPLES, candidates, WHOLE), expected)
        assert not seen
        assert all(module.training for module in attachment.modules.values())
        assert all(module.observer is not None for module in attachment.layers.values())


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("a bug")])
@pytest.mark.parametrize("place", ["model.layers.0.mlp", "model.layers.0.self_attn.v_proj"])
def test_everything_is_as_before_after_an_error(llama: Backbone, monkeypatch: pytest.MonkeyPatch, error: Any, place: str) -> None:
    with attached(llama, [tiny_adapter(llama)]) as attachment:
        before = {name: (parameter.data_ptr(), parameter.detach().clone()) for name, parameter in attachment.parameters().items()}
        expected = example_losses(llama, EXAMPLES, 5)

        def fail(*_: object) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(llama.model.get_submodule(place), "forward", fail)
            with pytest.raises((KeyboardInterrupt, RuntimeError)):
                candidate_losses(attachment, EXAMPLES, drawn(attachment, 2), WHOLE)
        for name, parameter in attachment.parameters().items():
            assert (parameter.data_ptr(), parameter.requires_grad) == (before[name][0], True)
            assert torch.equal(parameter, before[name][1])
        assert example_losses(llama, EXAMPLES, 5) == expected


@pytest.mark.parametrize("kind", ["concat", "linear"])
def test_a_candidate_may_be_the_parameters_themselves(llama: Backbone, kind: Any) -> None:
    with attached(llama, adapters(llama), how=trainable_merges[kind]()) as attachment:
        now = {name: parameter.detach() for name, parameter in attachment.parameters().items()}
        other = drawn(attachment, 1)
        expected = [example_losses(llama, EXAMPLES, 5), *one_by_one(attachment, EXAMPLES, other)]
        assert_close(candidate_losses(attachment, EXAMPLES, [now, *other], WHOLE), expected)


def test_what_memory_does_not_hold_is_halved_examples_first_then_candidates(
    llama: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that holds 2 rows, and no long one."""
    examples = [*tiny_examples(3, seed=1, longest=12), *tiny_examples(1, seed=2, shortest=20, longest=20)]
    with attached(llama, [tiny_adapter(llama)]) as attachment:
        candidates = drawn(attachment, 3)
        expected = one_by_one(attachment, examples, candidates)
        monkeypatch.setitem(vars(llama), "speed", llama.speed.without(Packing))

        class Small(Passes):
            def before(self, forward: Any, input_ids: Tensor, others: dict[str, object]) -> object:
                if len(input_ids) > 2 or input_ids.shape[1] == 20:
                    raise torch.OutOfMemoryError("out of memory")
                return super().before(forward, input_ids, others)

        passes = Small(llama, monkeypatch)
        found = candidate_losses(attachment, examples, candidates, WHOLE)
    assert [[math.isnan(loss) for loss in row] for row in found] == [[False, False, False, True]] * 3
    assert_close([row[:3] for row in found], [row[:3] for row in expected])
    assert [rows for rows, _ in passes.shapes[:3]] == [12, 6, 3]
    held = [rows for rows, columns in passes.shapes if rows <= 2 and columns < 20]
    assert sum(held) == 3 * 3
    assert 2 in held


def test_a_model_that_drops_rows_gets_one_candidate_at_a_time(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    part: Any = llama.model.get_submodule("model.layers.0.mlp")
    forward = part.forward
    with attached(llama, [tiny_adapter(llama, targets=("mlp.down_proj",))]) as attachment:
        candidates = drawn(attachment, 3)
        expected = one_by_one(attachment, EXAMPLES, candidates)
        # As a mixture's expert: tokens go through by themselves, of all candidates first the odd ones.
        monkeypatch.setattr(part, "forward", lambda x: _interleaved(forward, x))
        assert_close(candidate_losses(attachment, EXAMPLES, candidates, WHOLE), expected)


def _interleaved(forward: Any, x: Tensor) -> Tensor:
    y = torch.empty_like(x)
    for first in (1, 0):
        y[:, first::2] = forward(x[:, first::2])
    return y


def test_nothing_to_measure(llama: Backbone) -> None:
    with attached(llama, [tiny_adapter(llama)]) as attachment:
        assert candidate_losses(attachment, EXAMPLES, [], 5) == []
        assert candidate_losses(attachment, [], drawn(attachment, 2), 5) == [[], []]


def test_what_cannot_be_measured_is_said(llama: Backbone) -> None:
    with attached(llama, [tiny_adapter(llama)]) as attachment:
        (values,) = drawn(attachment, 1)
        name = next(iter(values))
        with pytest.raises(ValueError, match="max_tokens 0"):
            candidate_losses(attachment, EXAMPLES, [values], 0)
        with pytest.raises(ValueError, match=f"candidate 1 lacks {name}"):
            candidate_losses(attachment, EXAMPLES, [values, {key: values[key] for key in values if key != name}], WHOLE)
        with pytest.raises(ValueError, match=rf"candidate 0: {name} is \[1, 32\], not \[3, 32\]"):
            candidate_losses(attachment, EXAMPLES, [values | {name: values[name][:1]}], WHOLE)
        with attachment.folded(), pytest.raises(ValueError, match="folded"):
            candidate_losses(attachment, EXAMPLES, [values], WHOLE)
