"""Reading a released checkpoint by a confined process: no pickle is ever opened in this one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from segkd.errors import CheckpointError, explain
from segkd.files import sha256_file
from segkd.networks import weights

READER = Path(__file__).with_name("reader.py")
SECONDS = 600  # of wall time, for any file that can be read at all
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "LANG")  # no credentials, no settings of ours


@dataclass(frozen=True)
class Foreign:
    """A checkpoint as it lies there. tensors: in the file's order, on the CPU.

    holder: the entry they were under, or ""; beside: kinds of the entries that lie beside them, by name; network: how
    its reader was kept from the network.
    """

    path: Path
    sha256: str
    size: int
    tensors: dict[str, Tensor]
    holder: str
    beside: dict[str, str]
    network: str


def read_checkpoint(path: Path) -> Foreign:
    """Everything a checkpoint holds, read in a process that may neither connect, start programs nor write but once.

    CheckpointError where the file is missing, damaged, cut off, holds code or foreign objects, or needs more memory or
    time than its size explains.
    """
    if not path.is_file():
        raise _refused(path, "no such file" if not path.exists() else "no plain file")
    with tempfile.TemporaryDirectory(prefix="segkd-import-") as folder:
        target = Path(folder) / "tensors.safetensors"
        told = _told(path, _run(path, target, folder))
        found = weights.read(target)
    if sorted(found) != sorted(told["names"]):
        raise _refused(path, "other tensors than its reader told of")
    tensors = {name: found[name] for name in told["names"]}
    digest, size = sha256_file(path), path.stat().st_size
    return Foreign(path, digest, size, tensors, told["holder"], told["beside"], told["network"])


def _run(path: Path, target: Path, folder: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-I", "-B", str(READER), str(path.resolve()), str(target)]
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ} | {"OMP_NUM_THREADS": "1"}
    try:
        return subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            cwd=folder,
            env=environment,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _refused(path, f"something that its reader had not read after {SECONDS} s") from None


def _told(path: Path, done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What the reader says; CheckpointError where it found fault, or was stopped by a limit."""
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise _refused(path, f"something that made its reader exceed a limit or crash ({name})")
    try:
        told = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2][:300]
        raise _refused(path, f"something that its reader did not survive: {last}") from None
    if "fault" in told:
        raise _refused(path, told["fault"])
    return dict(told)


def _refused(path: Path, found: str) -> CheckpointError:
    return CheckpointError(
        explain(
            "This checkpoint cannot be read.",
            expected="a file of torch.save: tensors by name, bare or under 'state_dict' or 'model'",
            found=found,
            where=path,
            fix="fetch it again and compare its size with the published one; "
            "a file with other objects than tensors and numbers is never run: ask its authors for the state dict alone",
        )
    )
