"""The conversation with the core's zygote (core/zygote/protocol.h): starting it, and launching.

One SOCK_SEQPACKET socket, one message a request and one an answer.  The zygote is a child of this
process, and so is every worker (CLONE_PARENT): whoever launches has to reap both.
"""

import _socket
import os

from ..supervisor.errors import SetupError
from ..supervisor.model import wall_names
from ..supervisor.sealed import sealed
from ..supervisor.steps import failed_step

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Sequence
    from typing import Self
else:
    import _signal  # `signal` would import `enum`

MAGIC = 0x4F47595A
VERSION = 3
NO_FD = 0xFFFFFFFF
HELLO_SIZE = 352
REQUEST_SIZE = 24
ANSWER_SIZE = 324
_TAKEN, _PING, _NOW = 0, 1, 2  # enum zygote_news

# The zygote answers within milliseconds; a minute is a machine that swaps.
PATIENCE_SECONDS = 60.0
# All that is left of the caller's environment: inert but in a build with sanitizers.
_KEPT_ENVIRONMENT = ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS")


class ZygoteGone(SetupError):
    """The zygote ended, or does not answer; a launch on its way may or may not have happened."""


class Hello:
    """What the zygote said at its start: engine release, and the walls clone3 can put up here."""

    __slots__ = ("release", "walls")

    def __init__(self, release: str, walls: "list[str]") -> None:
        self.release = release
        self.walls = walls


class Worker:
    """A launched worker: a child of this process.

    pid: in this process's namespace.  pidfd: owned by whoever holds this object.
    """

    __slots__ = ("pid", "pidfd")

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd


class _Spare:
    """A worker that was forked ahead and waits for its launch on a socket of its own.

    Descriptors are owned: `end` kills and reaps it.
    """

    __slots__ = ("pid", "pidfd", "socket")

    def __init__(self, pid: int, fd: int, pidfd: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)

    def take(self, payload: bytes, rights: bytes) -> "Worker | None":
        """Hands it its launch; None, and it is gone, when it has ended before its turn."""
        try:
            ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)]
            self.socket.sendmsg([payload], ancillary, _socket.MSG_NOSIGNAL)
        except OSError:
            self.end()
            return None
        self.socket.close()
        return Worker(self.pid, self.pidfd)

    def end(self) -> None:
        """Kills it, who has no run, and reaps it."""
        self.socket.close()
        os.close(self.pidfd)
        os.kill(self.pid, _signal.SIGKILL)
        _reap(self.pid, 0)


