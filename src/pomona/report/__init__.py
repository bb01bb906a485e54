"""Reports on a run, made from its folder alone: one HTML page, and the card of the exported adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pomona.report.page import write_report
from pomona.report.read import RunFolder, read_run
from pomona.report.sentences import three_sentences
from pomona.report.wording import what_it_is_made_of

if TYPE_CHECKING:
    from pomona.report.card import model_card

__all__ = ["RunFolder", "model_card", "read_run", "three_sentences", "what_it_is_made_of", "write_report"]


def __getattr__(name: str) -> object:
    """The model card reads adapters, and so takes torch a second to load, which a page does not need."""
    if name == "model_card":
        from pomona.report.card import model_card

        return model_card
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
