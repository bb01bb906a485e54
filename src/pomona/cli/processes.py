"""One command run by several processes, which `torchrun` or `accelerate launch` has started: one of them speaks for all."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from pomona.cli.interrupted import exit_code, message
from pomona.cli.say import say

SHARED = frozenset({"adapt", "demo", "evaluate", "experiment", "rank-sources", "train-adapter"})
"""The verbs whose work the processes share. Any other one is run by the first process alone."""


@contextlib.contextmanager
def processes(arguments: Sequence[str]) -> Iterator[None]:
    """Within the block the command runs in the process group of its launcher, if a launcher has started several processes.

    Only the first process prints. All of them leave the block together.

    Args:
        arguments: of the command line.

    Raises:
        SystemExit: the launcher's description is wrong; or another process does all of the work.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield
        return
    verb = next((argument for argument in arguments if not argument.startswith("-")), None)
    if verb not in SHARED:
        if os.environ.get("RANK", "0") != "0":
            raise SystemExit(0)
        yield
        return
    from pomona.engines.launch import join, leave
    from pomona.errors import PomonaError

    try:
        rank = join()
    except PomonaError as error:
        end(f"error: {error}", error.exit_code)
    except KeyboardInterrupt as interrupt:
        end(message(interrupt), exit_code(interrupt))
    with contextlib.ExitStack() as stack:
        if rank > 0:
            nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield
        try:
            leave()
        except RuntimeError as error:  # a process has failed after this one had done its work
            end(f"error: the other processes are gone: {error}", 1)
        except KeyboardInterrupt as interrupt:
            end(message(interrupt), exit_code(interrupt))


def end(message: str, code: int) -> NoReturn:
    """Print why the command ends, and end it; of several processes the first one that fails prints.

    Raises:
        SystemExit: with the exit code.
    """
    if "torch.distributed" not in sys.modules:
        say(message, err=True)
        raise SystemExit(code) from None
    import torch.distributed as dist

    from pomona.engines.launch import Failure, before_the_end, claim

    parallel = dist.is_available() and dist.is_initialized()
    first = claim(Failure(message, code)) if parallel else None
    if first is None:
        # Standard error goes nowhere in every process but the first one.
        with contextlib.redirect_stderr(sys.__stderr__) if parallel else contextlib.nullcontext():
            say(message, err=True)
    if parallel:
        before_the_end()
        # At an ordinary end torch would wait for the other processes, which may be stuck in an exchange with this one.
        sys.stdout.flush()
        os._exit(code if first is None else first.code)
    raise SystemExit(code) from None
