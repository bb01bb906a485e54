"""Words of languages that are written without spaces: jieba for Chinese, MeCab (fugashi with UniDic Lite) for Japanese."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from functools import cache

from pomona.errors import InputError, MissingPackageError

# MeCab ends the process with a segmentation fault for inputs of a few hundred thousand characters.
_LONGEST_PIECE = 2000


def check_segmenter(language: str) -> None:
    """Refuse languages and packages without a segmenter.

    Args:
        language: primary part of a language tag.

    Raises:
        InputError: no segmenter for the language.
        MissingPackageError: its package is not installed.
    """
    if language not in _SEGMENTERS:
        raise InputError(
            f"of the languages without spaces, only {' and '.join(sorted(_SEGMENTERS))} can be segmented into words",
            field="language",
            value=language,
            fix="Use the tokenizer auto",
        )
    for package in _SEGMENTERS[language][0]:
        if importlib.util.find_spec(package.replace("-", "_")) is None:
            raise MissingPackageError(
                f"words of {language} need {package}, which is not installed",
                field="tokenizer",
                fix='Install it with `pip install "pomona[languages]"`, or use the tokenizer auto',
            )


def has_segmenter(language: str) -> bool:
    """Whether there is a segmenter for a language (primary part of its tag)."""
    return language in _SEGMENTERS


def segmenter_name(language: str) -> str:
    """The language's segmenter, with versions: `jieba-0.42.1`."""
    return "-".join(f"{package}-{importlib.metadata.version(package)}" for package in _SEGMENTERS[language][0])


def segment(text: str, language: str) -> Iterator[str]:
    """The words, and the marks between them, in order, without whitespace. Longer runs are first split at 2,000 characters.

    Args:
        text: any string; unprintable characters (control, private, half of a pair) count as spaces.
        language: primary part of a language tag that `check_segmenter` accepts.
    """
    cut = _SEGMENTERS[language][1]()
    for run in "".join(char if char.isprintable() else " " for char in text).split():
        for start in range(0, len(run), _LONGEST_PIECE):
            yield from cut(run[start : start + _LONGEST_PIECE])


@cache
def _jieba() -> Callable[[str], Iterator[str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports a deprecated part of setuptools
        from jieba import Tokenizer

    tokenizer = Tokenizer()
    # Read the dictionary as jieba's `initialize` does, but without its cache file in the temporary folder, which it trusts.
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer.cut


@cache
def _mecab() -> Callable[[str], Iterator[str]]:
    import unidic_lite
    from fugashi import GenericTagger  # pyright: ignore[reportAttributeAccessIssue]

    tagger = GenericTagger(f'-r "{unidic_lite.DICDIR}/mecabrc" -d "{unidic_lite.DICDIR}"')
    return lambda run: (node.surface for node in tagger(run))


_SEGMENTERS: dict[str, tuple[tuple[str, ...], Callable[[], Callable[[str], Iterator[str]]]]] = {
    "ja": (("fugashi", "unidic-lite"), _mecab),
    "zh": (("jieba",), _jieba),
}
