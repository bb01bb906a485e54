"""`fit` on two processes that share each batch, against one process that sees all of it. Without dropout they do the same sums."""

from __future__ import annotations

import dataclasses
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from tests.tiny import tiny_backbone
from tests.tuning.runs import TUNING, train
from torch.multiprocessing.spawn import start_processes

import pomona.tuning.loop as loop_module
from pomona.backbone.attach import Attachment
from pomona.backbone.trainable import Coefficients, Concat, Linear
from pomona.control import Fixed, Grasp, Layerwise
from pomona.engines import NATIVE
from pomona.importance import GradientSmoothed
from pomona.tuning.settings import Event, Pruning
from pomona.tuning.stages import Stage

WORLD = 2
# 7 examples in batches of 2: in each epoch one batch is a single example, of which the second process gets nothing.
SHORT = dataclasses.replace(TUNING, epochs=2, dropout=0.0, learning_rate=2e-3)
KINDS: dict[str, dict[str, Any]] = {
    "wanda": {"pruning": Pruning(), "controller": Fixed(0.5)},
    "single examples": {
        "pruning": Pruning(), "controller": Fixed(0.5), "tuning": dataclasses.replace(SHORT, batch_size=1, epochs=1)
    },
    "sum by gradient_smoothed with weights": {
        "pruning": Pruning(GradientSmoothed(), reset="initial"), "controller": Fixed(0.3), "weights_learning_rate": 0.01,
        "how": Linear(train_weights=True),
    },
    "coefficients": {
        "how": Concat(frozen=frozenset({0, 1}), coefficients=Coefficients("layer")), "weights_learning_rate": 0.05,
    },
    "stages": {
        "how": Concat(coefficients=Coefficients()), "weights_learning_rate": 0.05,
        "stages": (Stage("coefficients", 0.5), Stage("factors", 0.5)),
    },
    "components by a full pass": {
        "pruning": Pruning(granularity="rank", scope="global", activations="full_pass"), "controller": Fixed(0.5)
    },
    "a ratio that is learned": {"pruning": Pruning(), "controller": Grasp(interval_steps=1, commit_level=0)},
    "a ratio that is learned from raced and screened candidates, under accumulation": {
        "pruning": Pruning(), "tuning": dataclasses.replace(SHORT, accumulation_steps=2, epochs=4),
        "controller": Grasp(interval_steps=1, commit_level=0, race_level=0.9, proposals=5),
    },
    "a ratio that is learned until after an epoch, by full passes": {
        "pruning": Pruning(activations="full_pass"),
        "controller": Grasp(interval_steps=1, commit_level=0, settle_fraction=0.8),
    },
    "ratios for two groups of layers": {"pruning": Pruning(), "controller": Layerwise(groups=2, interval_steps=1, commit_level=0)},
    "average and feedback": {
        "pruning": Pruning(feedback="always"), "controller": Fixed(0.5),
        "tuning": dataclasses.replace(SHORT, average="ema", average_decay=0.7),
    },
    "recomputed": {
        "pruning": Pruning(), "controller": Fixed(0.5), "tuning": dataclasses.replace(SHORT, gradient_checkpointing=True, epochs=1)
    },
}  # fmt: skip


def run(folder: Path | None) -> dict[str, dict[str, Any]]:
    """Each kind of run: factors and masks after every step, and what came out."""
    backbone, found = tiny_backbone("llama"), {}
    for kind, options in KINDS.items():
        steps: list[dict[str, torch.Tensor]] = []

        def look(event: Event, attachment: Attachment, steps: list[Any] = steps) -> None:
            if event["kind"] == "step":
                trained = attachment.parameters() | attachment.weight_parameters()
                steps.append({name: parameter.detach().clone() for name, parameter in trained.items()})

        checkpoint = folder / f"{kind}.fit" if folder else None
        with mock.patch.object(loop_module, "make_batch", wraps=loop_module.make_batch) as batches:
            fitted = train(backbone, look=look, checkpoint=checkpoint, **{"tuning": SHORT, **options})
        outcome = {
            "history": list(fitted.history),
            "dev_scores": fitted.dev_scores,
            "epoch": fitted.epoch,
            "tokens": fitted.tokens,
            "answer": fitted.answer and dataclasses.astuple(fitted.answer),
            "merge_weights": dict(fitted.merge_weights),
            "fingerprint": fitted.adapter.fingerprint(),
        }
        seen = sum(len(call.args[1]) for call in batches.call_args_list)
        found[kind] = {"steps": steps, "outcome": outcome, "seen": seen}
    return found


