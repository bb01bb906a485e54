"""The corpora: text that is there without a download."""

from pomona.data.corpora.docstrings import Documents, docstring_rows, without

__all__ = ["Documents", "docstring_rows", "without"]
