"""What methods check when they are built, before any image is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from segkd.errors import ConfigError, explain
from segkd.networks.outputs import Map


def require_stride(student: Map, teacher: Map, *, field: str, method: str, fix: str = "") -> None:
    """ConfigError unless both networks give `field` at the same stride, and so at the same size."""
    if student.stride != teacher.stride:
        raise ConfigError(
            explain(
                f"Method {method!r} compares {field} position by position, and the two networks' maps differ in size.",
                expected=f"equal strides of {field}",
                found=f"student: input / {student.stride}, teacher: input / {teacher.stride}",
                where=f"params.yaml: networks.*.output_stride, methods (method: {method})",
                fix=f"give both networks the same output_stride{fix and ', or ' + fix}",
            )
        )


def filled(values: Any, defaults: Mapping[str, Any]) -> Any:
    """Raw options with those defaults that depend on another option (a preset) filled in where a key is not given."""
    return {**defaults, **values} if isinstance(values, dict) else values


def require_enlarging(student: Map, teacher: Map, *, field: str, method: str) -> None:
    """ConfigError unless `resize: teacher` has something to enlarge: the teacher's map must be the larger one."""
    if student.stride <= teacher.stride:
        raise ConfigError(
            explain(
                f"Method {method!r}: resize: teacher cannot enlarge {field}: the teacher's map is not the larger one.",
                expected="a student stride above the teacher's",
                found=f"student: input / {student.stride}, teacher: input / {teacher.stride}",
                where=f"params.yaml: methods (method: {method})",
                fix="remove `resize`",
            )
        )


def refuse_idle(config: BaseModel, keys: Iterable[str], *, idle: bool, why: str) -> None:
    """ValueError where a key was given although it can change nothing: to be called in a model validator."""
    given = sorted(set(keys) & config.model_fields_set)
    if idle and given:
        raise ValueError(f"{', '.join(given)} would change nothing, because {why}: remove the key")
