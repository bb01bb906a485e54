"""`python -m benchmarks judges`: the counts and costs of run folders that are written by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import judges
from pomona.runs.record import Estimate, RunRecord, SplitRecord


def write(
    folder: Path, judge: dict[str, Any], epochs: Sequence[tuple[float, float | None, bool, int | None]], score: float
) -> None:
    """A finished run with one training; an epoch is (dev loss, dev score, best, kept epoch)."""
    folder.mkdir(parents=True)
    record = RunRecord(
        status="done", name=folder.name, started="now", recipe={"name": folder.name, "seed": folder.parent.name, **judge},
        environment={}, fingerprints={}, model="m", task="t", primary_metric="token_f1",
        splits={"test": SplitRecord(examples=1, fingerprint="f")},
        metrics={"pomona": {"token_f1": Estimate(value=score, low=0, high=0, n=1)}, "zero_shot": {}},
    )  # fmt: skip
    (folder / "record.json").write_text(record.model_dump_json(), encoding="utf-8")
    lines = []
    for number, (loss, dev_score, best, kept) in enumerate(epochs, 1):
        line = {"kind": "epoch", "system": "pomona", "step": number, "epoch": number, "dev_loss": loss, "best": best}
        more = {"dev_score": dev_score, "kept_epoch": kept}
        lines.append(line | {name: value for name, value in more.items() if value is not None})
    (folder / "history.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")


def test_counts_and_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two seeds. The first epoch of one cannot be exported: it is the best in all, and counts for nothing."""
    metric, near = {"select_by": "token_f1"}, {"select_by": "token_f1", "select_tolerance": 1.0}
    for seed, gain in (("s0", 3.0), ("s1", 0.0)):
        first = [(0.1, 90.0, False)] if seed == "s0" else []
        scored = [*first, (1.0, 20.0, True), (2.0, 25.0 if gain else 15.0, bool(gain))]
        by_loss = [(loss, None, best and score == 20.0) for loss, score, best in scored]
        write(tmp_path / seed / "loss", {"select_by": "loss"}, [(*one, None) for one in by_loss], 30.0)
        write(tmp_path / seed / "f1", metric, [(*one, None) for one in scored], 30.0 + gain)
        kept = len(scored) - 1
        write(tmp_path / seed / "near", near, [(*one, min(kept, 1 + place)) for place, one in enumerate(scored)], 30.0)
    write(tmp_path / "other" / "f1", metric, [(1.0, 10.0, True, None)], 99.0)  # no run by the loss, and one epoch
    assert judges.run([str(tmp_path)])
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    rows = {line[0].strip("| "): line[1:] for line in lines}
    assert rows["token_f1"][:2] == ["2", "1 (50%)"]
    # 3 and 0: mean 1.5, deviation 2.121, half width 12.706 x 2.121 / sqrt 2
    assert rows["token_f1"][2].startswith("1.50 (-17.56 to 20.56)")
    assert rows["token_f1"][3].startswith("3.00")
    assert rows["token_f1, tolerance 1"] == ["2", "0 (0%)", "0.00 (0.00 to 0.00)", "- |"]


def test_within_a_run_the_loss_s_choice_loses_dev_score(tmp_path: Path) -> None:
    epochs = [(0.1, 90.0, False, None), (1.0, 20.0, True, None), (2.0, 25.0, True, None)]
    write(tmp_path / "a", {"select_by": "token_f1"}, epochs, 1.0)
    (found,) = judges.within([judges.read_run(tmp_path / "a")])
    assert found == judges.Within("token_f1", differ=True, lost=5.0)


def test_nothing_to_compare_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a", {"select_by": "loss"}, [(1.0, None, True, None)], 1.0)
    assert not judges.run([str(tmp_path)])
    assert capsys.readouterr().out == "1 finished runs\n"
