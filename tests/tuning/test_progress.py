from __future__ import annotations

import io
import re
from unittest import mock

import pytest
from rich.console import Console

from pomona.tuning.progress import Display, Progress, Silent


def tell(progress: Progress) -> None:
    progress.begin("tuning pomona", 4)
    progress.advance(1, "loss 3.100")
    progress.ratio(0.25)
    progress.ratio(1.0)
    progress.advance(3, "loss 2.900")
    progress.end("epoch 2, dev loss 2.950")
    progress.begin("evaluating", 0)
    progress.advance(5)
    progress.end()


def test_elsewhere_than_on_a_terminal_a_stage_says_that_it_begins_and_how_it_ended() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=60, highlight=False)) as display:
        tell(display)
    begins, first, also_begins, second, *rest = out.getvalue().split("\n")
    assert (begins, also_begins) == ("tuning pomona: 0 of 4", "evaluating: begins")
    assert re.fullmatch(r"tuning pomona {32} +\d+\.\d s  epoch 2, dev loss 2\.950 prune ratio 100% ▃█", first)
    assert re.fullmatch(r"evaluating {35} +\d+\.\d s ? *", second)
    assert rest == [""]


def test_elsewhere_than_on_a_terminal_it_says_every_half_minute_how_far_it_is() -> None:
    out, times = io.StringIO(), [0.0, 10.0, 29.9, 31.0, 31.0, 40.0, 60.9, 61.5, 61.5, 70.0]
    with mock.patch("pomona.tuning.progress.time.monotonic", side_effect=times), Display(Console(file=out, width=20)) as display:
        display.begin("tuning pomona", 400)
        for step in range(1, 7):
            display.advance(20, f"loss {step}.000")
        display.end("epoch 2")
    assert out.getvalue().splitlines()[:-1] == [
        "tuning pomona: 0 of 400",
        "tuning pomona: 60 of 400, loss 3.000",
        "tuning pomona: 120 of 400, loss 6.000",
    ]
    assert "\x1b" not in out.getvalue()
    assert "\r" not in out.getvalue()


def test_on_a_terminal_the_bar_says_stage_place_note_and_ratio() -> None:
    out = io.StringIO()
    console = Console(file=out, width=160, force_terminal=True, color_system=None, highlight=False)
    with Display(console) as display:
        display.begin("tuning pomona", 4)
        display.ratio(0.5)
        display.advance(3, "loss 3.100")
        display._bars.refresh()
    shown = out.getvalue()
    assert "tuning pomona" in shown
    assert "3/4" in shown
    assert "loss 3.100 prune ratio 50% ▅" in shown


def test_the_trace_shows_the_last_ratios_from_low_to_high() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=300)) as display:
        display.begin("one", 1)
        for step in range(40):
            display.ratio(0.0 if step < 32 else 0.99)
        display.end()
        display.begin("two", 1)
        display.end()
    _, one, _, two, _ = out.getvalue().split("\n")
    assert one.endswith("prune ratio 99% " + "▁" * 24 + "█" * 8)
    assert "prune ratio" not in two


def test_notes_with_brackets_are_text_and_not_markup() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=200)) as display:
        display.begin("evaluating [merge]", 1)
        display.end("loss [0.1]")
    assert "evaluating [merge]" in out.getvalue()
    assert "loss [0.1]" in out.getvalue()


def test_by_default_it_writes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with Display() as display:
        display.begin("one", 1)
        display.end()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("one: 0 of 1\none ")


def test_silence_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    tell(Silent())
    assert capsys.readouterr() == ("", "")
