"""Reads a checkpoint that nobody vouches for and writes its tensors as safetensors: a script, in a process of its own.

    python -I -B reader.py CHECKPOINT OUTPUT

It leaves the network, then sets its limits, then looks at the file. What it has to say is one JSON object on stdout.
It imports nothing of segkd, so that it runs under `-I`, whose path knows neither this project nor the working folder.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import stat
import sys
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

MIB, GIB = 1 << 20, 1 << 30
COPIES = 4  # tensors may take so many times the file's size: some files name one tensor several times
HOLDERS = ("state_dict", "model", "model_state", "model_state_dict")
KEY = re.compile(r"[\w.:/-]{1,256}", re.ASCII)
MOST = {"entries of the archive": 100_000, "tensors": 20_000, "bytes of pickle": 64 * MIB}
NEW_NETWORK, NEW_USER = 0x40000000, 0x10000000  # unshare(2)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FORBIDDEN = (  # audit events, by their beginning: connections, programs, changes of the file system
    *("socket.", "subprocess.", "ctypes.", "shutil.", "tempfile.", "urllib.", "ftplib.", "http.", "smtplib."),
    *("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "os.kill", "os.putenv"),
    *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "os.chown", "os.utime", "os.setxattr", "os.removexattr"),
)


class RefusedError(Exception):
    """What was found instead of a checkpoint."""


def leave_network() -> str:
    """Move this process into a network of its own, which has no interfaces; says how the network is kept away."""
    with suppress(OSError, AttributeError):
        unshare = ctypes.CDLL(None, use_errno=True).unshare
        if unshare(NEW_NETWORK) == 0 or unshare(NEW_USER | NEW_NETWORK) == 0:
            return "network namespace and audit hook"
    return "audit hook"


def confine(size: int) -> None:
    """Limit memory, time and output to what a file of `size` bytes can need; from here on nothing may be started.

    Whatever writes, connects or starts something through Python raises: see `_guard`.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_AS, _address_space() + GIB + 10 * size)
    _limit(resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime) + 60 + size // (10 * MIB))
    _limit(resource.RLIMIT_FSIZE, MIB + COPIES * size)
    _limit(resource.RLIMIT_CORE, 0)
    sys.addaudithook(_guard)


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with suppress(OSError, ValueError):  # macOS knows RLIMIT_AS by name only
        resource.setrlimit(kind, (value, value))


def _address_space() -> int:
    """Bytes of address space in use: PyTorch alone reserves gigabytes in some builds."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return 8 * GIB
    return pages * resource.getpagesize()


def _guard(event: str, args: tuple[Any, ...]) -> None:
    if event.startswith(FORBIDDEN) or (event == "open" and isinstance(args[2], int) and args[2] & WRITES):
        raise RefusedError(f"it tried {event}{args[:1]!r:.200}")


def container(path: Path) -> bool:
    """Whether the file is PyTorch's zip archive; Refused where it is an archive of another kind, or no file at all."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode) or state.st_size == 0:
        raise RefusedError("an empty file" if stat.S_ISREG(state.st_mode) else "something that is no plain file")
    with path.open("rb") as file:
        start = file.read(512)
    if start.lstrip()[:1] == b"<":
        raise RefusedError("a web page: the download asked for a login or a confirmation")
    if start[:4] != b"PK\x03\x04":
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise RefusedError(f"a zip archive that is damaged or cut off ({error})") from None
    _plain(entries, state.st_size)
    return True


def _plain(entries: list[zipfile.ZipInfo], size: int) -> None:
    """Refused where an archive is not as torch.save writes it: stored as it is, each byte once."""
    names = [entry.filename for entry in entries]
    if not any(name.endswith("data.pkl") for name in names):
        raise RefusedError("a zip archive without data.pkl")
    if any(name.endswith("constants.pkl") or "/code/" in name for name in names):
        raise RefusedError("a TorchScript program, which holds code")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise RefusedError("compressed entries, which torch.save never writes: they may unpack to any size")
    counts = {
        "entries of the archive": len(entries),
        "bytes of pickle": sum(entry.file_size for entry in entries if entry.filename.endswith(".pkl")),
    }
    if sum(entry.file_size for entry in entries) > size:
        raise RefusedError("entries that claim more bytes than the file has")
    for what, count in counts.items():
        if count > MOST[what]:
            raise RefusedError(f"{count} {what}, more than {MOST[what]}")


