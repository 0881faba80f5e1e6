"""`--report`: how a run ended, as JSON for programs.

The shape has a version, `schema`: a reader may rely on every field below as long as it is 1; new
fields may come.  Times are nanoseconds, sizes bytes.
"""

import errno
import os
import sys

from ..errors import UsageError, WasisupError
from .term import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...policies.build import Plan
    from ..model import Outcome, RunRequest

SCHEMA = 1


class Target:
    """Where the report goes.  Made before the run, so that a place that cannot be written fails it.

    "-" is stdout, one line.  A regular file is replaced as a whole when the run is over: a reader
    finds the old one or the new one.  Anything else (a FIFO, /dev/fd/3) is opened and written to.

    Raises UsageError when it cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._stream: int | None = None
        self._directory = -1
        self._name = ""
        if path == "-":
            return
        try:
            self._prepare()
        except OSError as error:
            raise UsageError(f"--report: cannot write {path!r}: {error.strerror}") from None
        except ValueError as error:  # a NUL byte
            raise UsageError(f"--report: cannot write {path!r}: {error}") from None

    def _prepare(self) -> None:
        if not self._path:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        own = _own_descriptor(self._path)
        if own is not None:
            # Not opened by its name: that would begin at the start of a file that stderr is in the
            # middle of, or even replace it.
            self._stream = _above_stdio(os.dup(own))
            return
        # Through symbolic links: renaming would replace the link and not what it points to.
        real = os.path.realpath(self._path)
        try:
            mode = os.stat(self._path).st_mode
        except FileNotFoundError:
            mode = 0o100000
        if mode & 0o170000 != 0o100000:
            self._stream = _above_stdio(os.open(self._path, os.O_WRONLY | os.O_CLOEXEC))
            return
        # Kept open: the guest may be able to rename what leads there and put a link in its place.
        directory, self._name = os.path.split(real)
        self._directory = _above_stdio(
            os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        )
        try:
            flags = os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC
            os.close(os.open(".", flags, dir_fd=self._directory))
        except OSError as error:
            # Not every file system has O_TMPFILE; the permission bits will have to do.
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=self._directory):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None

    def write(self, report: "dict[str, Any]") -> None:
        """Writes the report.  Raises UsageError if the place has become unwritable meanwhile."""
        one_line = self._path == "-" or self._stream is not None
        text = json_text(report, None if one_line else 2) + "\n"
        try:
            if self._path == "-":
                sys.stdout.write(text)
                sys.stdout.flush()
            elif self._stream is not None:
                _write_all(self._stream, text)
                os.close(self._stream)
            else:
                self._replace(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UsageError(f"--report: cannot write {self._path!r}: {error.strerror}") from None

    def _replace(self, text: str) -> None:
        # A name that the guest could not have taken.
        temporary = f".{os.urandom(8).hex()}.tmp"
        there = self._directory
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(temporary, flags, 0o666, dir_fd=there)
        try:
            try:
                _write_all(fd, text)
            finally:
                os.close(fd)
            os.rename(temporary, self._name, src_dir_fd=there, dst_dir_fd=there)
        except BaseException:
            os.unlink(temporary, dir_fd=there)
            raise
        finally:
            os.close(there)


def of_outcome(plan: "Plan", outcome: "Outcome") -> "dict[str, Any]":
    """The report of a run that was started."""
    return {
        **_of_plan(plan, outcome.digest),
        "reason": outcome.reason,
        "status": outcome.status,
        "exit_code": outcome.exit_code,
        "signal": outcome.signal,
        "trap": outcome.trap,
        "syscall": outcome.syscall,
        "message": outcome.message,
        "usage": outcome.usage.as_dict(),
        "denials": [denial.as_dict() for denial in outcome.denials],
        "walls": outcome.walls,
        "timings": outcome.timings,
    }


def of_error(plan: "Plan", error: WasisupError) -> "dict[str, Any]":
    """The report of a run that could not be started: the same fields, empty where unknown."""
    return {
        **_of_plan(plan, None),
        "reason": error.reason,
        "status": error.exit_status,
        "exit_code": None,
        "signal": None,
        "trap": None,
        "syscall": None,
        "message": error.message,
        "hint": error.hint,
        "step": getattr(error, "step", "") or None,
        "errno": getattr(error, "errno", 0) or None,
        "wall": getattr(error, "wall", None),
        "usage": None,
        "denials": [],
        "walls": [],
        "timings": {},
    }


def _of_plan(plan: "Plan", digest: "str | None") -> "dict[str, Any]":
    request = plan.request
    return {
        "schema": SCHEMA,
        "module": os.path.abspath(request.module),
        "digest": digest,  # of what ran: by now the path may lead elsewhere
        "engine": request.engine,
        "policy": request.policy,
        "invoke": request.invoke,
        "quotas": request.quotas.as_dict(),
        "grants": grants(plan),
        "allow_missing": sorted(request.allow_missing),
    }


def grants(plan: "Plan") -> "dict[str, Any]":
    """What a request grants.  Variables by name only: their values are often secrets."""
    request = plan.request
    return {
        "dirs": [
            {
                "host": os.path.realpath(grant.host),
                "guest": grant.guest,
                "read_only": grant.read_only,
            }
            for grant in request.dirs
        ],
        "tmpfs": [grant.as_dict() for grant in request.tmpfs],
        "env": [name for name, _ in request.env],
        "listens": [grant.as_dict() for grant in request.listens],
        "net": _net(request),
        "clock_resolution": request.clock_resolution,
    }


def _net(request: "RunRequest") -> "list[str]":
    if request.net_host:
        return ["host"]
    if not request.net:
        return []
    from ...policies.network import format_net

    return [format_net(grant) for grant in request.net]


def _above_stdio(fd: int) -> int:
    """The same description under a number above 2, where the run takes it for nobody's stdio."""
    if fd > 2:
        return fd
    import fcntl

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def _own_descriptor(path: str) -> "int | None":
    """The number in /dev/fd/N and its other names, None for other paths."""
    streams = {"/dev/stdout": "1", "/dev/stderr": "2"}
    number = streams.get(path, "")
    for folder in ("/dev/fd/", "/proc/self/fd/"):
        number = number or (path.removeprefix(folder) if path.startswith(folder) else "")
    return int(number) if number.isascii() and number.isdigit() and len(number) < 8 else None


def _write_all(fd: int, text: str) -> None:
    data = memoryview(text.encode())
    while data:
        data = data[os.write(fd, data) :]
