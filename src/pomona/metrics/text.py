"""How text is cut into tokens for scoring, by language. A metric that cuts with another language's rules scores equal strings 0.

Languages are tags; only the primary part counts: `zh-hant` is `zh`.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from pomona.errors import InputError

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_ENGLISH_WORD = re.compile(r"[a-z0-9]+")

# Scripts that are written without spaces between words, as code points: Thai and Lao, Myanmar, Khmer, CJK radicals to bopomofo,
# kana extensions, Han with its extensions A to H, and compatibility forms.
_UNSPACED = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x312F), (0x31A0, 0x31FF),
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x1B000, 0x1B16F), (0x20000, 0x323AF),
)  # fmt: skip
_UNSPACED_LANGUAGES = frozenset({"zh", "yue", "ja", "th", "lo", "km", "my"})

# MLQA's articles. Its Arabic rule cuts the letters of the article out wherever they stand, also within a word; kept, so that
# scores agree with MLQA's.
_ARTICLES = {
    "ar": re.compile("ال"),
    "de": re.compile(r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"),
    "en": re.compile(r"\b(a|an|the)\b"),
    "es": re.compile(r"\b(un|una|unos|unas|el|la|los|las)\b"),
    "vi": re.compile(r"\b(của|là|cái|chiếc|những)\b"),
}

_BLEU_TOKENIZERS = {"zh": "zh", "yue": "zh"} | dict.fromkeys(("ja", "th", "lo", "km", "my"), "char")


def primary_language(language: str) -> str:
    """The primary part of a language tag: `zh` of `zh-hant`.

    Raises:
        InputError: not a tag.
    """
    if not isinstance(language, str) or not _LANGUAGE.fullmatch(language):
        raise InputError("not a language tag", field="language", value=language, mend="Write it as en, ar or zh-hant")
    return language.partition("-")[0]


@lru_cache(maxsize=1 << 15)
def words(text: str, language: str) -> tuple[str, ...]:
    """The tokens that ROUGE counts.

    English: runs of a-z and 0-9 after lowering, which is rouge-score's default and what published scores used. Any other
    language: NFKC, case folded, runs of letters, marks and digits of any script; a character of a script that is written without
    spaces (Han, kana, Thai and its like) is a token by itself.

    Args:
        text: any string.
        language: language tag.
    """
    if primary_language(language) == "en":
        return tuple(_ENGLISH_WORD.findall(text.lower()))
    return tuple(unicodedata.normalize("NFKC", text).casefold().translate(_WORDS).split())


@lru_cache(maxsize=1 << 15)
def answer_tokens(text: str, language: str) -> tuple[str, ...]:
    """The tokens that exact match and token F1 compare, by MLQA's rules.

    Lower case, no punctuation (Unicode P* and ASCII's), no articles, cut at spaces; in languages that are written without
    spaces, each character of such a script is a token.

    Deviation: a text of which these rules leave nothing ("A", "?") keeps all of its words, so that it equals itself and nothing
    else. MLQA scores its F1 0 even against itself.

    Args:
        text: any string.
        language: language tag; articles are known for ar, de, en, es and vi.
    """
    primary = primary_language(language)
    lowered = text.lower()
    kept = lowered.translate(_WITHOUT_PUNCTUATION)
    if primary in _ARTICLES:
        kept = _ARTICLES[primary].sub(" ", kept)
    if primary in _UNSPACED_LANGUAGES:
        kept = kept.translate(_CHARACTERS_APART)
    return tuple(kept.split()) or tuple(lowered.split())


def bleu_tokenizer(language: str) -> str:
    """The sacrebleu tokenizer of a language that needs no other package: `zh`, `char` where there are no spaces, else `13a`."""
    return _BLEU_TOKENIZERS.get(primary_language(language), "13a")


def _is_unspaced(char: str) -> bool:
    return any(low <= ord(char) <= high for low, high in _UNSPACED)


def _word_part(char: str) -> str:
    if unicodedata.category(char)[0] not in "LMN":
        return " "
    return f" {char} " if _is_unspaced(char) else char


def _without_punctuation(char: str) -> str:
    return "" if char in string.punctuation or unicodedata.category(char)[0] == "P" else char


def _apart(char: str) -> str:
    return f" {char} " if _is_unspaced(char) else char


class _Table(dict[int, str]):
    """A table for `str.translate` that works out a character the first time that it meets it."""

    def __init__(self, rule: Callable[[str], str]) -> None:
        super().__init__()
        self._rule = rule

    def __missing__(self, code: int) -> str:
        self[code] = self._rule(chr(code))
        return self[code]


_WORDS = _Table(_word_part)
_WITHOUT_PUNCTUATION = _Table(_without_punctuation)
_CHARACTERS_APART = _Table(_apart)
