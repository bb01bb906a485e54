"""Errors in the words of the caller: options on the command line, arguments in Python."""

from __future__ import annotations

import pytest

from pomona.errors import InputError, command_line, spoken

OCCUPIED = "Give another --output, or --resume to go on with it"


def test_python_reads_arguments_and_the_command_line_options() -> None:
    given = {"field": "--base", "value": 3, "fix": OCCUPIED}
    assert str(InputError("see --dry-run", **given)) == (
        "base: see `dry_run` (got 3). Give another `output`, or resume=True to go on with it."
    )
    with command_line():
        assert str(InputError("see --dry-run", **given)) == f"--base: see --dry-run (got 3). {OCCUPIED}."
    assert str(InputError("is needed", field="--max-error")) == "max_error: is needed"


@pytest.mark.parametrize(
    ("written", "in_python"),
    [
        ("Export it with --for merged", 'Export it with target="merged"'),
        ("--for llama.cpp", 'target="llama.cpp"'),
        ("Leave out --from", "Leave out `start`"),
        ("Write for example --column a=b", "Write for example `columns` a=b"),
        (
            "Install it with `pip install --no-deps x`, or give --model",
            "Install it with `pip install --no-deps x`, or give `model`",
        ),
        ("Convert it: pomona convert a.b --output DIR", "Convert it: pomona convert a.b --output DIR"),
        ("twenty--five and a -- b", "twenty--five and a -- b"),
    ],
)
def test_what_is_an_option_and_what_a_command(written: str, in_python: str) -> None:
    assert spoken(written) == in_python
    assert spoken(in_python) == in_python  # an error that is raised again, with its place, is read once more
