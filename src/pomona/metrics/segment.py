"""Words of languages that are written without spaces: jieba for Chinese, MeCab (fugashi with UniDic Lite) for Japanese."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from functools import cache

from pomona.errors import InputError, MissingPackageError

# MeCab ends the process by a segmentation fault on an input of some hundred thousand characters.
_LONGEST_PIECE = 2000


def check_segmenter(language: str) -> None:
    """Refuse what cannot be cut into words here.

    Args:
        language: primary part of a language tag.

    Raises:
        InputError: no segmenter for the language.
        MissingPackageError: its package is not installed.
    """
    if language not in _SEGMENTERS:
        raise InputError(
            f"words can be cut for {' and '.join(sorted(_SEGMENTERS))} only, of the languages without spaces",
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
    """Whether a language (primary part of its tag) is one of those that are cut here."""
    return language in _SEGMENTERS


def segmenter_name(language: str) -> str:
    """What cuts the language's words, with versions: `jieba-0.42.1`."""
    return "-".join(f"{package}-{importlib.metadata.version(package)}" for package in _SEGMENTERS[language][0])


def segment(text: str, language: str) -> Iterator[str]:
    """The words, and the marks between them, in order; whitespace is left out. Runs of 2,000 characters are cut apart first.

    Args:
        text: any string, also with characters that are none (control, private, half of a pair): they are taken as spaces.
        language: primary part of a language tag that `check_segmenter` lets pass.
    """
    cut = _SEGMENTERS[language][1]()
    for run in "".join(char if char.isprintable() else " " for char in text).split():
        for start in range(0, len(run), _LONGEST_PIECE):
            yield from cut(run[start : start + _LONGEST_PIECE])


@cache
def _jieba() -> Callable[[str], Iterator[str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports what setuptools has deprecated
        from jieba import Tokenizer

    tokenizer = Tokenizer()
    # Read the dictionary as its `initialize` does, but without the cache that it trusts and writes in the temporary folder.
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
