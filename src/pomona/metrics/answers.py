"""The comparison of short answers: MLQA's normalisation and tokens, which equal SQuAD's in English."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from pomona.errors import InputError
from pomona.metrics.text import UNSPACED_LANGUAGES, Table, is_unspaced, primary_language

_ARTICLES = {
    "de": re.compile(r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"),
    "en": re.compile(r"\b(a|an|the)\b"),
    "es": re.compile(r"\b(un|una|unos|unas|el|la|los|las)\b"),
    "vi": re.compile(r"\b(của|là|cái|chiếc|những)\b"),
}
# Longer texts are not cached: the cache of whole documents would cost more than it saves.
_LONGEST_CACHED = 1024
_ARABIC_ARTICLES = {"word": re.compile(r"(?:^|\s)ال"), "anywhere": re.compile("ال")}


def answer_tokens(text: str, language: str, arabic_article: str = "word") -> tuple[str, ...]:
    """The tokens that exact match and token F1 compare.

    Lower case, no punctuation (Unicode P* and ASCII's), no articles, split at spaces. In Chinese each of the characters U+4E00 to
    U+9FA5 is a token of its own, and the text between them, with digits and kana, is split at spaces. These are the rules of MLQA
    as lm-evaluation-harness scores it, for ar, de, en, es, hi, vi and zh.

    Deviations: if these rules remove all of a text ("A", "?"), it keeps all of its words, so that it equals only itself; in MLQA
    all such texts, including the empty text, are equal, and their F1 is 0. Other languages written without spaces (ja, yue, th,
    lo, km, my), for which MLQA has no rules, are split into the characters of their scripts; any other language is split at spaces
    and has no articles.

    Args:
        text: any string.
        language: language tag.
        arabic_article: where the letters of the Arabic article are removed: `word`, at the beginning of a word, as in
            lm-evaluation-harness; `anywhere`, also within a word, as in MLQA's published script.
    """
    return (_cached if len(text) <= _LONGEST_CACHED else _cut)(text, language, arabic_article)


def all_tokens(
    prediction: str, references: Sequence[str], language: str, arabic_article: str
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The tokens of a prediction and of each of its references.

    Raises:
        ValueError: no references.
    """
    if not references:
        raise ValueError("an example without references cannot be scored")
    expected = [answer_tokens(reference, language, arabic_article) for reference in references]
    return answer_tokens(prediction, language, arabic_article), expected


def check_answer_rules(language: str, arabic_article: str) -> None:
    """Refuse invalid settings of `answer_tokens`.

    Raises:
        InputError: not a language tag, or not a rule for the Arabic article.
    """
    primary_language(language)
    if arabic_article not in tuple(_ARABIC_ARTICLES):
        raise InputError(
            "not a rule for the Arabic article", field="arabic_article", value=arabic_article, fix="Write word or anywhere"
        )


def answer_signature(metric: str, language: str, arabic_article: str) -> str:
    """The signature of a score: `exact_match|rules:mlqa|lang:ar|article:word|refs:best`; other languages have no `article`."""
    article = f"|article:{arabic_article}" if primary_language(language) == "ar" else ""
    return f"{metric}|rules:mlqa|lang:{language}{article}|refs:best"


def _cut(text: str, language: str, arabic_article: str) -> tuple[str, ...]:
    primary = primary_language(language)
    lowered = text.lower()
    kept = lowered.translate(_WITHOUT_PUNCTUATION)
    article = _ARABIC_ARTICLES[arabic_article] if primary == "ar" else _ARTICLES.get(primary)
    if article is not None:
        kept = article.sub(" ", kept)
    if primary in UNSPACED_LANGUAGES:
        kept = kept.translate(_CHINESE_APART if primary == "zh" else _CHARACTERS_APART)
    return tuple(kept.split()) or tuple(lowered.split())


_cached = lru_cache(maxsize=1 << 15)(_cut)


def _without_punctuation(char: str) -> str:
    return "" if char in string.punctuation or unicodedata.category(char)[0] == "P" else char


def _chinese_apart(char: str) -> str:
    return f" {char} " if "\u4e00" <= char <= "\u9fa5" else char


def _apart(char: str) -> str:
    return f" {char} " if is_unspaced(char) else char


_WITHOUT_PUNCTUATION = Table(_without_punctuation)
_CHINESE_APART = Table(_chinese_apart)
_CHARACTERS_APART = Table(_apart)
