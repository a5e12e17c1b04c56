"""Drawing as SVG inside a page: colours are the page's, identifiers are unique, nothing is loaded.

matplotlib writes fixed colours. The ones below stand for variables of the style sheet, so that one
drawing fits light and dark pages and paper.
"""

from __future__ import annotations

import html
import re
from io import StringIO
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID, PAPER = "#010101", "#020202", "#030303"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES = ("-", "--", ":")
NUM_COLOURS = 7  # no divisor in common with the markers, so that 63 methods look different

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ccdgraph",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
}


class Look(NamedTuple):
    """How a method is drawn, the same in every figure."""

    color: str
    marker: str
    linestyle: str


class Panel(NamedTuple):
    """A drawing: its heading, its description in words, and the SVG."""

    title: str
    description: str
    svg: str


def look(index: int) -> Look:
    """The look of the ``index``-th method.

    >>> look(0)
    Look(color='#040400', marker='o', linestyle='-')
    """
    line = LINES[index // NUM_COLOURS % len(LINES)]
    color = f"#0404{index % NUM_COLOURS:02x}"
    return Look(color, MARKERS[index % len(MARKERS)], line)


def canvas(width: float = 4.2, height: float = 3.0) -> tuple[Figure, Axes]:
    """An empty figure with axes, in inches; made within :func:`style`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def style() -> Any:
    """A context in which figures are made, whatever the user's own settings of matplotlib."""
    from matplotlib import style

    return style.context(["default", _STYLE])


def to_panel(figure: Figure, name: str, title: str, description: str) -> Panel:
    """The figure as inline SVG.

    Args:
        figure: made within :func:`style`.
        name: unique in the page; begins every identifier.
        title: what the figure shows.
        description: what can be seen in it.
    """
    names = f'<title id="{name}-title">{html.escape(title)}</title>'
    names += f'<desc id="{name}-desc">{html.escape(description)}</desc>'
    role = f'role="img" aria-labelledby="{name}-title {name}-desc"'
    return Panel(title, description, _inline(figure, name, role, names))


def to_ornament(figure: Figure, name: str) -> str:
    """The figure as inline SVG that says nothing which the text beside it does not."""
    return _inline(figure, name, 'aria-hidden="true"', "")


def _inline(figure: Figure, name: str, role: str, names: str) -> str:
    buffer = StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box is not None, "matplotlib always writes one"
    body = text[text.index(">", box.end()) + 1 :]
    for unwanted in ("metadata", "style"):  # the latter is in the style sheet, once
        body = re.sub(rf"<{unwanted}.*?</{unwanted}>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", body)
    body = re.sub(r"font: ([^;\"]*?)'DejaVu Sans'[^;\"]*", r"font: \1system-ui, sans-serif", body)
    body = re.sub(r"#0404(0\d)", lambda found: f"var(--method-{int(found[1], 16)})", body)
    for color, variable in ((INK, "currentColor"), (GRID, "var(--grid)"), (PAPER, "var(--paper)")):
        body = body.replace(color, variable)
    return f'<svg viewBox="{box[1]}" {role}>{names}{body}'
