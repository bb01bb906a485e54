"""What the systems of an experiment are made of, and which of them are not alike."""

from __future__ import annotations

from typing import Any

from pomona.runs.experiments.record import ExperimentRecord, SettingRecord
from pomona.runs.experiments.table import table
from pomona.runs.record import SystemDescription
from pomona.runs.sizes import unlike


def system(parameters: int | None, kinds: dict[str, int], **training: float) -> SystemDescription:
    settings: Any = {"learning_rate": 5e-4, "epochs": 4, "runs": 1} | training
    sizes = {"trained_parameters": parameters, "stored_parameters": 100_000, "rank": 8}
    return SystemDescription(label="", description="", adapted=kinds, training=settings if parameters else None, **sizes)


ATTENTION = {"q_proj": 30, "v_proj": 30}
SYSTEMS = {
    "unpruned": system(100_000, ATTENTION),
    "p50": system(105_000, ATTENTION, runs=8),
    "target_lora": system(50_000, {"q_proj": 30}, learning_rate=1e-3),
    "merged": system(None, ATTENTION),
}


def test_modules_sizes_and_settings_that_differ_are_said() -> None:
    assert unlike(SYSTEMS, "unpruned") == [
        "p50 is not trained like unpruned: runs 8, unpruned 1",
        "target_lora is not trained like unpruned: it adapts q_proj (30 modules), unpruned q_proj, v_proj (60 modules); "
        "it trains 50.0 k parameters, unpruned 100.0 k; learning_rate 0.001, unpruned 0.0005",
    ]


def test_an_experiment_s_table_shows_them() -> None:
    setting = SettingRecord(draws=100, metrics={}, costs={}, signatures={}, systems=SYSTEMS)
    found = ExperimentRecord(name="x", seeds=[0], against="target_lora", settings={"default": setting}, cells=[], total_seconds=0)
    text = table(found)
    assert "| merged      | q_proj, v_proj (60 modules) |    8 |                  - | 100.0 k |" in text
    assert (
        "- unpruned is not trained like target_lora: it adapts q_proj, v_proj (60 modules), target_lora q_proj (30 modules)" in text
    )
    bare = setting.model_copy(update={"systems": {}})
    assert "### systems" not in table(found.model_copy(update={"settings": {"default": bare}}))
