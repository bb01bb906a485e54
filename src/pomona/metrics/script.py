"""Check that a language's rules fit the scored texts: English rules, for example, drop every Russian letter and keep digits."""

from __future__ import annotations

from collections.abc import Iterable

from pomona.metrics.text import UNSPACED_LANGUAGES, is_unspaced, primary_language

MOST_UNREAD = 0.1
"""Share of the letters that may be ignored without a warning: accented letters are 4 % in French, 15 % in Czech."""

_MOST_TEXTS = 2000
_MOST_CHARACTERS = 1000


def script_warning(texts: Iterable[str], language: str, metrics: Iterable[str], what: str, most: float = MOST_UNREAD) -> str | None:
    """A warning if the language's rules ignore many of the letters, or do not split them into words; else None.

    English ROUGE uses only a to z. In a language that is written with spaces, BLEU and token F1 treat a run of Han, kana, Thai
    and similar characters as one word.

    Args:
        texts: references, or answers.
        language: language tag of the scoring.
        metrics: names of the metrics.
        what: the warning's name of the texts.
        most: share of the letters that may be ignored, in [0, 1].
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
        f"{unread / letters:.0%} of the letters of {what} are of a script that {', '.join(names)} cannot read with the rules of "
        f"language {language!r}, so the scores may be meaningless; set language to the language of the answers"
    )
