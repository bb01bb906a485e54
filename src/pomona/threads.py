"""How the threads of one computation wait for each other: asleep, so that other work gets the core.

OpenMP's threads meet after every operation that they share. By default the one that comes first spins for a while. Beside other
programs the last one has no core until its turn comes, so the first spins away a whole turn, operation after operation.
"""

from __future__ import annotations

import os

SETTING = "OMP_WAIT_POLICY"
"""OpenMP's own. Its runtimes read it once, when they are loaded: together with torch. `GOMP_SPINCOUNT` and `KMP_BLOCKTIME`, where
someone has set them, come before it."""


def wait_asleep() -> None:
    """Ask for it, unless the environment says otherwise. No effect where torch is imported already."""
    os.environ.setdefault(SETTING, "PASSIVE")
