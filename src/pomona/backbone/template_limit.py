"""A limit for a chat template, which is a program of the model's publisher: loops within loops, and texts that double.

Jinja's sandbox keeps a template from reading and calling what it should not, and lets it run for as long as it likes. Within the
block below every line of a template is seen, by Python's trace function of this thread alone, and the time and memory are looked
at. So it works in any thread, on any system, and what a template writes is not changed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SECONDS = 5.0
"""Of a processor's time that one conversation may take; templates take about a thousandth."""
_GROWTH_BYTES = 2**28
_LINES = 2  # between two looks: a text that doubles in every line has grown fourfold
_TEMPLATE = "<template>"  # what jinja calls the code of a template that came as a text


class EndlessTemplateError(Exception):
    """A template took more time or memory than a conversation can need."""


@contextmanager
def limited() -> Iterator[None]:
    """Within the block, templates that are rendered have a limit.

    Raises:
        EndlessTemplateError: one took longer than `SECONDS`, or this process grew by more than 256 MiB.
    """
    with _used_bytes() as used:
        ends, most, seen = time.thread_time() + SECONDS, used() + _GROWTH_BYTES, 0

        def line(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal seen
            seen += 1
            if event == "line" and seen % _LINES == 0:
                if time.thread_time() > ends:
                    raise EndlessTemplateError(f"takes more than {SECONDS:g} seconds")
                if used() > most:
                    raise EndlessTemplateError(f"takes more than {_GROWTH_BYTES // 2**20} MiB of memory")
            return line

        def call(frame: FrameType, event: str, argument: Any) -> Any:
            return line(frame, event, argument) if frame.f_code.co_filename == _TEMPLATE else None

        before = sys.gettrace()
        sys.settrace(call)
        try:
            yield
        finally:
            sys.settrace(before)


@contextmanager
def _used_bytes() -> Iterator[Callable[[], int]]:
    """Says the memory that this process has, in a microsecond; 0 where the system does not say it."""
    try:
        file = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        yield lambda: 0
        return
    page = os.sysconf("SC_PAGE_SIZE")
    try:
        yield lambda: int(os.pread(file, 64, 0).split()[1]) * page
    finally:
        os.close(file)
