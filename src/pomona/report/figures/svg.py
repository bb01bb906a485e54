"""The pieces of which figures are drawn: SVG elements as text, scales, ticks, and wrapped labels.

Colours are names of the page's style sheet (`var(--blue)`), so a figure follows light, dark and print without a script.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

WIDTH = 560
"""The width of each figure in its own units; the page scales it."""

LETTER = 6.6
"""An average letter's width at the figures' size of text, 12 units."""


class Ticks(NamedTuple):
    """Where an axis has ticks, and how each is written."""

    places: tuple[float, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Scale:
    """A linear scale: `low` of the data is drawn at `start`, `high` at `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a value; one outside is drawn at the nearest end."""
        width = self.high - self.low
        share = (value - self.low) / width if width else 0.5
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)


def ticks(low: float, high: float, *, percent: bool = False, whole: bool = False, most: int = 6) -> Ticks:
    """Round places within a range.

    Args:
        low: end of the range.
        high: end of the range.
        percent: write them as percentages of 1.
        whole: whole numbers only.
        most: at most so many intervals.
    """
    width = (high - low) * (100 if percent else 1)
    if not width > 0:
        return Ticks((low,), (_tick(low * (100 if percent else 1), 0.01, percent),))
    step = 10.0 ** math.floor(math.log10(width / most))
    step = next(step * factor for factor in (1, 2, 5, 10) if width / (step * factor) <= most)
    step = max(1.0, step) if whole else step
    scale = 100 if percent else 1
    first, last = math.ceil(low * scale / step - 1e-9), math.floor(high * scale / step + 1e-9)
    values = [number * step for number in range(first, last + 1)]
    return Ticks(tuple(value / scale for value in values), tuple(_tick(value, step, percent) for value in values))


def _tick(value: float, step: float, percent: bool) -> str:
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    text = f"{value:.{digits}f}"
    text = text.removeprefix("-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")
    return f"{text}%" if percent else text


def padded(values: Sequence[float], share: float = 0.05) -> tuple[float, float]:
    """The range of the values with a margin on both sides."""
    margin = share * (max(values) - min(values)) or 0.5 * abs(max(values)) or 1.0
    return min(values) - margin, max(values) + margin


def element(name: str, content: str = "", **attributes: object) -> str:
    """An element; numbers have one decimal, `_` in a name stands for `-`, and text in attributes is escaped. None is left out."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"' for key, value in attributes.items() if value is not None
    )
    return f"<{name}{shown}>{content}</{name}>" if content else f"<{name}{shown}/>"


def _attribute(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return html.escape(str(value))


def tip(text: str) -> str:
    """What a browser shows while the pointer rests on the element that holds it."""
    return f"<title>{html.escape(text)}</title>" if text else ""


def label(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "tick") -> str:
    """A line of text; `kind` is a class of the style sheet."""
    return element("text", html.escape(text), x=x, y=y, text_anchor=anchor, class_=kind)


def wrapped(text: str, width: int = 20) -> list[str]:
    """A label in lines of at most `width` characters."""
    return textwrap.wrap(text, width) or [" "]


def legend(entries: Sequence[tuple[str, str]], top: float) -> tuple[str, float]:
    """A line of names, each after its sign, wrapped to the figure's width.

    Args:
        entries: a sign, drawn in a box of 22 x 12 units, and its name.
        top: where it begins.

    Returns:
        The drawing, and where it ends.
    """
    parts: list[str] = []
    x, y = 4.0, top
    for sign, name in entries:
        name = textwrap.shorten(name, 70, placeholder="…")
        width = 28 + 7.2 * len(name) + 12
        if x > 4 and x + width > WIDTH:
            x, y = 4.0, y + 18
        parts.append(element("g", sign + label(28, 10, name, kind="legend"), transform=f"translate({x:.0f} {y:.0f})"))
        x += width
    return "".join(parts), y + 22 if entries else top


def whole(content: str, *, height: float, key: str, title: str, caption: str) -> str:
    """The figure's `<svg>`, with its title and description for readers who do not see it."""
    named = f'<title id="{key}-title">{html.escape(title)}</title><desc id="{key}-desc">{html.escape(caption)}</desc>'
    return (
        f'<svg id="{key}" class="plot" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-labelledby="{key}-title" aria-describedby="{key}-desc">{named}{content}</svg>'
    )
