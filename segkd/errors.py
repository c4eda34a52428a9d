"""Every error that segkd raises on purpose, with one shape of message.

A message says what was expected, what was found, where, and what to do about it.
"""

from __future__ import annotations

import re

_CREDENTIALS = re.compile(r"://[^/\s]*@")  # to the last @: a password may hold one


class SegkdError(Exception):
    """Base of all errors that a user can act on. `exit_code` is what the command line returns."""

    exit_code = 2


class ConfigError(SegkdError):
    """params.yaml, a study or a command line says something that cannot be meant."""


class DataError(SegkdError):
    """A data set is missing, incomplete, damaged, or not what its catalogue entry promises."""


class DownloadError(SegkdError):
    """A file could not be fetched, or what came is not the published file."""


class CheckpointError(SegkdError):
    """Weights or a training state cannot be read, or do not belong to this run."""


class DriftError(CheckpointError):
    """A run would go on under another configuration, data, teacher or code than it started with."""


class StorageError(SegkdError, OSError):
    """A file cannot be written: the disk is full, over quota or read-only. An OSError to those who expect one."""


class NonFiniteError(SegkdError):
    """A loss, gradient or teacher output is not finite; training stopped before the update."""

    exit_code = 3


class WorkerError(SegkdError):
    """One of the processes that train a run together died; its last saved state is intact."""

    exit_code = 5


class OutOfMemoryError(SegkdError):
    """A step needs more memory than the device has."""

    exit_code = 6


class LockedError(SegkdError):
    """Another living process is writing to the same output."""

    exit_code = 4


class InterruptedRunError(SegkdError):
    """The run was asked to stop (Ctrl-C, SIGTERM); its state is saved and it can go on later."""

    exit_code = 130


def explain(what: str, *, expected: object, found: object, where: object, fix: str) -> str:
    """Compose a message: one line of what went wrong, then expected, found, where and the remedy; never a password."""
    return without_credentials(
        f"{what}\n  expected: {expected}\n  found:    {found}\n  where:    {where}\n  to do:    {fix}"
    )


def without_credentials(text: object) -> str:
    """A text whose addresses have lost user name and password: messages and records travel further than params.yaml."""
    return _CREDENTIALS.sub("://", str(text))


def listing(faults: list[str], *, limit: int = 50) -> str:
    """Bullet list of faults; beyond `limit` the rest is counted, never silently dropped."""
    shown = [f"  - {fault}" for fault in faults[:limit]]
    if len(faults) > limit:
        shown.append(f"  ... and {len(faults) - limit} more")
    return "\n".join(shown)
