"""Fault tests draw on the small data sets, projects and servers of the other rooms' tests."""

from __future__ import annotations

import sys
from pathlib import Path

for room in ("data", "workflow"):
    sys.path.append(str(Path(__file__).resolve().parents[1] / room))
