"""What the systems are made of: a column for what the record has, none for what an older record does not have."""

from __future__ import annotations

from pomona.report.card import model_card
from pomona.report.tables import descriptions_table, headline
from pomona.report.wording import what_it_is_made_of
from pomona.runs.record import RunRecord
from pomona.runs.sizes import said_training

SETTINGS = {"learning_rate": 5e-4, "learning_rate_decay": 0.85, "epochs": 4, "batch_size": 5, "accumulation_steps": 2, "runs": 8}


def made_of(record: RunRecord) -> RunRecord:
    """The record with a main system whose modules have different ranks, and a static merge that lost to its rank."""
    main, svd = record.systems["pomona"], record.systems["svd"]
    main.adapted = dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), 30)
    main.trained_parameters, main.stored_parameters, main.padding, main.zeros = 1_682_432, 3_660_000, 1_977_568, 0.14
    main.training = SETTINGS  # pyright: ignore[reportAttributeAccessIssue]
    svd.adapted, svd.stored_parameters, svd.padding, svd.rank_loss = {"q_proj": 30, "v_proj": 30}, 460_800, 0, 0.4123
    return record


def rows(record: RunRecord) -> dict[str, dict[str, str]]:
    table = descriptions_table(record)
    head = [column.heading for column in table.columns]
    texts = [[f"{cell.text}/{cell.note}" if cell.note else cell.text for cell in row] for row in table.rows]
    return {row[0]: dict(zip(head[2:], row[2:], strict=True)) for row in texts}


def test_an_older_record_has_the_two_columns_that_it_always_had(older: RunRecord) -> None:
    assert [column.heading for column in descriptions_table(older).columns] == ["System", "What it is"]
    assert descriptions_table(older).note == ""
    assert what_it_is_made_of(older.systems["pomona"]) == ""
    assert [tile.note for tile in headline(older) if tile.label == "Sparsity"] == ["exact zeros, measured"]


def test_modules_sizes_and_settings_have_columns(record: RunRecord) -> None:
    found = rows(made_of(record))
    assert found["Pomona"] == {
        "Modules": "4 kinds (120 modules)",
        "Rank": "16",
        "Parameters trained": "1.68 M",
        "Stored": "3.66 M/1.98 M padding",
        "Lost by truncation": "\N{EN DASH}",
        "Training": "rate 0.0005, x 0.85 an epoch, 4 epochs, batches of 5, 2 batches a step, 8 runs",
    }
    assert found["SVD"]["Modules"] == "q_proj, v_proj (60 modules)"
    assert found["SVD"]["Stored"] == "460.8 k"
    assert found["SVD"]["Lost by truncation"] == "41.2%"
    assert set(found["Zero shot"].values()) == {"16", "\N{EN DASH}"} - {"16"}
    assert (
        what_it_is_made_of(record.systems["svd"])
        == "q_proj, v_proj (60 modules), rank 16, 460.8 k stored, 41.2% lost by truncation"
    )
    assert "| Pomona |" in model_card(record)
    assert "1.98 M padding" in model_card(record)


def test_the_sparsity_says_of_what(record: RunRecord) -> None:
    (note,) = [tile.note for tile in headline(made_of(record)) if tile.label == "Sparsity"]
    assert note == "exact zeros of 1.68 M trained parameters; 3.66 M stored, with padding"


def test_settings_that_are_not_known_are_left_out() -> None:
    assert said_training({}) == ""
    assert said_training(
        {"learning_rate": 1e-4, "learning_rate_decay": 1, "weights_learning_rate": 0.01, "epochs": 2, "runs": 1}
    ) == ("rate 0.0001, weights' rate 0.01, 2 epochs")
