"""Controllers: which prune ratio? They propose, see losses, commit and answer; they never see a model. One controller a file."""

from __future__ import annotations

from pomona.control.base import Answer, Candidate, Controller, ControllerState, Round, controllers, state_from_dict, state_to_dict
from pomona.control.fixed import Fixed
from pomona.control.grasp import Grasp

__all__ = [
    "Answer",
    "Candidate",
    "Controller",
    "ControllerState",
    "Fixed",
    "Grasp",
    "Round",
    "controllers",
    "state_from_dict",
    "state_to_dict",
]
