"""The number of trials of a share, and its bounds: common parts of the tables of `coverage`."""

from __future__ import annotations

TRIALS = 2000
TRIALS_AGAIN = 10_000
COVERS = (0.93, 0.97)
REJECTS = (0.04, 0.06)
