"""Whatever a file, a folder, a model or an error holds is shown, and acts on no terminal; what nobody foresaw is one line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from unittest import mock

import pytest
import torch
from tests.adapters.builders import Q0, write_folder
from tests.end_to_end.setting import Outcome, call

from pomona.cli.main import RUST_PANICS
from pomona.cli.say import say, say_answer
from pomona.tuning.progress import Display

EVIL = "\x1b]0;owned\x07\x1b[31m\u202e"
SHOWN = r"\u001b]0;owned\u0007\u001b[31m\u202e"


class Terminal(io.StringIO):
    """Standard output as a terminal has it."""

    def isatty(self) -> bool:
        return True


def test_a_folder_s_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # a narrow table would fold the name
    write_folder(tmp_path / EVIL)
    for arguments in (("inspect", EVIL), ("check", EVIL), ("inspect", EVIL, EVIL), ("merge", EVIL, "-o", f"{EVIL}m")):
        outcome = call(tmp_path, *arguments)
        assert outcome.code == 0, outcome
        assert "\x1b" not in outcome.out + outcome.err
        assert "\u202e" not in outcome.out + outcome.err
        assert r"\u001b]0;owned" in outcome.out
    assert (tmp_path / f"{EVIL}m" / "adapter_config.json").is_file()  # shown so, and written as it is called


def test_a_folder_s_name_with_a_line_end_makes_no_line(tmp_path: Path) -> None:
    name = "a\nerror: all is lost"
    write_folder(tmp_path / name)
    outcome = call(tmp_path, "merge", name, "-o", "b\nerror: no")
    assert outcome.code == 0
    assert r"in b\u000aerror: no" in outcome.out
    outcome = call(tmp_path, "inspect", "x\nerror: all is lost")
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    name = b"a\xff".decode("utf-8", "surrogateescape")
    write_folder(tmp_path / name)
    assert call(tmp_path, "inspect", name).out.startswith(r"a\udcff (base model: ")
    outcome = call(tmp_path, "merge", name, "-o", f"{name}m")
    assert (outcome.code, outcome.out) == (2, "")
    assert r"a\udcffm: its name is not UTF-8. Choose another name." in outcome.err
    assert call(tmp_path, "inspect", f"{name}n").err.startswith(r"error: a\udcffn: no such folder")


@pytest.mark.parametrize("verb", ["inspect", "check", "adapt", "report", "export", "convert", "evaluate", "experiment"])
def test_a_nul_character_in_an_argument(verb: str, tmp_path: Path) -> None:
    outcome = call(tmp_path, verb, "a\0b")
    assert outcome == Outcome(2, "", "error: an argument holds a NUL character, which no path or name has. See `pomona --help`.\n")


def test_a_class_that_a_config_names(tmp_path: Path) -> None:
    write_folder(tmp_path / "adapter")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps({"architectures": [EVIL], "model_type": EVIL}))
    for target in ("llama.cpp", "vllm", "merged"):
        outcome = call(tmp_path, "export", "adapter", "--for", target, "--base", "base", "-o", "out")
        assert "\x1b" not in outcome.out + outcome.err
        assert "\u202e" not in outcome.out + outcome.err


def test_an_answer_is_escaped_on_a_terminal_alone(capsys: pytest.CaptureFixture[str]) -> None:
    say_answer(f"two\nlines {EVIL}")
    assert capsys.readouterr().out == f"two\nlines {EVIL}\n"
    with mock.patch("sys.stdout", Terminal()) as terminal:
        say_answer(f"two\nlines {EVIL}")
    assert terminal.getvalue() == f"two\nlines {SHOWN}\n"


def test_letters_that_the_output_lacks() -> None:
    stream = io.TextIOWrapper(raw := io.BytesIO(), encoding="ascii", write_through=True)
    with mock.patch("sys.stdout", stream):
        say("Größe")
    assert raw.getvalue() == rb"Gr\xf6\xdfe" + b"\n"


def test_the_display_of_progress() -> None:
    from rich.console import Console

    for terminal in (False, True):
        stream = io.StringIO()
        with Display(Console(file=stream, force_terminal=terminal, width=200, color_system=None)) as display:
            display.begin(f"source {EVIL}", 2)
            display.advance(1, f"loss {EVIL}")
            display.end(EVIL)
            display.warn(EVIL)
        assert "owned\x07" not in stream.getvalue()
        assert "\u202e" not in stream.getvalue()
        assert f"warning: {SHOWN}" in stream.getvalue()


class PanicException(BaseException):
    """As a panic of a library in Rust arrives."""

    __module__ = RUST_PANICS


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ZeroDivisionError(f"a\n{EVIL}"), 1, f"ZeroDivisionError: a {SHOWN} (--debug shows where)"),
        (PanicException("index out of bounds"), 1, "PanicException: index out of bounds (--debug shows where)"),
        (RecursionError("maximum recursion depth exceeded"), 1, "RecursionError: maximum recursion depth exceeded (--debug shows"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "no"), 1, "UnicodeEncodeError: 'utf-8' codec can't encode"),
        (MemoryError(), 2, "there is not enough memory for this. Give a smaller input or model"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), 2, "there is not enough memory for this"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"), 2, "there is not enough memory for this"),
        (PermissionError(13, "Permission denied", "/cache/models"), 2, "/cache/models: Permission denied (--debug shows where)"),
        (FileExistsError(17, "File exists", "cache"), 2, "cache: File exists (--debug shows where)"),
    ],
)  # fmt: skip
def test_what_nobody_foresaw(error: BaseException, code: int, line: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "adapter")
    with mock.patch("pomona.adapters.measure.describe_adapter", side_effect=error):
        outcome = call(tmp_path, "inspect", "adapter")
    assert (outcome.code, outcome.out) == (code, "")
    (told,) = outcome.err.splitlines()
    assert told.startswith(f"error: {line}")


def test_a_module_s_name_is_none_that_acts(tmp_path: Path) -> None:
    write_folder(tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"target_modules": [Q0, EVIL]}))
    outcome = call(tmp_path, "inspect", "adapter")
    assert (outcome.code, outcome.out) == (2, "")
    assert "\x1b" not in outcome.err
