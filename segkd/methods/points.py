"""Maps that a method of several maps compares: those that both networks have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from segkd.errors import ConfigError, explain
from segkd.methods.checks import require_stride
from segkd.networks.outputs import Channels, Map


def named_maps(channels: Channels) -> dict[str, Map]:
    """`stage1` to `stage4`, and the head's `context` and `decoder` where the network has them."""
    stages = {f"stage{number}": one for number, one in enumerate(channels.stages, 1)}
    return stages | {name: channels.head[name] for name in ("context", "decoder") if name in channels.head}


def shared_maps(
    wanted: Iterable[str], student: Mapping[str, Map], teacher: Mapping[str, Map], *, given: bool, method: str, fix: str
) -> tuple[str, ...]:
    """Those of `wanted` that both have, at equal strides. ConfigError where there is none, or a stride differs.

    given: the user named `wanted`, so that it is an error, too, if one of them is missing.
    """
    wanted = tuple(wanted)
    found = tuple(name for name in wanted if name in student and name in teacher)
    if not found or (given and found != wanted):
        raise ConfigError(
            explain(
                f"Method {method!r} compares maps that the two networks do not both have.",
                expected=f"maps {', '.join(wanted)} of student and teacher",
                found=f"student: {', '.join(student)}; teacher: {', '.join(teacher) or 'none'}",
                where=f"params.yaml: networks, methods (method: {method})",
                fix=fix,
            )
        )
    for name in found:
        require_stride(student[name], teacher[name], field=f"the map {name!r}", method=method)
    return found
