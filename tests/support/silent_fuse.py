"""A FUSE file system that lets itself be mounted and then answers nothing."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.needs import unavailable

_INIT = 26
_MNT_DETACH = 2
_LIBC = ctypes.CDLL(None, use_errno=True)


def _answer_init(device: int, request: bytes) -> None:
    unique = struct.unpack_from("<Q", request, 8)[0]
    body = struct.pack("<4I", 7, 31, 0, 0).ljust(64, b"\0")  # struct fuse_init_out
    os.write(device, struct.pack("<IiQ", 16 + len(body), 0, unique) + body)


@contextmanager
def mounted(place: Path) -> Iterator[int]:
    """Mounts it, for everybody; yields its device, readable when a process has asked something.

    What was read from the device is in the server's hands, and not even a killed process is let go
    then.  At the end all are.
    """
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        unavailable("/dev/fuse")
    try:
        options = f"fd={device},rootmode=40755,user_id=0,group_id=0,allow_other"
        if _LIBC.mount(b"silent", bytes(place), b"fuse", 0, options.encode()) < 0:
            unavailable(f"mounting of FUSE file systems ({os.strerror(ctypes.get_errno())})")
        try:
            request = os.read(device, 1 << 17)
            assert struct.unpack_from("<I", request, 4)[0] == _INIT
            _answer_init(device, request)
            yield device
        finally:
            _LIBC.umount2(bytes(place), _MNT_DETACH)
    finally:
        os.close(device)
