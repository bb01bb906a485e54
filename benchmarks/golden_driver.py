"""Make the runs of `golden_runs` with the revision of Pomona in `PYTHONPATH`.

    python -P benchmarks/golden_driver.py CASES.json OUTPUT

It uses only `adapt`, `read_recipe` and `Recipe` of Pomona's public API. Each run is a separate process, forked from this one.
Imports take longer than a run, so this process imports the modules that the first run imported.

`CASES.json` is a list of `{name, ranks, killed}`; the working folder has the `NAME.yaml` of each. OUTPUT gets each run folder
`NAME`, which several ranks share, and the run's printed output, `NAME.log`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path

import torch

PATIENCE = 120.0
"""Seconds after which a run has failed."""
IMPORTED = "imported.txt"


def main(cases: Path, output: Path) -> None:
    """Make every run, one after the other; print which exit codes its processes had."""
    torch.set_num_threads(1)
    for case in json.loads(cases.read_text(encoding="utf-8")):
        started = time.monotonic()
        codes = _make(case["name"], output, case["ranks"], killed=case["killed"])
        print(f"{case['name']}: exit {codes}, {time.monotonic() - started:.1f} s", flush=True)
        _import_what_it_imported(output / IMPORTED)


def _make(name: str, output: Path, ranks: int, *, killed: bool) -> list[int]:
    folder = output / name
    if ranks > 1:
        store = output / f"{name}.store"
        processes = [_start(name, folder, rank=rank, ranks=ranks, store=store) for rank in range(ranks)]
        return [_wait(process) for process in processes]
    if killed:
        return [_kill_after_a_round(_start(name, folder), folder), _wait(_start(name, folder, resume=True))]
    return [_wait(_start(name, folder))]


def _import_what_it_imported(listed: Path) -> None:
    """The modules that a run left listed, so that the next ones start with them."""
    for name in listed.read_text(encoding="utf-8").split():
        if name not in sys.modules:
            with contextlib.suppress(Exception):  # a lazy module, or one that only its package can import
                importlib.import_module(name)


def _start(name: str, folder: Path, *, resume: bool = False, rank: int = 0, ranks: int = 1, store: Path | None = None) -> int:
    """Fork a process that makes this run; its number."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    with folder.with_name(f"{folder.name}.log").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    code = 0
    try:
        import pomona
        from pomona.runs.adapt import adapt

        if store is not None:
            torch.distributed.init_process_group(
                "gloo", init_method=f"file://{store}", rank=rank, world_size=ranks, timeout=timedelta(seconds=60)
            )
        adapt(pomona.read_recipe(Path(f"{name}.yaml"), pomona.Recipe), folder, resume=resume)
        folder.with_name(IMPORTED).write_text("\n".join(list(sys.modules)), encoding="utf-8")
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _kill_after_a_round(process: int, folder: Path) -> int:
    """Kill the run as soon as its history tells of a round of the controller."""
    history, deadline = folder / "history.jsonl", time.monotonic() + PATIENCE
    while not (history.exists() and '"kind": "round"' in history.read_text(encoding="utf-8")):
        if os.waitpid(process, os.WNOHANG)[0]:
            return 71
        if time.monotonic() > deadline:
            break
        time.sleep(0.001)
    os.kill(process, signal.SIGKILL)
    return _wait(process)


def _wait(process: int) -> int:
    """Its exit code, negative where a signal ended it; a run that hangs is killed."""
    deadline = time.monotonic() + PATIENCE
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(0.002)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
