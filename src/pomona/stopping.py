"""A process that is asked to stop, by Ctrl-C, a scheduler or a terminal that closes: it finishes a training step first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up", "SIGQUIT": "quit"}
"""Name of a signal -> what is said of a process that it has stopped. A system may lack some of them."""


class Stopped(KeyboardInterrupt):
    """A signal asked the process to stop. Whoever cleans up after Ctrl-C cleans up after any of them.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _State:
    finishing = 0
    """Blocks of `finishing` that are open."""
    asked: int | None = None
    """The signal that waits for their end."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block the signals raise `Stopped`; in another thread than the main one they act as ever.

    A signal that is ignored when the block begins, such as SIGHUP under `nohup`, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, _stop)
        yield
    finally:
        _State.asked = None
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def finishing() -> Iterator[None]:
    """A block that a first signal does not break off: `Stopped` is raised at its end. A second one is not made to wait."""
    _State.finishing += 1
    try:
        yield
    finally:
        _State.finishing -= 1
    if _State.asked is not None and not _State.finishing:
        number, _State.asked = _State.asked, None
        raise Stopped(number)


def asked() -> bool:
    """Whether a signal waits for the end of a block of `finishing`."""
    return _State.asked is not None


def _stop(number: int, _frame: object) -> None:
    if _State.finishing and _State.asked is None:
        _State.asked = number
        return
    _State.asked = None
    raise Stopped(number)
