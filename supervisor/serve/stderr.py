"""A guest's stderr on its way to the log: by lines, with the request's id, and only so much."""

import asyncio
import os

from .. import logs
from ..model import printable

log = logs.logger()

_READ_BYTES = 64 << 10
STDERR_BYTES = 16 << 10
LINE_BYTES = 1 << 10


class ErrorLog:
    """A pipe whose other end is the guest's.

    request: the id in the log.  guests_end: owned by this object until `launched`.  Raises OSError.
    """

    __slots__ = ("_fd", "_left", "_loop", "_request", "_rest", "guests_end")

    def __init__(self, loop: asyncio.AbstractEventLoop, request: str) -> None:
        self._loop = loop
        self._request = request
        self._left = STDERR_BYTES
        self._rest = b""
        self._fd, self.guests_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._fd, False)
        loop.add_reader(self._fd, self._read)

    def launched(self) -> None:
        """The guest has its end, or never will: this one is closed."""
        if self.guests_end >= 0:
            os.close(self.guests_end)
            self.guests_end = -1

    def close(self) -> None:
        """Takes what the guest said last, which is in the pipe, and closes."""
        self.launched()
        while self._fd >= 0 and self._read():
            pass
        self._end()

    def _end(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            if self._rest:
                self._log(self._rest)

    def _read(self) -> bool:
        """Takes a part; False when there is none."""
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._end()
            return False
        if self._left <= 0:
            return True  # read all the same: the guest must not wait for room
        data = data[: self._left]
        self._left -= len(data)
        *lines, rest = (self._rest + data).split(b"\n")
        if len(rest) > LINE_BYTES or not self._left:
            lines, rest = [*lines, rest], b""
        self._rest = rest
        for line in lines:
            self._log(line)
        if not self._left:
            log.warning("stderr", request=self._request, line="(more is not logged)")
        return True

    def _log(self, line: bytes) -> None:
        text = printable(line[:LINE_BYTES].rstrip(b"\r"))
        log.info("stderr", request=self._request, line=text)
