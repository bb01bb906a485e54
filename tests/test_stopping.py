"""A signal ends a process at once, but for what must be finished first; a second one does not wait."""

from __future__ import annotations

import os
import signal

import pytest

from pomona.stopping import Stopped, asked, finishing, stoppable


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_waits_for_the_end_of_a_block(number: int) -> None:
    before, done = signal.getsignal(number), []
    with pytest.raises(Stopped) as caught, stoppable():  # noqa: PT012
        with finishing():
            with finishing():
                send(number)
                assert asked()
            done.append("both")
        done.append("never")
    assert (caught.value.number, done) == (number, ["both"])
    assert signal.getsignal(number) is before
    assert not asked()


def test_a_second_signal_and_one_outside_do_not_wait() -> None:
    done = []
    with pytest.raises(Stopped), stoppable(), finishing():  # noqa: PT012
        send(signal.SIGTERM)
        done.append("first")
        send(signal.SIGTERM)
        done.append("never")
    with pytest.raises(Stopped), stoppable():  # noqa: PT012
        send(signal.SIGHUP)
        done.append("never")
    assert done == ["first"]


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            send(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
