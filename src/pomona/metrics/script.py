"""Whether a language's rules read the texts that they score: English rules drop every letter of Russian, and keep the digits."""

from __future__ import annotations

from collections.abc import Iterable

from pomona.metrics.text import UNSPACED_LANGUAGES, is_unspaced, primary_language

MOST_UNREAD = 0.1
"""Share of the letters that may go unread without a warning: accents in French are 4 %, in Czech 15 %."""

_MOST_TEXTS = 2000
_MOST_CHARACTERS = 1000


def script_warning(texts: Iterable[str], language: str, metrics: Iterable[str], what: str, most: float = MOST_UNREAD) -> str | None:
    """A warning where a good part of the letters is not read, or not cut into words, by the rules of the language; else None.

    ROUGE in English reads a to z alone. In a language that is written with spaces, BLEU and token F1 take a run of Han,
    kana, Thai and the like for one word.

    Args:
        texts: references, or answers.
        language: language tag that they are scored by.
        metrics: names of the metrics.
        what: what the warning calls the texts.
        most: share of the letters that may go unread, in [0, 1].
    """
    primary = primary_language(language)
    names = [name for name in metrics if name.startswith("rouge_") or name in ("bleu", "token_f1")]
    latin_only = primary == "en" and any(name.startswith("rouge_") for name in names)
    letters = unread = 0
    for text, _ in zip(texts, range(_MOST_TEXTS), strict=False):
        for char in filter(str.isalpha, text[:_MOST_CHARACTERS].lower()):
            letters += 1
            unread += (latin_only and not "a" <= char <= "z") or (primary not in UNSPACED_LANGUAGES and is_unspaced(char))
    if not names or not letters or unread / letters <= most:
        return None
    return (
        f"{unread / letters:.0%} of the letters of {what} are of a script that {', '.join(names)} cannot read by the rules of "
        f"language {language!r}, so the scores may mean little; give the language of the answers (language)"
    )
