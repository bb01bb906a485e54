"""What of a trainable merge is trained: frozen adapters never, merge weights where they are asked for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from tests.tiny import tiny_adapter
from tests.tuning.runs import DATA, RANKS, TUNING, attached_zeros, events, train, two_adapters

from pomona.adapters import Adapter
from pomona.backbone.attach import Attachment
from pomona.backbone.load import Backbone
from pomona.backbone.trainable import Concat, Linear, trainable_merges
from pomona.control import Fixed
from pomona.errors import InputError
from pomona.pruning import pruned_count
from pomona.tuning.settings import Event, FitData, Pruning

FIRST, SECOND = Concat(frozen=frozenset({0})), Linear(frozen=frozenset({1}))


# Frozen adapters --------------------------------------------------------------------------------------------------------


def test_a_frozen_adapter_beside_a_trained_one_is_exported_as_it_was_given(llama: Backbone) -> None:
    frozen, start = two_adapters(llama)
    pruning = Pruning(forgetting=0.5)
    fitted = train(llama, weights=[-2.0, 1.0], how=FIRST, pruning=pruning, controller=Fixed(0.5))
    for path in frozen:
        exported, rank = fitted.adapter[path], RANKS[1]
        assert torch.equal(exported.A[rank:], frozen[path].A)
        torch.testing.assert_close(exported.B[:, rank:], -2.0 * frozen[path].scaling * frozen[path].B, atol=0, rtol=1e-6)
        for side, given in ((exported.A[:rank], start[path].A), (exported.B[:, :rank], start[path].B)):
            assert int((side == 0).sum()) == pruned_count(0.5, side.numel())
            assert not torch.equal(side[side != 0], given[side != 0])
        # What is counted is what can be pruned.
        sparsity = fitted.sparsity[path]
        assert (sparsity.entries_A, sparsity.entries_B) == (start[path].A.numel(), start[path].B.numel())
        assert pruned_count(0.5, sparsity.entries_A) / sparsity.entries_A == sparsity.A


def test_a_frozen_adapter_in_a_sum_is_added_to_whatever_is_trained(llama: Backbone) -> None:
    """Where the trained sum is pruned, exactly the frozen adapter's root of a share is left."""
    start, frozen = two_adapters(llama)
    kept: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def look(event: Event, attachment: Attachment) -> None:
        for path, layer in attachment.layers.items():
            assert attached_zeros(attachment)[0][1] == start[path].A.numel()
            kept[path] = layer.effective().A == 0, layer.effective().B == 0

    one_epoch = dataclasses.replace(TUNING, epochs=1)
    fitted = train(llama, tuning=one_epoch, how=SECOND, look=look, pruning=Pruning(), controller=Fixed(0.5))
    for path in start:
        root = frozen[path].scaling ** 0.5
        for exported, given, mask in (
            (fitted.adapter[path].A[: RANKS[0]], frozen[path].A[: RANKS[0]], kept[path][0]),
            (fitted.adapter[path].B[:, : RANKS[0]], frozen[path].B[:, : RANKS[0]], kept[path][1]),
        ):
            assert int(mask.sum()) == pruned_count(0.5, mask.numel())
            torch.testing.assert_close(exported[mask], root * given[mask], atol=0, rtol=1e-6)
            assert not torch.isclose(exported[~mask], root * given[~mask], rtol=1e-4).any()
        # Rows of a higher rank than the trained ones have are the frozen adapter's alone.
        torch.testing.assert_close(fitted.adapter[path].A[RANKS[0] :], root * frozen[path].A[RANKS[0] :], atol=0, rtol=1e-6)


@pytest.mark.parametrize("combine", ["concat", "linear"])
def test_a_module_of_frozen_adapters_alone_is_exported_and_neither_pruned_nor_described(llama: Backbone, combine: Any) -> None:
    frozen = tiny_adapter(llama, seed=3, rank=2, targets=["down_proj", "q_proj"])
    trained = tiny_adapter(llama, seed=4, rank=2, targets=["q_proj"])
    how = trainable_merges[combine](frozen=frozenset({0}))
    fitted = train(llama, adapters=[frozen, trained], how=how, pruning=Pruning(), controller=Fixed(0.9))
    assert list(fitted.sparsity) == list(fitted.importance) == list(trained)
    assert set(fitted.adapter) == set(frozen)
    for path in set(frozen) - set(trained):
        torch.testing.assert_close(fitted.adapter[path].delta(), frozen[path].delta(), atol=1e-7, rtol=1e-6)
        assert (fitted.adapter[path].A != 0).all()