class Zygote:
    """A running zygote.  Use `start`; `close` (or the end of a `with`) ends and reaps it."""

    __slots__ = (
        "_hello",
        "_coming",
        "_pid",
        "_prepares",
        "_socket",
        "_spare",
        "_stays",
        "answered",
    )

    def __init__(self, pid: int, connection: "_socket.socket", *, stays: bool = False) -> None:
        self._pid: int | None = pid
        self._stays = stays
        self._prepares = True  # tells the zygote at once when the spare is taken
        self._coming = False
        self._socket = connection
        self._hello: Hello | None = None
        self.answered = 0  # messages received after the first
        self._spare: _Spare | None = None

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> "int | None":
        """The zygote's own pid; None once it has been reaped."""
        return self._pid

    def hello(self) -> Hello:
        """Waits until the zygote is ready.

        Raises SetupError when it could not start, with the step and errno it reported.
        """
        if self._hello is not None:
            return self._hello
        message, _ = self._receive(HELLO_SIZE, "start the core")
        if len(message) != HELLO_SIZE or _magic(message) != (MAGIC, VERSION):
            raise SetupError("the core speaks another protocol", step="start the core")
        err = int.from_bytes(message[8:12], "little", signed=True)
        if err:
            raise _refusal(err, message[48:96], message[96:352])
        walls = wall_names(int.from_bytes(message[12:16], "little"))
        self._hello = Hello(_c_string(message[16:48]), walls)
        return self._hello

    def launch(
        self, message: bytes, record: int, fds: "Sequence[int]", cgroup: "int | None", missing: int
    ) -> Worker:
        """Has the zygote fork a worker.

        message: an encoded launch spec.  record: the run record's memfd.  fds: what the spec names
        from index 2 on.  cgroup: a cgroup v2 directory for the worker to be born in.  missing: bits
        of the walls this run can do without.  All descriptors stay the caller's.
        Raises SetupError, or WallMissing when clone3 could not put up a wall.
        """
        self.hello()
        if self._stays:
            self._hear_news(0)
        worker = self.submit(message, record, fds, cgroup, missing)
        while worker is None:
            worker = self.receive()
        return worker

    def submit(
        self, message: bytes, record: int, fds: "Sequence[int]", cgroup: "int | None", missing: int
    ) -> "Worker | None":
        """As `launch`, without waiting: the worker when one stood by, or None.

        Then it comes out of `receive`, in the order of the calls.
        """
        spec = sealed("wasisup-spec", message)
        try:
            every = [spec, record, *fds]
            cgroup_index = NO_FD
            if cgroup is not None:
                cgroup_index = len(every)
                every.append(cgroup)
            payload = _words(MAGIC, VERSION, len(every), cgroup_index, missing, 0)
            rights = b"".join([fd.to_bytes(4, "little") for fd in every])
            # A spare was forked before this launch: it cannot be born into its cgroup.
            worker = self._take_spare(payload, rights) if cgroup is None else None
            if worker is None:
                self._send(payload, rights)
            return worker
        finally:
            os.close(spec)

    def receive(self) -> "Worker | None":
        """Takes one message: the answer to the oldest `submit` that is open, or None for news.

        Raises the SetupError that is the answer, ZygoteGone when there will be none any more, and,
        after `set_nonblocking`, BlockingIOError when there is no message.
        """
        answer, received = self._receive(ANSWER_SIZE, "start a worker")
        if self._is_news(answer, received):
            return None
        return _worker(answer, received)

    def ping(self) -> None:
        """Asks for a sign of life: `answered` changes when `receive` has taken it."""
        self._send(_words(MAGIC, VERSION, 0, NO_FD, 0, _PING), b"")

    def set_nonblocking(self) -> None:
        """From now on nothing here waits: for whoever watches `fileno` for readability.

        And calls `prepare` when it is a good moment for it.
        """
        self._socket.setblocking(False)
        self._prepares = False

    def prepare(self) -> None:
        """Has a worker forked ahead, unless one stands by or is on its way."""
        if self._stays and self._spare is None and not self._coming:
            self._coming = True
            try:
                self._send(_words(MAGIC, VERSION, 0, NO_FD, 0, _NOW), b"")
            except (ZygoteGone, BlockingIOError):
                pass  # who needs it next is told

    def fileno(self) -> int:
        """The conversation's descriptor; it stays the zygote's."""
        return self._socket.fileno()

    def release(self) -> None:
        """Lets the zygote leave; it is reaped by `close`.  Workers live on."""
        # Half-closed: a worker that still sets itself up takes a closed peer for a dead supervisor.
        try:
            self._socket.shutdown(_socket.SHUT_WR)
        except OSError:
            pass  # it has left already

    def close(self) -> None:
        """Ends the zygote and reaps it; does nothing the second time."""
        if self._pid is not None:
            pid, self._pid = self._pid, None
            if self._stays:
                self._let_leave(pid)
            else:
                self._socket.close()
                # It leaves by itself at the end of file, and fast; a hung one must not hang us.
                if not _reap(pid, os.WNOHANG):
                    os.kill(pid, _signal.SIGKILL)
                    _reap(pid, 0)
        self._socket.close()
        self.end_spare()

    def kill(self) -> None:
        """Kills and reaps it, and waits for no word of it; what it has answered can be received.

        Its end is not to be seen at `fileno` before the last worker that it made is set up.  A
        worker that sets itself up takes a closed socket for a dead supervisor, so `close` then.
        """
        if self._pid is not None:
            pid, self._pid = self._pid, None
            os.kill(pid, _signal.SIGKILL)
            _reap(pid, 0)

    def end_spare(self) -> None:
        """Ends the worker that stands by, if there is one."""
        if self._spare is not None:
            spare, self._spare = self._spare, None
            spare.end()

    def _let_leave(self, pid: int) -> None:
        """Waits for a zygote that stays to end; hears of the spare that it may just have made."""
        import select

        self.release()
        pidfd = os.pidfd_open(pid)
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(int(PATIENCE_SECONDS * 1000)):
                os.kill(pid, _signal.SIGKILL)
        finally:
            os.close(pidfd)
        _reap(pid, 0)
        try:
            while self._hear_news(0):
                pass
        except SetupError:
            pass  # the end of the conversation

    def _take_spare(self, payload: bytes, rights: bytes) -> "Worker | None":
        """The worker that stands by, if one does; then the next one is due."""
        if self._spare is None:
            return None
        spare, self._spare = self._spare, None
        worker = spare.take(payload, rights)
        if self._prepares:
            try:
                self._send(_words(MAGIC, VERSION, 0, NO_FD, 0, _TAKEN), b"")
            except (ZygoteGone, BlockingIOError):
                pass  # the worker does not need it; who next does is told
        return worker

    def _hear_news(self, milliseconds: int) -> bool:
        """Reads one message that is nobody's answer, if one comes in time; False otherwise."""
        import select

        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        if not poll.poll(milliseconds):
            return False
        return self._is_news(*self._receive(ANSWER_SIZE, "start a worker"))

    def _is_news(self, answer: bytes, received: "list[int]") -> bool:
        """Whether it is no launch's answer but a sign of life, or a spare: ours from here on."""
        self.answered += 1
        if len(answer) != ANSWER_SIZE or any(answer[8:16]) or len(received) not in (0, 2):
            return False
        if not received:
            return True
        self._coming = False
        pid = int.from_bytes(answer[320:], "little", signed=True)
        if self._spare is not None:  # it never sends a second one unasked
            self._spare.end()
        self._spare = _Spare(pid, *received)
        return True

    def _send(self, payload: bytes, rights: bytes) -> None:
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if rights else []
        try:
            self._socket.sendmsg([payload], ancillary, _socket.MSG_NOSIGNAL)
        except BlockingIOError:
            raise
        except OSError as error:
            raise self._gone("start a worker", error) from error

    def _receive(self, size: int, step: str) -> "tuple[bytes, list[int]]":
        flags = _socket.MSG_CMSG_CLOEXEC
        try:
            message, ancillary, _, _ = self._socket.recvmsg(size + 1, _socket.CMSG_SPACE(16), flags)
        except BlockingIOError:
            raise
        except OSError as error:
            raise self._gone(step, error) from error
        received: list[int] = []
        for level, kind, data in ancillary:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                words = range(0, len(data) - 3, 4)
                received += [int.from_bytes(data[at : at + 4], "little") for at in words]
        if not message:
            _close_all(received)
            raise self._gone(step, None)
        return message, received

    def _gone(self, step: str, error: "OSError | None") -> ZygoteGone:
        """The error for a zygote that does not answer: how it ended, if it did."""
        text = "the core does not answer"
        if self._pid is not None:
            done, status = os.waitpid(self._pid, os.WNOHANG)
            if done == 0 and error is None:
                # End of file comes just before the exit status does.
                done, status = os.waitpid(self._pid, 0)
            if done:
                self._pid = None
                code = os.waitstatus_to_exitcode(status)
                how = f"by signal {-code}" if code < 0 else f"with status {code}"
                text = f"the core ended {how} and without a word"
        number = error.errno or 0 if error is not None else 0
        return ZygoteGone(text, step=step, errno=number)


