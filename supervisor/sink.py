"""Writing lines to a descriptor that others may not read, without ever waiting for them."""

import fcntl
import os
import select
import socket
import stat


class Sink:
    """Writes to `fd` without blocking; what does not fit at once is dropped.

    fd: stays its owner's, and its flags are not touched: they belong to everybody who has the same
    open file (a terminal's O_NONBLOCK would be the shell's as well).  -1: everything is dropped.
    """

    def __init__(self, fd: int) -> None:
        self._pending = b""
        self._fd = -1
        self._socket: socket.socket | None = None
        self._room: select.poll | None = None
        try:
            self._open(fd)
        except OSError:
            pass  # closed: nobody reads, and dropping is what remains

    def write(self, line: bytes) -> bool:
        """Writes a whole line; False: it was dropped."""
        if self._pending:
            self._pending = self._pending[self._try(self._pending) :]
            if self._pending:
                return False
        written = self._try(line)
        if 0 < written < len(line):
            # Half a line has gone out: its rest follows, so that the next one starts on its own.
            self._pending = line[written:]
        return written > 0

    def close(self) -> None:
        """Closes what it opened itself; writing later drops."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        elif self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _open(self, fd: int) -> None:
        mode = os.fstat(fd).st_mode
        own = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=own)
            return
        self._fd = own
        if stat.S_ISREG(mode):
            return  # never waits; opened anew it would have an offset of its own
        try:
            # Another open file of the same pipe or terminal, with flags of its own.
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            self._fd = os.open(f"/proc/self/fd/{own}", flags)
            os.close(own)
        except OSError:
            self._room = select.poll()  # another user's: it has to be asked for room each time
            self._room.register(own, select.POLLOUT)

    def _try(self, data: bytes) -> int:
        """How many bytes were taken."""
        try:
            if self._socket is not None:
                return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            if self._fd < 0 or (self._room is not None and not self._room.poll(0)):
                return 0
            # A pipe that has room at all has it for PIPE_BUF bytes (pipe(7)).
            return os.write(self._fd, data if self._room is None else data[: select.PIPE_BUF])
        except OSError:
            return 0