def test_all_frozen_is_an_input_error(llama: Backbone) -> None:
    with pytest.raises(InputError, match=r"^frozen: there is nothing left to train"):
        train(llama, how=Concat(frozen=frozenset({0, 1})))


# Merge weights ----------------------------------------------------------------------------------------------------------


def exact_sum(adapters: list[Adapter], path: str, weights: Any) -> torch.Tensor:
    return sum(
        (w * adapter[path].delta() for w, adapter in zip(weights, adapters, strict=True)), torch.zeros(llama_shape(adapters, path))
    )


def llama_shape(adapters: list[Adapter], path: str) -> torch.Size:
    return adapters[0][path].delta().shape


@pytest.mark.parametrize("combine", ["concat", "linear"])
def test_trained_weights_move_and_come_out(llama: Backbone, combine: Any) -> None:
    starts, how = [1.0, -0.5], trainable_merges[combine](train_weights=True)
    fitted = train(llama, weights=starts, how=how, weights_learning_rate=0.05, pruning=Pruning(), controller=Fixed(0.5))
    assert list(fitted.merge_weights) == list(fitted.adapter)
    for weights in fitted.merge_weights.values():
        assert weights[0] != 1.0
        assert weights[1] != -0.5
        assert weights == pytest.approx(starts, abs=0.8)
    assert len({tuple(weights) for weights in fitted.merge_weights.values()}) == len(fitted.merge_weights)
    assert train(llama, weights=starts, how=trainable_merges[combine](), weights_learning_rate=0.05).merge_weights == {}


def test_with_the_weights_alone_on_the_move_the_update_is_their_sum(llama: Backbone) -> None:
    """The factors stand almost still: the exported update is the given updates under the new weights."""
    tuning = dataclasses.replace(TUNING, learning_rate=1e-9)
    adapters = two_adapters(llama)
    fitted = train(llama, tuning=tuning, how=Concat(train_weights=True), weights_learning_rate=0.1)
    for path in fitted.adapter:
        expected = exact_sum(adapters, path, fitted.merge_weights[path])
        torch.testing.assert_close(fitted.adapter[path].delta(), expected, atol=1e-5, rtol=0)
        assert not torch.allclose(expected, exact_sum(adapters, path, [1.0, 1.0]), atol=1e-3)


def test_the_weights_have_a_rate_of_their_own_and_no_decay(llama: Backbone) -> None:
    """The first step of AdamW is as long as the rate, whatever the gradient; the decay would be added to it."""
    data = FitData(DATA.train[:2])
    tuning = dataclasses.replace(TUNING, epochs=1, weight_decay=0.5, gradient_clip=None)
    how = Concat(train_weights=True)
    fitted = train(llama, data, tuning, weights=[2.0, -3.0], how=how, weights_learning_rate=0.02)
    assert len(events(fitted, "step")) == 1
    for weights in fitted.merge_weights.values():
        assert [abs(weights[0] - 2.0), abs(weights[1] + 3.0)] == pytest.approx([0.02, 0.02], rel=1e-3)
    by_default = train(llama, data, tuning, weights=[2.0, -3.0], how=how)
    for weights in by_default.merge_weights.values():
        assert [abs(weights[0] - 2.0), abs(weights[1] + 3.0)] == pytest.approx([5e-3, 5e-3], rel=1e-3)


def test_the_rate_of_the_weights_decays_with_the_others(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[list[float]] = []
    step = torch.optim.AdamW.step

    def spy(optimizer: torch.optim.AdamW, *args: Any) -> Any:
        rates.append([group["lr"] for group in optimizer.param_groups])
        return step(optimizer, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    tuning = dataclasses.replace(TUNING, epochs=2, learning_rate_decay=0.5, learning_rate=1e-3)
    train(llama, tuning=tuning, how=Concat(train_weights=True), weights_learning_rate=0.02)
    assert rates == [[1e-3, 0.02], [1e-3, 0.02], [5e-4, 0.01], [5e-4, 0.01]]


def test_frozen_adapters_keep_their_weight(llama: Backbone) -> None:
    how = Concat(train_weights=True, frozen=frozenset({0}))
    fitted = train(llama, weights=[0.75, 1.0], how=how, weights_learning_rate=0.05)
    assert all(weights[0] == 0.75 and weights[1] != 1.0 for weights in fitted.merge_weights.values())
