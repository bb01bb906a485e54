"""`pomona` in several processes, as a launcher starts them, but forked from this one: no second import, no seconds of waiting."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from tests.end_to_end.setting import Outcome, environment

WORLD = 2


def together(
    folder: Path,
    *arguments: str,
    before: Callable[[int], object] = lambda rank: None,
    variables: Sequence[dict[str, str]] = (),
    more: Mapping[str, str] | None = None,
) -> list[Outcome]:
    """Run the command in two processes that share its work; how each of them ended.

    Args:
        folder: where the command runs.
        arguments: of the command line.
        before: called in each process, with its rank, before the command.
        variables: of each process; by default what `torchrun --nproc-per-node 2` sets.
        more: variables besides these.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **(more or {})}
    variables = variables or [given | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(WORLD)]
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=_run, args=(rank, folder, arguments, more, before)) for rank, more in enumerate(variables)]
    for process in started:
        process.start()
    for process in started:
        process.join(120)
    texts = [[_said(folder, rank, kind).read_text(encoding="utf-8") for kind in ("out", "err")] for rank in range(len(started))]
    assert all(process.exitcode is not None for process in started), texts
    return [Outcome(process.exitcode or 0, *said) for process, said in zip(started, texts, strict=True)]


def _said(folder: Path, rank: int, kind: str) -> Path:
    return folder / f"said-by-{rank}.{kind}"


def _run(rank: int, folder: Path, arguments: tuple[str, ...], more: dict[str, str], before: Callable[[int], object]) -> None:
    os.environ.clear()
    os.environ.update(environment(folder) | more)
    os.chdir(folder)
    torch.set_num_threads(1)
    for number, kind in ((1, "out"), (2, "err")):
        with _said(folder, rank, kind).open("wb") as file:
            os.dup2(file.fileno(), number)
    # pytest has put streams of its own in their places.
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    sys.argv = ["pomona", *arguments]
    code = 0
    try:
        before(rank)
        from pomona.cli.main import main

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