def load(path: Path) -> Any:
    """What the checkpoint holds, read without running code from it; Refused names what is in the way.

    Beside PyTorch's own list, numpy's numbers may be in it (`best_pred` of older trainers), and nothing else.
    """
    import torch

    archive = container(path)
    try:
        with torch.serialization.safe_globals(_numbers()):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 -- a damaged pickle makes its reader stumble in any way
        raise RefusedError(_why(error)) from None


def _numbers() -> list[Any]:
    import numpy as np

    scalar = np.float64(0).__reduce__()[0]  # numpy's own name for it has changed, and may again
    names = [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]
    kinds = [np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType, np.dtypes.Int32DType]
    return [*names, np.dtype, *kinds, np.dtypes.BoolDType]


def _why(error: Exception) -> str:
    """The point of PyTorch's message, without its advice to load the file unsafely."""
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    if code := re.search(r"\bGLOBAL ([\w.<>]{1,200})", text):
        return f"code or objects beside tensors: {code[1]} (it was not run)"
    lines = text.split("WeightsUnpickler error:")[-1].splitlines()
    said = [line.strip() for line in lines if line.strip() and "weights_only" not in line]
    return f"{type(error).__name__}: {said[0] if said else 'damaged':.300}"


def weights_of(content: Any) -> tuple[str, Mapping[str, Any], dict[str, str]]:
    """Where the weights lie ("" or one of HOLDERS), the weights, and the kinds of what lies beside them."""
    import torch

    if not isinstance(content, dict) or not content:
        raise RefusedError("an empty dictionary" if isinstance(content, dict) else f"a {type(content).__name__}")
    if all(isinstance(value, torch.Tensor) for value in content.values()):
        return "", content, {}
    kinds = {f"{key!r:.80}": type(value).__name__ for key, value in content.items()}
    held = [name for name in HOLDERS if isinstance(content.get(name), dict)]
    if len(held) != 1:
        shown = ", ".join(f"{key}: {kind}" for key, kind in list(kinds.items())[:20])
        which = "several of them hold weights" if held else f"none of {', '.join(HOLDERS)} among them"
        raise RefusedError(f"{len(kinds)} entries, {which}: {shown}")
    kinds.pop(repr(held[0]))
    return held[0], content[held[0]], dict(list(kinds.items())[:50])


def check(tensors: Mapping[Any, Any], size: int) -> None:
    """Refused with everything that is no plain tensor of numbers, or claims more memory than the file can fill."""
    if len(tensors) > MOST["tensors"]:
        raise RefusedError(f"{len(tensors)} tensors, more than {MOST['tensors']}")
    faults = [f"{key!r:.100} is {fault}" for key, value in tensors.items() if (fault := _fault(key, value))]
    if faults:
        raise RefusedError("; ".join(faults[:20]) + ("" if len(faults) <= 20 else f"; and {len(faults) - 20} more"))
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if total > COPIES * size:
        raise RefusedError(f"tensors of {total} bytes in a file of {size}")


def _fault(key: Any, value: Any) -> str:
    import torch

    if not isinstance(key, str) or not KEY.fullmatch(key):
        return "no name of a tensor"
    if not isinstance(value, torch.Tensor):
        return f"a {type(value).__name__}"
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu" or value.is_complex():
        return f"a tensor of an uncommon kind ({value.layout}, {value.dtype}, {value.device})"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"of shape {tuple(value.shape)}, but has {value.untyped_storage().nbytes()} bytes"
    return ""


def extract(source: Path, target: Path) -> dict[str, Any]:
    """Write the checkpoint's tensors to `target`; their names in the file's order, and what lies beside them."""
    import torch
    from safetensors.torch import save_file

    holder, tensors, beside = weights_of(load(source))
    check(tensors, source.stat().st_size)
    # copies, since safetensors refuses tensors that share memory, as second names of one tensor do
    plain = {key: value.detach().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
    save_file(plain, target)
    return {"holder": holder, "beside": beside, "names": list(plain)}


def main() -> None:
    """Read argv[1], write argv[2], tell on stdout."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    told: dict[str, Any] = {"network": leave_network()}
    try:
        import safetensors.torch  # noqa: F401 -- before `confine`: an import may need what is forbidden then
        import torch

        torch.set_num_threads(1)
        confine(source.stat().st_size)
        told |= extract(source, target)
    except MemoryError:
        told["fault"] = "more memory asked for than a file of this size can need"
    except ImportError as error:
        told["fault"] = f"not looked at: the reading process cannot import what it needs ({error})"
    except (RefusedError, OSError) as error:
        told["fault"] = str(error)
    except Exception as error:  # noqa: BLE001 -- whatever it is, the parent must be told in words
        told["fault"] = f"{type(error).__name__}: {error!s:.300}"
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
