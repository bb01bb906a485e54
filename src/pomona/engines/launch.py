"""The processes of one command that `torchrun` or `accelerate launch` has started: how they find each other, and how they end.

A launcher describes each process by the environment variables RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. If one
process fails, the others wait for it in an exchange that never comes. So the first one to fail leaves a note in the store where the
processes have met; the others find the note when their exchange breaks, and end without a word.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d
from torch.distributed.rendezvous import rendezvous

from pomona.errors import InputError, PomonaError

_LONGEST_WAIT = timedelta(days=1)
"""Of one exchange: a share of the answers may take hours, and a launcher ends the others if one process dies."""
_WORD = timedelta(seconds=5)
"""How long a process waits for another one's message before it ends: a launcher ends all as soon as one has ended."""
_ALIKE_SECONDS = 20.0
_FAILURE, _SAID, _GONE = "failure", "said", "gone"
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Failure(NamedTuple):
    """Why the first process ended.

    Args:
        text: its message.
        code: its exit code.
    """

    text: str
    code: int


class _Joined:
    """The store of the group that this process has joined."""

    store: c10d.Store | None = None
    errors: int = 0


def join() -> int:
    """Join the processes that the environment names, and take the device of LOCAL_RANK.

    Returns:
        The number of this process, from 0.

    Raises:
        InputError: the environment is not complete, or there is no device for this process.
        PomonaError: the other processes cannot be reached.
    """
    number = _numbers()
    rank, size = number["RANK"], number["WORLD_SIZE"]
    backend = "gloo"
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:
        torch.accelerator.set_device_index(_device_index(number.get("LOCAL_RANK", rank), torch.accelerator.device_count()))
        # Objects and files' states travel between CPUs: no exchange of them waits for a device.
        backend = f"cpu:gloo,{accelerator.type}:{dist.get_default_backend_for_device(accelerator)}"
    try:
        store, _, _ = next(rendezvous("env://"))
        _Joined.store = c10d.PrefixStore("pomona", store)
        dist.init_process_group(backend, store=c10d.PrefixStore("group", store), rank=rank, world_size=size, timeout=_LONGEST_WAIT)
    except (RuntimeError, ValueError) as error:  # torch's errors of networks are RuntimeErrors
        raise PomonaError(
            f"process {rank} of {size} does not reach the others: {error}",
            field="MASTER_ADDR, MASTER_PORT",
            fix="Start all processes with one launcher, such as torchrun",
        ) from error
    return rank


def leave() -> None:
    """Leave the group; every process has arrived here, and has done its work."""
    if _Joined.store is not None:
        dist.all_reduce(torch.zeros(1))
        dist.destroy_process_group()
        _Joined.store = None


def claim(failure: Failure) -> Failure | None:
    """Report that this process fails.

    Returns:
        None: it is the first one, and says why. Else why the first one has failed, which has said so.
    """
    store = _Joined.store
    if store is None:
        return None
    try:
        if store.add(f"{_FAILURE}/count", 1) == 1:
            store.set(_FAILURE, json.dumps(failure))
            return None
        store.wait([_SAID], _WORD)
        return Failure(*json.loads(store.get(_FAILURE)))
    except RuntimeError:  # the store is gone, with the process that holds it
        return None


def before_the_end() -> None:
    """Let the other processes learn why this one ends: call it after `claim`, and after the message is printed.

    Process 0 may hold the store, so it waits for the others, but not long: they may be stuck.
    """
    store = _Joined.store
    if store is None:
        return
    until = time.monotonic() + _WORD.total_seconds()
    try:
        store.set(_SAID, "")
        if dist.get_rank() > 0:
            store.add(_GONE, 1)
            return
        others = dist.get_world_size() - 1
        # It breaks the exchanges that the others wait in. Some libraries wait in it for the others.
        threading.Thread(target=_leave_quietly, daemon=True).start()
        while store.add(_GONE, 0) < others and time.monotonic() < until:
            time.sleep(0.005)
    except RuntimeError:
        return


def _leave_quietly() -> None:
    with contextlib.suppress(RuntimeError):
        dist.destroy_process_group()


def failure_elsewhere() -> Failure | None:
    """Why another process has failed, if one has: the reason for which an exchange with it breaks."""
    store = _Joined.store
    try:
        return Failure(*json.loads(store.get(_FAILURE))) if store is not None and store.check([_FAILURE]) else None
    except RuntimeError:
        return None


def failed_alike() -> bool:
    """Whether every process has failed at the same place, so that all of them can go on together.

    Every process that fails calls this. One that is alone with its error must end: the others wait for it in an exchange.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return True
    store = _Joined.store
    if store is None:
        return False
    _Joined.errors += 1
    key, until = f"error/{_Joined.errors}", time.monotonic() + _ALIKE_SECONDS
    store.add(key, 1)
    while store.add(key, 0) < dist.get_world_size():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def _numbers() -> dict[str, int]:
    """The launcher's variables that are numbers."""
    for name in _VARIABLES:
        if not os.environ.get(name):
            raise InputError(
                f"WORLD_SIZE is {os.environ.get('WORLD_SIZE')}, but this variable is not set",
                field=name,
                fix="Start the processes with torchrun or accelerate launch; for one process, unset WORLD_SIZE",
            )
    found: dict[str, int] = {}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        value = os.environ.get(name)
        if value is None:
            continue
        if not value.isascii() or not value.isdigit():
            raise InputError("a whole number is expected in this environment variable", field=name, value=value)
        found[name] = int(value)
    if found["RANK"] >= found["WORLD_SIZE"]:
        raise InputError(f"must be below WORLD_SIZE {found['WORLD_SIZE']}", field="RANK", value=found["RANK"])
    return found


def _device_index(local_rank: int, count: int) -> int:
    """The device of a process: that of its number on its machine, or the only one that it sees."""
    if count == 1:
        return 0
    if local_rank >= count:
        raise InputError(
            f"there are {count} devices on this machine, one for each process",
            field="LOCAL_RANK",
            value=local_rank,
            fix=f"Start at most {count} processes a machine: --nproc-per-node {count}",
        )
    return local_rank
