"""What all pages share: one style sheet, templates that escape, and a file that is written whole."""

from __future__ import annotations

import html
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pomona.errors import InputError
from pomona.whole_files import write_whole

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

PAGE_NAME = "report.html"
_CODE = re.compile(r"`([^`\n]+)`")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = prose
    return environment


def prose(text: str) -> Markup:
    """A sentence as HTML: escaped, and what stands between backticks as code."""
    from markupsafe import Markup

    return Markup(_CODE.sub(r"<code>\1</code>", html.escape(text)))


def fill(template: str, **values: object) -> str:
    """A template's HTML, with the style sheet in it.

    Args:
        template: its file in this folder.
        values: everything that it names; texts are escaped.
    """
    style = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    return _environment().get_template(template).render(style=style, **values)


def write_page(folder: Path, text: str) -> Path:
    """Write `report.html` atomically.

    Args:
        folder: where it is written.
        text: the page.

    Returns:
        The page's path.

    Raises:
        InputError: it cannot be written.
    """
    page = folder / PAGE_NAME
    try:
        write_whole(page, text)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", file=page) from error
    return page
