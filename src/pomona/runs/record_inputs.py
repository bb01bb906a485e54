"""What went into a run, in its record: fingerprints of recipe, model, data and sources."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from pomona.backbone.load import Backbone
from pomona.data import Splits, fingerprint
from pomona.errors import InputError
from pomona.runs.recipe import Recipe
from pomona.runs.record import RunRecord, SourceRecord, SplitRecord
from pomona.runs.sources import SourceAdapter


def describe_inputs(
    record: RunRecord,
    recipe: Recipe,
    backbone: Backbone,
    splits: Splits,
    prepared: Sequence[SourceAdapter],
    source_prints: Sequence[str],
    searched: Splits | None = None,
) -> None:
    """What went in: fingerprints of recipe, model, data and sources.

    `source_prints` are those of the source adapters; `searched` has the splits of the pass that learns the ratio, where that has
    a seed of its own.

    Raises:
        InputError: the run was begun with other data, sources or another model (a resumed run would mix the two).
    """
    parts = describe_splits(splits)
    sources = [
        SourceRecord(
            name=source.name,
            origin=source.origin,
            fingerprint=one,
            rank=max(source.adapter[module].rank for module in source.adapter),
            modules=len(source.adapter),
            weight=source.weight,
        )
        for source, one in zip(prepared, source_prints, strict=True)
    ]
    recipe_text = json.dumps(recipe.resolved(), sort_keys=True)
    of_model = {name if name == "model" else f"model's {name}": one for name, one in backbone.fingerprints.items()}
    prints = {"recipe": hashlib.sha256(recipe_text.encode()).hexdigest(), **of_model}
    parts_searched = {} if searched is None else describe_splits(searched)
    begun = {
        "data": record.splits,
        "data of the search": record.search_splits,
        "sources": record.sources,
        **{name: record.fingerprints.get(name) for name in of_model},
    }
    found = {"data": parts, "data of the search": parts_searched, "sources": sources, **of_model}
    for what, now in found.items():
        if begun[what] and begun[what] != now:
            raise InputError("not as it was when this run began", field=what, fix="Put it back, or give another --output")
    record.splits, record.search_splits, record.sources, record.fingerprints = parts, parts_searched, sources, prints


def describe_splits(splits: Splits) -> dict[str, SplitRecord]:
    """Each split's size and fingerprint."""
    return {name: SplitRecord(examples=len(part), fingerprint=fingerprint(part)) for name, part in splits.named()}
