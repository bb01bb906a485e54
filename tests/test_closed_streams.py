"""What nobody reads any more ends no run."""

from __future__ import annotations

import os
import sys
from unittest import mock

import pytest

from pomona.cli.say import say
from pomona.tuning.progress import Display


@pytest.mark.parametrize("gone", ["its reader", "the stream", "standard error"])
def test_a_display_goes_on(gone: str) -> None:
    reader, writer = os.pipe()
    with (
        open(writer, "w", encoding="utf-8", buffering=1) as stream,  # noqa: PTH123 (a descriptor)
        mock.patch.object(sys, "stderr", None if gone == "standard error" else stream),
        Display() as display,
    ):
        display.begin("tuning", 2)
        os.close(reader)
        if gone == "the stream":
            stream.close()
        display.advance(1, "loss 1.0")
        display.warn("something")
        display.end("epoch 1")
        say("error: something", err=True)
