"""Where large tensors live on a CPU: each in a block of its own, which goes back to the system as soon as it is freed.

By default they share the C library's heap as soon as one of their size was freed, and the heap keeps the gaps that a training
step leaves: a quarter of its peak. torch reads the setting once, before its first tensor.
"""

from __future__ import annotations

import os

SETTING = "THP_MEM_ALLOC_ENABLE"
"""torch's own, on Linux: tensors from 2 MiB on are aligned to pages and advised to be huge ones.

With its alignment such a tensor is larger than what glibc takes from the heap, so it is mapped by itself.
"""


def large_tensors_apart() -> None:
    """Ask for it, unless the environment says otherwise. No effect once torch has made a tensor."""
    os.environ.setdefault(SETTING, "1")
