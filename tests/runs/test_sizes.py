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


def test_different_modules_sizes_and_settings_are_reported() -> None:
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


def test_what_the_dev_set_chose_from_one_grid_is_no_difference() -> None:
    grid = {"learning_rate": [0.001, 0.002]}

    def tuned(rate: float, epochs: int, over: dict[str, list[float]] | None) -> SystemDescription:
        training: dict[str, float | None] = {
            "learning_rate": rate,
            "epochs": epochs,
            "weights_learning_rate": 100 * rate,
            "runs": epochs,
        }
        return SystemDescription(
            label="", description="", adapted={"q_proj": 2}, trained_parameters=100, training=training, tuned_over=over
        )

    same = {"one": tuned(0.001, 4, grid), "two": tuned(0.002, 4, grid)}
    assert unlike(same, "one") == []
    assert unlike(same | {"two": tuned(0.002, 8, grid)}, "one") == ["two is not trained like one: epochs 8, one 4"]
    assert len(unlike(same | {"two": tuned(0.002, 4, {"learning_rate": [0.002]})}, "one")) == 1
    assert len(unlike({"one": tuned(0.001, 4, None), "two": tuned(0.002, 4, None)}, "one")) == 1
