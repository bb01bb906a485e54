"""Whether two revisions of Pomona make the same runs, bit for bit: `python -m benchmarks golden_runs --against REV`.

A checkout of REV and this checkout make the small runs of `golden_recipes`, in separate processes with the same model, adapters and
data. For each run, the adapter's tensors and config, `history.jsonl`, `record.json` and `predictions.jsonl` are compared, without
times and the environment. A run that was killed and resumed is also compared with the same uninterrupted run. `--only WORD` makes
the runs with this word in their names, `--except recipe.speed` ignores a part of the record that is meant to differ, `--keep
FOLDER` keeps the runs in that folder.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.golden_recipes import CASES, Case, file_name, write_setting

REPOSITORY = Path(__file__).resolve().parents[1]
CLOCK = ("started", "timing", "environment")
PARTS = ("adapter", "config", "history", "record", "predictions")
SHOWN = 3


def run(arguments: Sequence[str] = ()) -> bool:
    """Print a row for each run: whether it is the same, or what differs; whether all are."""
    options = _options(arguments)
    cases = {name: case for name, case in CASES.items() if options.only in name and case.possible}
    for name, case in CASES.items():
        if not case.possible:
            print(f"left out, {case.needs} is not installed: {name}")
    # An undisturbed twin of each run that is killed.
    twins = {name: f"{name}, undisturbed" for name, case in cases.items() if case.killed}
    made = cases | {twin: replace(cases[name], killed=False) for name, twin in twins.items()}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(options.keep or temporary).resolve()
        setting = work / "setting"
        setting.mkdir(parents=True)
        write_setting(setting, made)
        for killed, twin in twins.items():  # a run's name is in its record
            (setting / f"{file_name(twin)}.yaml").write_bytes((setting / f"{file_name(killed)}.yaml").read_bytes())
        with _checkout(options.against, Path(temporary) / "checkout") as theirs:
            _make_runs(theirs, setting, work / "theirs", made)
        _make_runs(REPOSITORY, setting, work / "ours", made)
        same = True
        print("| recipe | here against " + options.against + " |\n| --- | --- |")
        for name in cases:
            found = list(_differences(work / "ours", work / "theirs", name, name, options.excepted))
            if name in twins:
                found += [f"undisturbed: {one}" for one in _differences(work / "ours", work / "ours", name, twins[name], ())]
            same &= not found
            print(f"| {name} | {'; '.join(found) or 'same'} |", flush=True)
    return same


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks golden_runs", description=__doc__)
    parser.add_argument("--against", required=True, metavar="REV", help="a commit, branch or tag")
    parser.add_argument("--only", default="", metavar="WORD", help="runs with this in their names")
    parser.add_argument(
        "--except", dest="excepted", action="append", default=[], metavar="PATH", help="part of the record, by its keys"
    )
    parser.add_argument("--keep", metavar="FOLDER", help="leave recipes and runs in this new folder")
    return parser.parse_args(arguments)


@contextlib.contextmanager
def _checkout(revision: str, folder: Path) -> Iterator[Path]:
    """A work tree of a revision, for the length of a block."""
    _git("worktree", "add", "--quiet", "--detach", str(folder), revision)
    try:
        yield folder
    finally:
        _git("worktree", "remove", "--force", str(folder))


def _git(*arguments: str) -> None:
    subprocess.run(["git", "-C", str(REPOSITORY), *arguments], check=True)


def _make_runs(root: Path, setting: Path, output: Path, cases: Mapping[str, Case]) -> None:
    """Every run, by the sources under `root`."""
    output.mkdir()
    listed = setting / "cases.json"
    listed.write_text(
        json.dumps([{"name": file_name(name), "ranks": case.ranks, "killed": case.killed} for name, case in cases.items()]),
        encoding="utf-8",
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POMONA_")}
    environment |= {
        "PYTHONPATH": str(root / "src"),
        "POMONA_CACHE": str(output / "cache"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore::DeprecationWarning",  # a fork beside threads
    }
    driver = REPOSITORY / "benchmarks" / "golden_driver.py"
    subprocess.run([sys.executable, "-P", str(driver), str(listed), str(output)], cwd=setting, env=environment, check=True)


def _differences(ours: Path, theirs: Path, our_name: str, their_name: str, excepted: Sequence[str]) -> Iterator[str]:
    """What differs between a run here and one there."""
    one, other = (_content(folder / file_name(name)) for folder, name in ((ours, our_name), (theirs, their_name)))
    for part in PARTS:
        mine, yours = one.get(part), other.get(part)
        if mine is None or yours is None:
            sides = " and ".join(side for side, found in (("here", mine), ("there", yours)) if found is None)
            yield f"no {part} {sides}"
            continue
        paths = [path for path in _paths(mine, yours) if not any(path == left or path.startswith(f"{left}.") for left in excepted)]
        if paths:
            yield f"{part} ({', '.join(paths[:SHOWN])}{', ...' if len(paths) > SHOWN else ''})"


def _content(run: Path) -> dict[str, Any]:
    """The parts of a run folder that it has."""
    found: dict[str, Any] = {}
    files = {
        "adapter": run / "adapter" / "adapter_model.safetensors",
        "config": run / "adapter" / "adapter_config.json",
        "history": run / "history.jsonl",
        "record": run / "record.json",
        "predictions": run / "predictions.jsonl",
    }
    for part, file in files.items():
        if not file.exists():
            continue
        if part == "adapter":
            found[part] = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        else:
            text = file.read_text(encoding="utf-8")
            value = [json.loads(line) for line in text.splitlines()] if file.suffix == ".jsonl" else json.loads(text)
            found[part] = _timeless(value)
    return found


def _timeless(value: Any) -> Any:
    """Without the clock's values and the environment, wherever they stand."""
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in CLOCK and not key.endswith("_seconds")}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def _paths(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Where two values differ, by keys and places joined with dots."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one | other:
            yield from _paths(one.get(key, "absent"), other.get(key, "absent"), f"{path}.{key}" if path else str(key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, pair in enumerate(zip(one, other, strict=True)):
            yield from _paths(*pair, f"{path}.{place}" if path else str(place))
    elif one != other and not (one != one and other != other):  # NaN is itself here
        yield path or "lines"


if __name__ == "__main__":
    sys.exit(0 if run(sys.argv[1:]) else 1)
