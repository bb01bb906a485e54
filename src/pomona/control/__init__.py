"""Controllers choose the prune ratio: they propose, observe losses, commit and answer, without a model. One per file.

Within a run: `Controller`. Over whole runs: `Search`.
"""

from __future__ import annotations

from pomona.control.base import Controller, controllers
from pomona.control.bayes import Bayes
from pomona.control.fixed import Fixed
from pomona.control.grasp import Grasp
from pomona.control.grid import Grid
from pomona.control.handling import Handling
from pomona.control.layerwise import Layerwise
from pomona.control.published import PUBLISHED
from pomona.control.rounds import Candidate, ControllerState, Round
from pomona.control.search import Search, Trial
from pomona.control.tpe import Tpe

__all__ = [
    "PUBLISHED",
    "Bayes",
    "Candidate",
    "Controller",
    "ControllerState",
    "Fixed",
    "Grasp",
    "Grid",
    "Handling",
    "Layerwise",
    "Round",
    "Search",
    "Tpe",
    "Trial",
    "controllers",
]
