"""When two texts are the same text: the comparison that splits, leak checks and corpora share."""

from __future__ import annotations

import unicodedata


def normalised(text: str) -> str:
    """`text` with everything folded that does not make another text of it: Unicode form (NFKC), case, runs of whitespace."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
