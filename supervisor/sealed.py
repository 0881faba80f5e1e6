"""Bytes as a descriptor: files in memory that cannot change any more (memfd_create(2))."""

import os


def sealed(name: str, data: bytes) -> int:
    """A memfd that holds `data`, at its start and read-only by its seals; the caller's.

    name: for who looks at /proc/PID/fd.
    """
    import fcntl

    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest, at = memoryview(data), 0
        while at < len(data):
            at += os.pwrite(fd, rest[at:], at)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd
