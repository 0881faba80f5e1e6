"""Bounded decoder of the run record, the page on which a worker reports (core/base/record.h).

The worker may have been taken over before it died, so everything here is untrusted: numbers that
are out of range come out as "none" or are cut, text stays bytes-turned-text and is made printable
by whoever shows it.  The page is read with pread and never mapped: a mapping could be pulled away.
"""

import os

from ..supervisor.model import Denial, RunRecord, printable, wall_names

MAGIC = 0x43455257
VERSION = 2
SIZE = 65536
MESSAGE = 8192
DENIALS = 96
PATH = 240

# Offsets of struct ws_record; a test compiles the header and compares.
OFFSETS = {
    "magic": 0,
    "version": 4,
    "phase": 8,
    "outcome": 12,
    "code": 16,
    "err": 20,
    "walls": 24,
    "landlock_abi": 28,
    "output_bytes": 32,
    "fuel_used": 40,
    "memory_bytes": 48,
    "t_setup_ns": 56,
    "t_loading_ns": 64,
    "t_running_ns": 72,
    "t_done_ns": 80,
    "step": 88,
    "message_len": 136,
    "denial_count": 140,
    "denials_total": 144,
    "message": 152,
    "denials": 152 + MESSAGE,
}
STEP = 48
DENIAL_SIZE = 16 + PATH
USED = OFFSETS["denials"] + DENIALS * DENIAL_SIZE

PHASES = ("none", "setup", "loading", "running", "done")
OUTCOMES = (
    "none",
    "exit",
    "trap",
    "setup",
    "invalid",
    "output",
    "cpu_time",
    "file_size",
    "syscall",
    "memory",
    "raised",
    "fuel",
    "abort",
    "rejected",
    "compiled",
)
DENIAL_KINDS = (
    "",
    "no_preopen",
    "escape",
    "read_only",
    "rights",
    "fds",
    "memory",
    "socket",
    "permission",
    "signal",
    "network",
    "name",
)


# The kind of a last denial that stands for those that found no room in the page.
NO_ROOM = "no_room"


def create() -> int:
    """A new memfd for one run's record; the caller owns the descriptor.

    Its size is sealed, so that a worker's mapping of it can never come to lie beyond the end.
    """
    import fcntl

    fd = os.memfd_create("wasisup-record", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, SIZE)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read(fd: int) -> RunRecord:
    """Decodes the record in the memfd `fd`, which stays the caller's."""
    page = os.pread(fd, OFFSETS["denials"], 0)
    if _number(page, "denial_count", 4):
        page += os.pread(fd, DENIALS * DENIAL_SIZE, OFFSETS["denials"])
    return decode(page)


def decode(page: bytes) -> RunRecord:
    """Decodes a record's bytes; a page that is too short, or no record, has phase "none"."""
    if len(page) < OFFSETS["denials"]:
        return RunRecord()
    if (_number(page, "magic", 4), _number(page, "version", 4)) != (MAGIC, VERSION):
        return RunRecord()
    length = min(_number(page, "message_len", 4), MESSAGE)
    start = OFFSETS["message"]
    return RunRecord(
        phase=_name(PHASES, _number(page, "phase", 4)),
        outcome=_name(OUTCOMES, _number(page, "outcome", 4)),
        code=_number(page, "code", 4),
        errno=_number(page, "err", 4),
        walls=wall_names(_number(page, "walls", 4)),
        landlock_abi=_number(page, "landlock_abi", 4),
        output=_number(page, "output_bytes", 8),
        fuel=_number(page, "fuel_used", 8),
        memory=_number(page, "memory_bytes", 8),
        setup_ns=_number(page, "t_setup_ns", 8),
        loading_ns=_number(page, "t_loading_ns", 8),
        running_ns=_number(page, "t_running_ns", 8),
        done_ns=_number(page, "t_done_ns", 8),
        step=_text(page[OFFSETS["step"] : OFFSETS["step"] + STEP].split(b"\0", 1)[0]),
        message=_text(page[start : start + length]),
        denials=_denials(page),
    )


def _denials(page: bytes) -> "list[Denial]":
    count = min(_number(page, "denial_count", 4), DENIALS)
    found = []
    for index in range(count):
        at = OFFSETS["denials"] + index * DENIAL_SIZE
        entry = page[at : at + DENIAL_SIZE]
        if len(entry) < DENIAL_SIZE:
            break
        kind = _name(DENIAL_KINDS, int.from_bytes(entry[:4], "little"))
        if not kind:
            continue
        path = entry[16 : 16 + min(int.from_bytes(entry[12:16], "little"), PATH)]
        found.append(
            Denial(
                kind=kind,
                count=int.from_bytes(entry[4:8], "little"),
                errno=int.from_bytes(entry[8:12], "little"),
                path=printable(path),
            )
        )
    if count == DENIALS:
        left = _number(page, "denials_total", 8) - sum(denial.count for denial in found)
        if left > 0:
            found.append(Denial(kind=NO_ROOM, count=min(left, 0xFFFFFFFF), errno=0, path=""))
    return found


def _number(page: bytes, field: str, size: int) -> int:
    at = OFFSETS[field]
    return int.from_bytes(page[at : at + size], "little")


def _name(names: "tuple[str, ...]", number: int) -> str:
    return names[number] if number < len(names) else names[0]


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
