"""The corpora: text that is there without a download."""

from pomona.data.corpora.docstrings import docstring_rows, without

__all__ = ["docstring_rows", "without"]
