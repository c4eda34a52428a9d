"""The base of every configuration model: closed, immutable, finite."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict

NAME = r"^[a-z0-9][a-z0-9.+-]*$"  # names become folder names: no '@', '/', '_' or upper case


class Closed(BaseModel):
    """A model that refuses unknown keys, non-finite numbers and later changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


def canonical(value: Any) -> str:
    """JSON text of a value that is equal for equal values: sorted keys, no spaces, no NaN."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