def resumed(folder: Path) -> tuple[str, str]:
    """The adapter of a run, and of another that goes on from where that stood in the middle."""
    backbone, checkpoint, middle = tiny_backbone("llama"), folder / "whole.fit", folder / "middle.fit"

    def look(event: Event, attachment: Attachment) -> None:
        if event["kind"] == "step" and event["step"] == 3 and NATIVE.rank == 0:  # the file is that of step 2
            shutil.copy(checkpoint, middle)

    whole = train(backbone, tuning=SHORT, look=look, checkpoint=checkpoint, **KINDS["wanda"])
    torch.distributed.barrier()
    again = train(backbone, tuning=SHORT, checkpoint=middle, **KINDS["wanda"])
    return whole.adapter.fingerprint(), again.adapter.fingerprint()


def work(number: int, folder: str) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=number, world_size=WORLD, timeout=timedelta(seconds=60)
    )
    found = run(Path(folder) / f"of rank {number}")
    torch.save(found | {"resumed": resumed(Path(folder))}, Path(folder) / f"rank{number}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Any]]:
    return run(None)


@pytest.fixture(scope="module")
def folder(alone: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each rank wrote what it found; `alone` comes first, so that a fork has the model's code."""
    folder = tmp_path_factory.mktemp("ranks")
    # A new process takes seconds to import the model's code; autograd refuses a fork only where an accelerator is at work.
    method = "spawn" if torch.cuda.is_available() else "fork"
    start_processes(work, args=(str(folder),), nprocs=WORLD, start_method=method)
    return folder


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, dict[str, Any]]]:
    return [torch.load(folder / f"rank{number}.pt") for number in range(WORLD)]


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_train_the_factors_of_one_process(alone: Any, ranks: Any, kind: str) -> None:
    assert len(alone[kind]["steps"]) >= 2
    for found in ranks:
        assert len(found[kind]["steps"]) == len(alone[kind]["steps"])
        for mine, expected in zip(found[kind]["steps"], alone[kind]["steps"], strict=True):
            assert mine.keys() == expected.keys()
            for name in expected:
                torch.testing.assert_close(mine[name], expected[name], atol=1e-5, rtol=0)
            if "pruning" in KINDS[kind] and KINDS[kind]["pruning"].reset == "zero":
                assert all(torch.equal(mine[name] == 0, expected[name] == 0) for name in expected)
                assert any((expected[name] == 0).any() for name in expected)
        for key in ("epoch", "tokens"):
            assert found[kind]["outcome"][key] == alone[kind]["outcome"][key]
        assert found[kind]["outcome"]["dev_scores"] == pytest.approx(alone[kind]["outcome"]["dev_scores"], abs=1e-4)
        losses = [[event["loss"] for event in one[kind]["outcome"]["history"] if event["kind"] == "step"] for one in (found, alone)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_both_ranks_hold_the_same_bit_for_bit(ranks: Any, kind: str) -> None:
    """Or they would prune apart, choose other epochs, and answer other ratios."""
    one, other = (found[kind] for found in ranks)
    for mine, theirs in zip(one["steps"], other["steps"], strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert one["outcome"] == other["outcome"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_ranks_share_the_examples(alone: Any, ranks: Any, kind: str) -> None:
    seen = [found[kind]["seen"] for found in ranks]
    epochs = KINDS[kind].get("tuning", SHORT).epochs
    assert sum(seen) == alone[kind]["seen"] == 7 * epochs
    assert seen == ([7, 0] if kind == "single examples" else [4 * epochs, 3 * epochs])


def test_what_is_learned_on_two_ranks_is_what_one_process_learns(alone: Any, ranks: Any) -> None:
    kind = "a ratio that is learned"
    rounds = [event for event in ranks[1][kind]["outcome"]["history"] if event["kind"] == "round"]
    assert len(rounds) >= 2
    assert alone[kind]["outcome"]["answer"][0] == pytest.approx(ranks[1][kind]["outcome"]["answer"][0], abs=1e-3)
    kind = "sum by gradient_smoothed with weights"
    for path, weights in alone[kind]["outcome"]["merge_weights"].items():
        assert ranks[0][kind]["outcome"]["merge_weights"][path] == pytest.approx(weights, abs=1e-5)
        assert all(weight != 1.0 for weight in weights)


def test_a_run_on_two_ranks_is_resumed_on_two(ranks: Any) -> None:
    """Without dropout bit for bit."""
    whole, again = ranks[0]["resumed"]
    assert whole == again
    assert ranks[1]["resumed"] == (whole, again)


def test_rank_0_alone_writes_the_checkpoint(folder: Path, ranks: Any) -> None:
    assert sorted(file.name for file in (folder / "of rank 0").iterdir()) == sorted(f"{kind}.fit" for kind in KINDS)
    assert not (folder / "of rank 1").exists()
