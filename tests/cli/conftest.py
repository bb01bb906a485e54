"""Messages name options, as on the command line, where a test calls the function behind a verb."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pomona.errors import command_line


@pytest.fixture(autouse=True)
def on_the_command_line() -> Iterator[None]:
    with command_line():
        yield
