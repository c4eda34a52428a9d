"""The layouts that `segkd import-checkpoint --from` takes; each module tells what it rests on and what differs."""

from __future__ import annotations

from segkd.errors import ConfigError, explain
from segkd.imports.layout import Layout
from segkd.imports.layouts import cirkd, deeplab, mmseg, torchvision

LAYOUTS: dict[str, Layout] = {
    "cirkd": cirkd.LAYOUT,
    "aicsd": deeplab.AICSD,
    "attnfd": deeplab.ATTNFD,
    "torchvision": torchvision.LAYOUT,
    "mmseg": mmseg.LAYOUT,
}


def layout_of(name: str) -> Layout:
    """The layout of that name; ConfigError says which there are."""
    if name not in LAYOUTS:
        raise ConfigError(
            explain(
                f"There is no layout {name!r}.",
                expected=f"one of {', '.join(LAYOUTS)}",
                found=name,
                where="--from",
                fix="take the code base whose names the keys resemble, and add what differs by --rules FILE.yaml",
            )
        )
    return LAYOUTS[name]
