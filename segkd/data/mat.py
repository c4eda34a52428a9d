"""Take the map of ids out of a MATLAB file (SBD's and Pascal Context's labels), and nothing else.

scipy builds plain arrays and runs nothing; what is no plain array (objects, functions) is refused, and so is a file
that would unpack to more than any label can hold.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from jaxtyping import UInt16

from segkd.data.decode import MOST_PIXELS, FaultError, named_faults

HEADER = 128  # bytes of text, version and byte order before the first element
COMPRESSED = 15  # type of an element that is packed with zlib
LARGEST = 4 * MOST_PIXELS  # bytes, unpacked
MOST_IDS = 1 << 16


def decode_mat(content: bytes, path: tuple[str, ...]) -> UInt16[np.ndarray, "h w"]:
    """Ids at `path` (a variable, then fields of structures) of a MATLAB 5 file; FaultError where there is no map."""
    with named_faults():
        _refuse_other_files(content)
        from scipy import io as scipy_io

        load: Any = scipy_io.loadmat  # its stubs know no open files
        value = load(io.BytesIO(content), variable_names=[path[0]])
        return _ids(_walk(value, path), ".".join(path))


def _refuse_other_files(content: bytes) -> None:
    if not content:
        raise FaultError("is empty (0 bytes)")
    if content.startswith(b"MATLAB 7.3"):
        raise FaultError("is a MATLAB 7.3 file: save it with -v7 or take the published file")
    if not content.startswith(b"MATLAB 5.0"):
        raise FaultError("is not a MATLAB 5 file")
    order = "<" if content[126:128] == b"IM" else ">"
    start, left = HEADER, LARGEST
    while start + 8 <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, start)
        packed = content[start + 8 : start + 8 + size]
        if kind == COMPRESSED:
            left -= len(zlib.decompressobj().decompress(packed, left + 1))
        if left < 0:
            raise FaultError(f"unpacks to more than {LARGEST} bytes: it is no label")
        start += 8 + size


def _walk(value: Any, path: tuple[str, ...]) -> Any:
    """The value at a path; every structure on the way is a plain one by itself."""
    from scipy.io.matlab import MatlabFunction, MatlabObject, MatlabOpaque

    for depth, name in enumerate(path):
        where = ".".join(path[: depth + 1])
        if depth:
            if value.shape != (1, 1) or name not in (value.dtype.names or ()):
                raise FaultError(f"has no {where}")
            value = value[name][0, 0]
        elif name in value:
            value = value[name]
        else:
            raise FaultError(f"has no {where}")
        if not isinstance(value, np.ndarray) or isinstance(value, MatlabObject | MatlabFunction | MatlabOpaque):
            raise FaultError(f"holds an object in {where}: only plain arrays are read")
    return value


def _ids(value: Any, where: str) -> UInt16[np.ndarray, "h w"]:
    if value.ndim != 2 or value.dtype.kind not in "uif" or not value.size:
        raise FaultError(f"{where} is no map of numbers: {value.dtype} of shape {value.shape}")
    if value.dtype.kind == "f" and not (np.isfinite(value).all() and (value == np.floor(value)).all()):
        raise FaultError(f"{where} holds numbers that are not whole")
    if value.min() < 0 or value.max() >= MOST_IDS:
        raise FaultError(f"{where} holds ids {value.min():g} to {value.max():g}: expected 0 to {MOST_IDS - 1}")
    return np.ascontiguousarray(value, dtype=np.uint16)
