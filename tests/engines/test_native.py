"""Two processes that each see half of every batch, against one that sees all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.backbone.plain_norms import batch_of
from tests.tiny import tiny_adapter, tiny_backbone, tiny_examples
from torch import Tensor
from torch.multiprocessing.spawn import start_processes

from pomona.backbone.attach import attached
from pomona.backbone.full_pass import FullPassNorms
from pomona.backbone.gradients import Gradients
from pomona.backbone.loss import token_losses
from pomona.backbone.published_norms import PublishedNorms
from pomona.backbone.statistics import StreamedNorms
from pomona.engines import Native
from pomona.errors import InputError

WORLD = 2
ENGINE = Native()


def train() -> dict[str, Tensor]:
    """Three steps of two batches, each rank on its share of every batch; all statistics at the end."""
    backbone = tiny_backbone("llama")
    examples = tiny_examples(13, seed=2, shortest=5, longest=18)
    batches = [[examples[:4], examples[4:5]], [examples[5:8], examples[8:10]], [examples[10:12], examples[12:]]]
    with attached(backbone, [tiny_adapter(backbone)]) as attachment:
        streamed, gradients = StreamedNorms(attachment, 0.6), Gradients(attachment, (0.85, 0.7))
        exact, published = FullPassNorms(attachment, examples[:7], 2), PublishedNorms(attachment, examples[:1])
        parameters = list(attachment.parameters().values())
        for step in batches:
            for batch in step:
                mine = ENGINE.share(batch)
                if mine:  # a last batch may be smaller than the number of ranks
                    padded = batch_of(backbone, mine)
                    streamed.begin_batch(padded.content)
                    loss = token_losses(backbone, padded).sum()
                    streamed.end_batch()
                    loss.backward()
            streamed.end_step()
            for parameter in parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            ENGINE.sum([parameter.grad for parameter in parameters if parameter.grad is not None])
            gradients.observe()
            with torch.no_grad():
                for parameter in parameters:
                    parameter.sub_(0.001 * parameter.grad)  # pyright: ignore[reportOperatorIssue, reportOptionalOperand]
                    parameter.grad = None
        exact.prepare()
        published.prepare()
        found = {f"gradients.{name}": value for name, value in gradients.state().items()}
        for kind, norms in (("streamed", streamed), ("exact", exact), ("published", published)):
            for path in attachment.layers:
                found[f"{kind}.{path}.inputs"] = norms[path].input_norm_I
                found[f"{kind}.{path}.hidden"] = norms[path].hidden_norm_R
    return found


def work(number: int, folder: str) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=number, world_size=WORLD, timeout=timedelta(seconds=60)
    )
    floats = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).T * (number + 1)  # not contiguous
    doubles, whole = torch.full((3,), 0.5 + number, dtype=torch.float64), torch.tensor(number + 10)
    ENGINE.sum([floats, doubles, whole, small := torch.tensor([float(number)])])
    sent = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).T * (number + 1)
    ENGINE.broadcast([sent])
    calls: list[list[int]] = []

    def squares(items: Sequence[int]) -> list[int]:
        calls.append(list(items))
        return [item * item for item in items]

    def only_here() -> list[int]:
        # Within it this process is alone: nothing here may wait for the other one.
        return [number, ENGINE.world_size, *ENGINE.map([1, 2, 3], squares)]

    def wrong() -> None:
        raise InputError("is wrong", field="here", value=number)

    mapped, shares = [ENGINE.map(range(count), squares) for count in (5, 1, 0)], calls[:]
    with pytest.raises(InputError) as error:
        ENGINE.on_main(wrong)
    results = {
        "sent": sent,
        "mapped": mapped,
        "calls": shares,
        "on main": ENGINE.on_main(only_here),
        "wrong": str(error.value),
        "rank": torch.tensor([ENGINE.rank, ENGINE.world_size]),
        "share": torch.tensor(ENGINE.share(range(7))),
        "floats": floats,
        "doubles": doubles,
        "whole": whole,
        "small": small,
        "same": torch.tensor(ENGINE.agree(0.1 + number), dtype=torch.float64),
    }
    torch.save(results | train(), Path(folder) / f"rank{number}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def alone() -> dict[str, Tensor]:
    return train()


@pytest.fixture(scope="module")
def ranks(alone: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """What each rank found; `alone` comes first, so that a fork has the model's code."""
    folder = tmp_path_factory.mktemp("ranks")
    # A new process takes seconds to import the model's code; autograd refuses a fork only where an accelerator is at work.
    method = "spawn" if torch.cuda.is_available() else "fork"
    start_processes(work, args=(str(folder),), nprocs=WORLD, start_method=method)
    return [torch.load(folder / f"rank{number}.pt") for number in range(WORLD)]


def pick(found: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {name: value for name, value in found.items() if name.startswith(f"{kind}.")}


@pytest.mark.parametrize("kind", ["streamed", "exact", "published", "gradients"])
def test_statistics_of_two_ranks_are_those_of_one_process(
    alone: dict[str, Tensor], ranks: list[dict[str, Tensor]], kind: str
) -> None:
    expected = pick(alone, kind)
    assert len(expected) >= 8
    for found in ranks:
        for name, value in expected.items():
            # Gradients are sums of terms of both signs: what is rounded is the terms.
            atol = 1e-6 * float(value.abs().max()) if kind == "gradients" else 0
            torch.testing.assert_close(found[name], value, atol=atol, rtol=1e-6)
    for name, value in pick(ranks[0], kind).items():
        assert torch.equal(value, ranks[1][name])  # or the ranks would prune apart


def test_sums_are_taken_in_place_by_dtype(ranks: list[dict[str, Tensor]]) -> None:
    for found in ranks:
        assert found["floats"].tolist() == [[3.0, 9.0], [6.0, 12.0]]
        assert found["doubles"].tolist() == [2.0] * 3
        assert found["doubles"].dtype == torch.float64
        assert found["whole"].item() == 21
        assert found["small"].tolist() == [1.0]


def test_shares_are_all_items_once_and_rank_0_decides(ranks: list[dict[str, Tensor]]) -> None:
    assert [found["rank"].tolist() for found in ranks] == [[0, 2], [1, 2]]
    assert [found["share"].tolist() for found in ranks] == [[0, 2, 4, 6], [1, 3, 5]]
    assert [found["same"].item() for found in ranks] == [0.1, 0.1]


def test_rank_0_is_copied_exactly_and_work_is_shared_in_order(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["sent"].tolist() == [[1.0, 3.0], [2.0, 4.0]]
        assert found["mapped"] == [[0, 1, 4, 9, 16], [0], []]
    assert [found["calls"] for found in ranks] == [[[0, 2, 4], [0]], [[1, 3]]]


def test_work_of_rank_0_alone_comes_to_all_and_so_does_its_error(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert found["on main"] == [0, 1, 1, 4, 9]
        assert found["wrong"] == "here: is wrong (got 0)"


def test_one_process_alone_is_the_whole_world() -> None:
    tensor = torch.tensor([1.0, 2.0])
    ENGINE.sum([tensor])
    assert tensor.tolist() == [1.0, 2.0]
    assert (ENGINE.rank, ENGINE.world_size, ENGINE.share([5, 6, 7]), ENGINE.agree(0.3)) == (0, 1, [5, 6, 7], 0.3)
    assert ENGINE.map([5, 6, 7], lambda items: [item + 1 for item in items]) == [6, 7, 8]
    assert ENGINE.on_main(lambda: 4) == 4
