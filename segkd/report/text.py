"""Numbers as people read them. A missing number is a dash, a minus sign is a minus sign."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

from segkd.report.estimate import Estimate

DASH = "–"


def number(value: float | None, digits: int = 2) -> str:
    """19.83; – for None."""
    return DASH if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float) -> str:
    """+2.10, −0.35, 0.00: points of gain; what rounds to zero has no sign."""
    text = f"{value:+.2f}"
    return "0.00" if float(text) == 0 else text.replace("-", "−")


def plus_minus(value: Estimate | None) -> str:
    """19.83 ± 0.41, without ± for one seed."""
    if value is None:
        return DASH
    return number(value.mean) if value.sd is None else f"{number(value.mean)} ± {number(value.sd)}"


def interval(low: float | None, high: float | None, *, sign: bool = False) -> str:
    """[18.90, 20.76], or nothing where there is none."""
    if low is None or high is None:
        return ""
    shown = signed if sign else number
    return f"[{shown(low)}, {shown(high)}]"


def prose(value: str) -> Markup:
    """Text of a study or a run for a page: escaped, and `words` between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(value))))


def probability(value: float | None) -> str:
    """0.034, or < 0.001."""
    return DASH if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def scaled(value: float | None, units: tuple[str, ...], step: float = 1000.0) -> str:
    """Three significant digits with the unit that fits, e.g. 62.1 k or 1.24 G."""
    if value is None:
        return DASH
    unit = 0
    while abs(value) >= step and unit < len(units) - 1:
        value, unit = value / step, unit + 1
    digits = 0 if unit == 0 and value == int(value) else max(0, 2 - len(str(int(abs(value)))) + 1)
    return f"{value:.{digits}f} {units[unit]}".strip()


def count(value: float | None) -> str:
    """62.1 k, 59.3 M."""
    return scaled(value, ("", "k", "M", "G"))


def flops(value: float | None) -> str:
    """12.4 MFLOPs, 1.30 GFLOPs."""
    return scaled(value, ("FLOPs", "kFLOPs", "MFLOPs", "GFLOPs", "TFLOPs"))


def size(value: float | None) -> str:
    """412 MB; decimal units."""
    return scaled(value, ("B", "kB", "MB", "GB", "TB"))


def duration(seconds: float | None) -> str:
    """12.3 s, 4 min 10 s, 3 h 05 min."""
    if seconds is None:
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left:02d} min" if hours else f"{minutes} min {rest:02d} s"


def seeds(n: int) -> str:
    """1 seed, 3 seeds."""
    return f"{n} seed{'s' * (n != 1)}"
