"""Where tests find real text: subsets of public data sets next to the checkout, or the samples of them that come with the tests."""

from __future__ import annotations

from pathlib import Path

SAMPLES = Path(__file__).parent / "samples"
_BESIDE = Path(__file__).resolve().parents[1].parent / "shared" / "data"
DATA = _BESIDE if _BESIDE.is_dir() else SAMPLES
"""`<set>/<language>/{train,dev,test}.jsonl`, of which the samples have a part."""
