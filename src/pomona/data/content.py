"""The equality of two texts that splits, leak checks and corpora use."""

from __future__ import annotations

import unicodedata


def normalised(text: str) -> str:
    """`text` with Unicode form (NFKC), case and runs of whitespace normalised: equal results mean equal content."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
