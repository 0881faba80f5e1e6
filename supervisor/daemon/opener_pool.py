"""One process a caller, its requests in order, and none that waits for another caller's.

The life of openers: started when they are needed, killed when they do not answer, when they were
idle for long or when others need the room, and always reaped.
"""

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable
from functools import partial

from ...runtime import opener as wire
from ...runtime.engine import find_core
from ..alarm import Alarm
from ..errors import OpenerTimeout, SetupError
from ..model import printable

# A killed opener can still wait for a FUSE server; a caller whose openers do gets no more of them.
_MAX_ENDING = 4
# A user with many groups is many callers.
_MAX_OF_USER = 16
_STEP = "open as the caller"

Key = tuple[int, int, tuple[int, ...]]
"""uid, gid, supplementary groups"""


class _Request:
    """fd: -1 for none; the asker keeps it open until `answer` is done."""

    __slots__ = ("answer", "fd", "name", "payload", "sent_again")

    def __init__(self, payload: bytes, fd: int, name: str) -> None:
        self.payload = payload
        self.fd = fd
        self.name = name
        self.sent_again = False
        self.answer: asyncio.Future[tuple[wire.Answer, int]] = (
            asyncio.get_running_loop().create_future()
        )

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class _Line:
    """One caller's requests: `current` is being answered, the others wait for it.

    alarm: `current`'s.  used: when the line came to an end, by the loop's clock.
    """

    __slots__ = ("alarm", "current", "greeted", "key", "process", "used", "waiting")

    def __init__(self, key: Key, expire: "Callable[[_Line], None]") -> None:
        self.key = key
        self.alarm = Alarm(partial(expire, self))
        self.waiting: deque[_Request] = deque()
        self.current: _Request | None = None
        self.process: wire.Opener | None = None
        self.greeted = False
        self.used = 0.0


