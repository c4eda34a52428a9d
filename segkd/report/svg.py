"""SVG figures that come out byte for byte the same, stand alone as files, and take the page's colours when inlined."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

INK, SOFT, LINE, PAPER = "#1d2126", "#5b636d", "#d3d7db", "#fdfdfb"
_THEME = {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", PAPER: "var(--paper)"}
_STYLE = {
    "svg.fonttype": "none",  # text stays text: searchable, readable aloud, set in the page's font
    "text.parse_math": False,  # names of classes and methods may hold dollar signs
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "figure.facecolor": PAPER,
    "figure.constrained_layout.use": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}


def draw(name: str, size: tuple[float, float], paint: Callable[[Any], None]) -> str:
    """The SVG text of a figure of `size` (width, height in inches) that `paint(figure)` fills.

    `name` seeds the ids inside, so that equal drawings give equal bytes.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({**mpl.rcParamsDefault, **_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size)
        canvas = FigureCanvasSVG(figure)
        paint(figure)
        out = io.BytesIO()
        canvas.print_svg(out, metadata={"Date": None, "Creator": "segkd", "Title": name})
    return out.getvalue().decode()


def legend_columns(labels: Sequence[str], width: float, most: int) -> int:
    """How many columns of a legend with these labels fit into `width` inches, 1 to `most`."""
    widest = max(map(len, labels), default=0)
    return max(1, min(most, int(width / (0.065 * widest + 0.5))))


def inline(svg: str, name: str) -> str:
    """The <svg> element for a page: ids made unique by `name`, colours the page's own, size free, no metadata."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>\s*", "", element, flags=re.DOTALL)
    element = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", element)
    head, rest = element.split(">", 1)
    width = re.search(r'width="([\d.]+)pt"', head)
    head = re.sub(r'\s(width|height|version)="[^"]*"', "", head)
    natural = f' style="--natural: {float(width[1]):.0f}pt"' if width else ""
    for colour, variable in _THEME.items():
        rest = rest.replace(colour, variable)
    return f'{head} role="presentation" focusable="false"{natural}>{rest}'