def start(
    core: str,
    library: str,
    release: str,
    engines: "Sequence[str]",
    closed: "Sequence[int]" = (),
    *,
    stay: bool = False,
) -> Zygote:
    """Starts a zygote: `core` loading `library`, checked to be `release`, with `engines` built.

    stay: many launches are coming, so the zygote spends tens of milliseconds and some 20 MiB once
    to make each of them faster, and keeps one worker forked ahead.
    closed: those of 0, 1 and 2 that are closed here; the zygote gets /dev/null there, so that
    nothing it opens takes the number of stderr.  Returns at once; the zygote is ready when `hello`
    returns.  Raises SetupError.
    """
    words = ["zygote", "--library", library, "--release", release]
    for engine in engines:
        words += ["--engine", engine]
    if stay:
        words.append("--stay")
    return _spawn(core, words, closed, stay=stay)


def start_brokers(core: str, closed: "Sequence[int]" = ()) -> Zygote:
    """Starts a zygote that lives in this process's network and launches brokers, nothing else.

    As `start`, with a library for neither.
    """
    return _spawn(core, ["brokers"], closed, stay=False)


def _spawn(core: str, words: "list[str]", closed: "Sequence[int]", *, stay: bool) -> Zygote:
    kinds = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, kinds)
    try:
        ours.settimeout(PATIENCE_SECONDS)
        kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        if stay:
            kept["LD_BIND_NOW"] = "1"  # or each worker looks the same functions up again
        pid = os.posix_spawn(
            core,
            ["wasisup-core", *words],
            kept,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), 3),
                *[(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in closed],
            ],
            setsigmask=(),
            # Python ignores these two, and an ignored signal stays ignored across exec.
            setsigdef=(_signal.SIGPIPE, _signal.SIGXFSZ),
        )
    except OSError as error:
        ours.close()
        raise SetupError(
            f"the core cannot be started: {error.strerror}",
            step="start the core",
            errno=error.errno or 0,
        ) from error
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return Zygote(pid, ours, stays=stay)


def _worker(answer: bytes, received: "list[int]") -> Worker:
    if len(answer) != ANSWER_SIZE or _magic(answer) != (MAGIC, VERSION):
        _close_all(received)
        raise SetupError("the core speaks another protocol", step="start a worker")
    pid = int.from_bytes(answer[8:12], "little", signed=True)
    err = int.from_bytes(answer[12:16], "little", signed=True)
    if pid <= 0 or len(received) != 1:
        _close_all(received)
        raise _refusal(err, answer[16:64], answer[64:320])
    return Worker(pid, received[0])


def _refusal(err: int, step: bytes, detail: bytes) -> SetupError:
    return failed_step(max(err, 0), _c_string(step), _c_string(detail))


def _reap(pid: int, options: int) -> bool:
    try:
        return os.waitpid(pid, options)[0] == pid
    except ChildProcessError:
        return True  # somebody reaps every child of this process: then it is gone as well


def _words(*words: int) -> bytes:
    return b"".join([word.to_bytes(4, "little") for word in words])


def _magic(message: bytes) -> "tuple[int, int]":
    return int.from_bytes(message[:4], "little"), int.from_bytes(message[4:8], "little")


def _c_string(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _close_all(fds: "Sequence[int]") -> None:
    for fd in fds:
        os.close(fd)