class Pool:
    """The openers of all callers; parameters as of `opener.Openers`."""

    def __init__(self, limit: int, idle_seconds: float, patience: float, core: str | None) -> None:
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._patience = patience
        self._core = core
        self._closed = False
        self._lines: dict[Key, _Line] = {}  # the one that was used last is the last
        self._running = 0
        self._no_room: deque[_Line] = deque()
        self._ending: dict[Key, set[wire.Opener]] = {}
        self._all_ended = asyncio.Event()
        self._sweeper: asyncio.TimerHandle | None = None

    async def ask(self, key: Key, payload: bytes, fd: int, name: str) -> tuple[wire.Answer, int]:
        """The answer to an encoded request, and its descriptor, owned by the receiver; -1: none.

        fd: goes with the request and stays the asker's; -1: none.  name: of what is asked about,
        for a person.  Raises OpenerTimeout, SetupError, and OSError when it cannot be sent.
        """
        if self._closed:
            raise _stopping()
        request = _Request(payload, fd, name)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(key, self._expire)
        line.waiting.append(request)
        if line.current is None:
            self._advance(line)
        try:
            return await request.answer
        except asyncio.CancelledError:
            # The answer may have come between the last turn of the loop and this one.
            done = request.answer.done() and not request.answer.cancelled()
            if done and not request.answer.exception():
                made = request.answer.result()[1]
                if made >= 0:
                    os.close(made)
            raise

    async def close(self) -> None:
        """As Openers.close."""
        self._closed = True
        if self._sweeper:
            self._sweeper.cancel()
        for line in self._lines.values():
            for request in (*line.waiting, *filter(None, [line.current])):
                request.fail(_stopping())
            self._settle(line)
            line.alarm.close()
            self._end(line)
        self._lines.clear()
        self._no_room.clear()
        if self._ending:
            try:
                await asyncio.wait_for(self._all_ended.wait(), self._patience)
            except TimeoutError:
                pass
        for left in self._ending.values():
            for process in left:
                asyncio.get_running_loop().remove_reader(process.pidfd)
                os.close(process.pidfd)
        self._ending.clear()

    # --- one line ---

    def _advance(self, line: _Line) -> None:
        """Begins the next request that somebody still waits for."""
        loop = asyncio.get_running_loop()
        while line.waiting:
            request = line.waiting.popleft()
            if request.answer.done():
                continue
            line.current = request
            line.alarm.set(self._patience)
            if self._begin(line):
                return
        self._lines.pop(line.key, None)
        if line.process is not None:
            self._lines[line.key] = line
            line.used = loop.time()
            if self._sweeper is None:
                self._sweeper = loop.call_later(self._idle_seconds, self._sweep)
        self._call_waiting()

    def _begin(self, line: _Line) -> bool:
        """Sends the current request, or sees to it that it will be; False when that failed."""
        request = line.current
        assert request is not None
        if request.answer.done():  # given up: its descriptor may be somebody else's by now
            self._settle(line)
            return False
        try:
            if line.process is None:
                if not self._make_room(line.key):
                    self._no_room.append(line)
                    return True
                self._start(line)
            elif line.greeted:
                line.process.send(request.payload, request.fd)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has ended, and the loop is about to say so
        except (OSError, SetupError) as error:
            self._settle(line)
            request.fail(error)
            return False
        return True

    def _start(self, line: _Line) -> None:
        if self._core is None:
            self._core = find_core()
        line.process = wire.start(self._core, *line.key)
        line.greeted = False
        self._running += 1
        asyncio.get_running_loop().add_reader(line.process.socket.fileno(), self._hear, line)

    def _settle(self, line: _Line) -> None:
        """Nothing is under way any more."""
        line.current = None
        line.alarm.clear()

    def _hear(self, line: _Line) -> None:
        """Reads one message of the line's opener."""
        process, request = line.process, line.current
        assert process is not None
        try:
            message, fds = process.receive()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            message, fds = b"", []
        if not message:
            self._lost(line)
            return
        try:
            if not line.greeted:
                wire.check_hello(message)
                line.greeted = True
                if request is None or self._begin(line):
                    return
            elif request is not None:
                answer = wire.decode(message)
                self._settle(line)
                if not request.answer.done():
                    request.answer.set_result((answer, fds.pop() if fds else -1))
        except SetupError as error:
            self._end(line)
            self._settle(line)
            if request is not None:
                request.fail(error)
        finally:
            for fd in fds:
                os.close(fd)
        self._advance(line)

    def _lost(self, line: _Line) -> None:
        """The opener has ended by itself: once a request, another one is started."""
        request = line.current
        self._end(line)
        if request is not None and not request.sent_again and not request.answer.done():
            request.sent_again = True
            if self._begin(line):
                return
        self._settle(line)
        if request is not None:
            request.fail(SetupError("the opener ended without an answer", step=_STEP))
        self._advance(line)

    def _expire(self, line: _Line) -> None:
        request = line.current
        assert request is not None
        if line.process is None:
            self._no_room.remove(line)
        else:
            self._end(line)
        self._settle(line)
        name = printable(request.name) if request.name else "a descriptor"
        request.fail(
            OpenerTimeout(
                f"{name}: no answer from its file system in {self._patience:g} s",
                step=_STEP,
                errno=errno.ETIMEDOUT,
            )
        )
        self._advance(line)

    # --- processes ---

    def _make_room(self, key: Key) -> bool:
        """Whether one more opener, of this caller, may be started."""
        mine = [line for line in self._lines.values() if line.key[0] == key[0]]
        ending = sum(len(left) for one, left in self._ending.items() if one[0] == key[0])
        if sum(line.process is not None for line in mine) >= _MAX_OF_USER:
            idle = next((line for line in mine if line.current is None and line.process), None)
            if idle is None:
                return False
            self._end(idle)
            del self._lines[idle.key]
        if ending >= _MAX_ENDING:
            return False
        if self._running >= self._limit:
            for line in self._lines.values():
                if line.current is None and line.process is not None:
                    self._end(line)
                    del self._lines[line.key]
                    break
        return self._running < self._limit

    def _call_waiting(self) -> None:
        if self._no_room:
            asyncio.get_running_loop().call_soon(self._admit)

    def _admit(self) -> None:
        """Begins what waits for room; what finds none waits again."""
        waiting, self._no_room = self._no_room, deque()
        for line in waiting:
            if not self._begin(line):
                self._advance(line)

    def _end(self, line: _Line) -> None:
        """Kills the line's opener, if it has one, and sees to it that it is reaped."""
        process, line.process = line.process, None
        if process is None:
            return
        loop = asyncio.get_running_loop()
        self._running -= 1
        loop.remove_reader(process.socket.fileno())
        process.kill()
        self._ending.setdefault(line.key, set()).add(process)
        loop.add_reader(process.pidfd, self._ended, line.key, process)

    def _ended(self, key: Key, process: wire.Opener) -> None:
        if not process.reap():
            return  # a debugger has the first word: the loop comes back
        asyncio.get_running_loop().remove_reader(process.pidfd)
        os.close(process.pidfd)
        self._ending[key].remove(process)
        if not self._ending[key]:
            del self._ending[key]
        if self._closed and not self._ending:
            self._all_ended.set()
        self._call_waiting()

    def _sweep(self) -> None:
        """Ends the openers that were idle for long enough; comes again when the next will be."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        idle = [line for line in self._lines.values() if line.current is None]
        for line in idle:
            if now - line.used >= self._idle_seconds:
                self._end(line)
                del self._lines[line.key]
        left = [line.used for line in idle if line.process is not None]
        self._sweeper = None
        if left:
            self._sweeper = loop.call_at(min(left) + self._idle_seconds, self._sweep)


def _stopping() -> SetupError:
    return SetupError("the daemon is stopping", step=_STEP)
