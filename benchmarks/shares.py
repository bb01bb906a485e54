"""How many trials a share is measured in, and within which bounds it must lie: what the tables of `coverage` have in common."""

from __future__ import annotations

TRIALS = 2000
TRIALS_AGAIN = 10_000
COVERS = (0.93, 0.97)
REJECTS = (0.04, 0.06)
