"""What all tests share: shapes and types are checked at run time in the rooms of pure tensor functions."""

from __future__ import annotations

import os
import signal

import pomona  # noqa: F401  # before anything imports torch: see pomona.threads

from jaxtyping import install_import_hook  # isort: skip

# A shell's background job ignores these, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
for ignored in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(ignored, signal.SIG_DFL)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.pop("POMONA_MIRROR", None)
if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores: threads of each would wait for those of the others
    os.environ.setdefault("OMP_NUM_THREADS", "1")

TENSOR_ROOMS = ("pomona.merging", "pomona.importance", "pomona.pruning", "pomona.metrics")
install_import_hook(TENSOR_ROOMS, "typechecker.checked")
