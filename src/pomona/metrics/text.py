"""Tokenization for scoring, by language. A metric with the rules of another language may score equal strings 0.

Languages are tags; only the primary part counts: `zh-hant` is `zh`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Concatenate, ParamSpec

from pomona.errors import InputError, suggest
from pomona.metrics.segment import check_segmenter, has_segmenter, segment, segmenter_name

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_ENGLISH_WORD = re.compile(r"[a-z0-9]+")
_ENGLISH_LETTER = re.compile(r"[a-z]")

# Scripts that are written without spaces between words, as code points: Thai and Lao, Myanmar, Khmer, CJK radicals to bopomofo,
# kana extensions, Han with its extensions A to H, and compatibility forms.
_UNSPACED = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x312F), (0x31A0, 0x31FF),
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x1B000, 0x1B16F), (0x20000, 0x323AF),
)  # fmt: skip

UNSPACED_LANGUAGES = frozenset({"zh", "yue", "ja", "th", "lo", "km", "my"})
"""Languages, by primary tag, that are written without spaces between words."""

WORD_TOKENIZERS = ("auto", "characters", "words")
"""The values of the `tokenizer` of ROUGE; see `words_by`."""

_LONGEST_REMEMBERED = 4096
# unicodedata's canonical ordering takes quadratic time in a run of combining marks.
_LONGEST_NORMALIZED = 256


P = ParamSpec("P")


def remembered(
    cut: Callable[Concatenate[str, P], tuple[str, ...]],
) -> Callable[Concatenate[str, P], tuple[str, ...]]:
    """Cache the tokens of short texts, because several metrics need the same tokens. Long texts are not cached.

    Args:
        cut: (text, settings that can be hashed) -> tokens.
    """
    cached = lru_cache(maxsize=1 << 16)(cut)

    @wraps(cut)
    def cut_once(text: str, *settings: P.args, **named: P.kwargs) -> tuple[str, ...]:
        return (cached if len(text) <= _LONGEST_REMEMBERED else cut)(text, *settings, **named)

    return cut_once


def primary_language(language: str) -> str:
    """The primary part of a language tag: `zh` of `zh-hant`.

    Raises:
        InputError: not a tag.
    """
    if not isinstance(language, str) or not _LANGUAGE.fullmatch(language):
        raise InputError("not a language tag", field="language", value=language, fix="Write it as en, ar or zh-hant")
    return language.partition("-")[0]


def is_unspaced(char: str) -> bool:
    """Whether a character is of a script that is written without spaces between words (such as Han, kana, Thai)."""
    return any(low <= ord(char) <= high for low, high in _UNSPACED)


def words(text: str, language: str) -> tuple[str, ...]:
    """The tokens that ROUGE counts by default: `words_by(text, language, "auto")`."""
    return words_by(text, language, "auto")


def words_by(text: str, language: str, tokenizer: str) -> tuple[str, ...]:
    """The tokens that ROUGE counts.

    - `auto`, English: runs of a-z and 0-9 in lower case: rouge-score's default, as in published scores.
    - `auto`, other languages: NFKC, case folded, runs of letters, marks and digits of any script; a character of a script that is
      written without spaces (such as Han, kana, Thai) is its own token.
    - `words`: the same for every language, also English, but jieba segments Chinese words and MeCab Japanese words.
    - `characters`: the same letters, marks and digits, each of which is its own token.

    Arabic keeps its diacritics, tatweel and forms of alef, as in published scores (and in XL-Sum's multilingual ROUGE);
    NFKC only converts presentation forms to plain letters.

    Deviations from rouge-score: if these rules remove all of a text ("!?", an emoji), it is split at spaces, so that it equals
    itself; rouge-score scores it 0. If the English rules remove all letters of a text (such as Cyrillic), the rules of other
    languages apply: rouge-score compares only its digits, and may score different texts 100.

    Args:
        text: any string.
        language: language tag.
        tokenizer: one of `WORD_TOKENIZERS`.
    """
    return words_without_rest(text, language, tokenizer) or tuple(text.casefold().split())


def words_without_rest(text: str, language: str, tokenizer: str) -> tuple[str, ...]:
    """As `words_by`, but without tokens if the rules remove all of the text: for one line of several."""
    return _cut(text, language, tokenizer)


def check_word_tokenizer(tokenizer: str, language: str) -> None:
    """Refuse a tokenizer that does not support this language.

    Raises:
        InputError: not a language tag, no such tokenizer, or none for the language.
        MissingPackageError: the tokenizer's package is not installed.
    """
    primary = primary_language(language)
    if tokenizer not in WORD_TOKENIZERS:
        raise InputError("no such tokenizer", field="tokenizer", value=tokenizer, fix=suggest(str(tokenizer), WORD_TOKENIZERS))
    if tokenizer == "words" and primary in UNSPACED_LANGUAGES:
        check_segmenter(primary)


def word_tokenizer_name(tokenizer: str, language: str) -> str:
    """The tokenizer's name for signatures: `a-z0-9`, `unicode-15.1.0`, `characters-unicode-15.1.0`, `jieba-0.42.1`."""
    primary = primary_language(language)
    if tokenizer == "auto" and primary == "en":
        return "a-z0-9"
    if tokenizer == "words" and has_segmenter(primary):
        return segmenter_name(primary)
    return f"{'characters-' * (tokenizer == 'characters')}unicode-{unicodedata.unidata_version}"


@remembered
def _cut(text: str, language: str, tokenizer: str) -> tuple[str, ...]:
    primary = primary_language(language)
    if tokenizer == "auto" and primary == "en":
        lowered = text.lower()
        if _ENGLISH_LETTER.search(lowered) or not any(map(str.isalpha, lowered)):
            return tuple(_ENGLISH_WORD.findall(lowered))
    plain = _normalized(text).casefold()
    if tokenizer == "characters":
        return tuple("".join(plain.translate(_LETTERS).split()))
    if tokenizer == "words" and has_segmenter(primary):
        return tuple(segment(plain.translate(_LETTERS), primary))
    return tuple(plain.translate(_WORDS).split())


def _normalized(text: str) -> str:
    if len(text) <= _LONGEST_NORMALIZED:
        return unicodedata.normalize("NFKC", text)
    return " ".join(
        "".join(
            unicodedata.normalize("NFKC", run[start : start + _LONGEST_NORMALIZED])
            for start in range(0, len(run), _LONGEST_NORMALIZED)
        )
        for run in text.split()
    )


def _letter(char: str) -> str:
    return char if unicodedata.category(char)[0] in "LMN" else " "


def _word_part(char: str) -> str:
    return f" {char} " if is_unspaced(char) and _letter(char) == char else _letter(char)


class Table(dict[int, str]):
    """A table for `str.translate` that computes and caches the entry of each character on first use.

    Args:
        rule: a character -> its replacement.
    """

    def __init__(self, rule: Callable[[str], str]) -> None:
        super().__init__()
        self._rule = rule

    def __missing__(self, code: int) -> str:
        self[code] = self._rule(chr(code))
        return self[code]


_LETTERS = Table(_letter)
_WORDS = Table(_word_part)
