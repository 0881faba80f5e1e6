"""The network of one run: its broker, which comes before the worker and goes after it, and names.

A component that was granted addresses has two processes: the worker, in an empty network, and a
broker in the host's, which makes its calls as far as the plan's rules go
(runtime/core/network/protocol.h).  Both are this process's children, as the caller, in the run's
control group.  A broker that cannot put up its walls is a failed set-up, before there is a worker.
One that ends during the run ends the run's network: its calls answer an error from there on.

Here is what every supervisor needs, and the launch for one that may wait.
"""

import os
import select
import socket
import time

from ..runtime import engine as _engine
from ..runtime import filters as _filters
from ..runtime import network as _network
from ..runtime import record as _record
from ..runtime import spec as _spec
from ..runtime import zygote as _zygote
from . import child
from .errors import SetupError
from .network import plan as _plan
from .steps import failed_step

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource
    import threading
    from collections.abc import Callable, Sequence

    from ..runtime.cache import ArtifactCache
    from ..runtime.zygote import Worker
    from .model import RunRecord, RunRequest
    from .network import NetPlan

PROFILE = "broker-none"
STEP = "broker"
# A broker answers within a millisecond of its launch; half a minute is a machine that swaps.
PATIENCE_SECONDS = 30.0
# It holds one descriptor at a time.  But the kernel lets a process send descriptors only while all
# of its user's that are on their way are fewer than this (unix(7), ETOOMANYREFS).
_DESCRIPTORS = 1 << 16
_DATA = 8 << 20
# A question and an answer of the resolver.
_QUESTION_BYTES = 512
_PAUSE_MS = 50


class Network:
    """The ends of a run's conversations, and then its broker.  `close` closes what is left.

    plan: what is granted.  end: the worker's end to the broker.  brokers_end: the other.
    resolver: the worker's end to whoever answers for names, and `questions` the other: None but
    where look-ups are live.  page: the broker's run record.
    """

    __slots__ = ("brokers_end", "end", "page", "plan", "questions", "resolver")

    def __init__(self, plan: "NetPlan") -> None:
        self.plan = plan
        self.questions: socket.socket | None = None
        self.resolver: socket.socket | None = None
        self.page = _record.create()
        try:
            self.end, self.brokers_end = _pair()
            if plan.live:
                self.questions, self.resolver = _pair()
        except BaseException:
            os.close(self.page)
            raise

    def spec(
        self, identity: "tuple[int, int, Sequence[int]] | None", cpu_ns: "int | None"
    ) -> _spec.SpecWriter:
        """The broker's launch spec, without filters.

        cpu_ns: as much as its worker has: each of its requests costs that one as much.
        """
        writer = _spec.SpecWriter(_spec.KIND_BROKER, "cranelift")
        writer.broker(self.brokers_end.fileno())
        for rule in self.plan.rules:
            writer.rule(rule)
        writer.limits(
            memory=0,
            cpu_ns=cpu_ns,
            fds=_DESCRIPTORS,
            file_size=0,
            output=0,
            fuel=None,
            table_elements=0,
            data_overhead=_DATA,
        )
        if identity is not None:
            writer.identity(*identity)
        return writer

    def grant(self, writer: _spec.SpecWriter) -> None:
        """Puts the worker's part into its launch spec."""
        writer.broker(self.end.fileno())
        if self.resolver is not None:
            writer.resolver(self.resolver.fileno())
        for name, addresses in self.plan.names.items():
            writer.name(name, addresses)

    def launched(self) -> None:
        """The broker has its end now: only it may hold that."""
        self.brokers_end.close()

    def handed_over(self) -> None:
        """The worker has its ends now: only it may hold them, or nobody would see it end."""
        self.end.close()
        if self.resolver is not None:
            self.resolver.close()

    def has_said_hello(self) -> bool:
        """Reads the broker's first word.  Raises SetupError when there is none but its end."""
        # Without waiting, and without making a descriptor that does not wait of the worker's end.
        try:
            message = self.end.recv(_network.HELLO_SIZE + 1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            message = b""
        if not _network.is_hello(message):
            raise self.failure()
        return True

    def failure(self) -> SetupError:
        """Why there is no broker."""
        said = self.record()
        if said.outcome == "setup":
            return failed_step(said.errno, said.step, f"the run's broker: {said.message}")
        return SetupError("the run's broker ended before it was ready", step=STEP)

    def record(self) -> "RunRecord":
        """What the broker wrote down."""
        return _record.read(self.page)

    def close(self) -> None:
        """Closes every descriptor; does nothing the second time."""
        self.launched()
        self.handed_over()
        if self.questions is not None:
            self.questions.close()
        if self.page >= 0:
            os.close(self.page)
            self.page = -1


class Broker:
    """A broker that is ready, for a supervisor that may wait.

    network: the ends; `end` closes them.
    """

    __slots__ = ("_worker", "network")

    def __init__(self, worker: "Worker", network: Network) -> None:
        self._worker: Worker | None = worker
        self.network = network
        if network.questions is not None:
            questions = network.questions.dup()
            try:
                _in_thread(lambda: answer_questions(questions))
            except BaseException:
                questions.close()
                raise

    def end(self) -> "tuple[resource.struct_rusage, RunRecord] | None":
        """Ends and reaps it: what it used, and its record.  None the second time."""
        if self._worker is None:
            return None
        worker, self._worker = self._worker, None
        try:
            usage = _reap(worker)
            return usage, self.network.record()
        finally:
            self.network.close()


def start(
    request: "RunRequest",
    identity: "tuple[int, int, Sequence[int]] | None",
    *,
    cache: "ArtifactCache",
    missing: int,
    cgroup: "int | None",
    closed: "Sequence[int]",
    signals: child.Signals,
) -> Broker:
    """Plans the network of a run, and launches its broker.

    missing: bits of walls that it can do without.  closed: as for runtime/zygote.py.  Raises
    UsageError, SetupError, WallMissing, and Interrupted when a signal asks for the end.
    """
    # Its start takes as long as the plan does, and it leaves with the first launch.
    with _zygote.start_brokers(_engine.find_core(), closed) as zygote:
        network = Network(_patiently(lambda: _plan(request.net, request.net_host), signals))
        try:
            writer = network.spec(identity, request.quotas.cpu_time)
            writer.allow_missing(missing)
            add_filter(writer, cache)
            zygote.hello()
            signals.check()
            worker = zygote.launch(writer.encode(), network.page, writer.fds, cgroup, missing)
            network.launched()
            try:
                _await_hello(network, signals)
                return Broker(worker, network)
            except BaseException:
                _reap(worker)
                raise
        except BaseException:
            network.close()
            raise


def add_filter(writer: _spec.SpecWriter, cache: "ArtifactCache") -> None:
    """Adds a broker's filter.  Raises WallMissing when it cannot be made."""
    program, _ = _filters.programs(PROFILE, cache)
    writer.filter(1, program)


def answer_questions(questions: socket.socket) -> None:
    """Answers a worker's questions for names until it has ended; takes the socket over."""
    with questions:
        while True:
            try:
                question = questions.recv(_QUESTION_BYTES)
                if not question:
                    return
                questions.send(look_up(question), socket.MSG_NOSIGNAL)
            except OSError:
                return  # nobody is there to hear an answer


def look_up(question: bytes) -> bytes:
    """The answer to a question for a name, which may take seconds."""
    host = _network.host_of(question)
    found: list[tuple[int, bytes]] = []
    if host is not None:
        try:
            for family, _, _, _, address in socket.getaddrinfo(host, None, 0, socket.SOCK_STREAM):
                number = {socket.AF_INET: 4, socket.AF_INET6: 6}.get(family)
                if number is not None:
                    text = str(address[0]).partition("%")[0]
                    found.append((number, socket.inet_pton(family, text)))
        except (OSError, UnicodeError):
            found = []  # a name without an address, as far as the guest can tell
    return _network.encode_addresses(found)


def total(
    one: "resource.struct_rusage", other: "resource.struct_rusage"
) -> "resource.struct_rusage":
    """The account of a run's two processes: their times together, the worker's else."""
    import resource

    times = one.ru_utime + other.ru_utime, one.ru_stime + other.ru_stime
    return resource.struct_rusage((*times, *one[2:]))


def _pair() -> "tuple[socket.socket, socket.socket]":
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _reap(worker: "Worker") -> "resource.struct_rusage":
    # What the worker was answered is in the record already; it has no one to answer any more.
    child.kill(worker.pidfd)
    try:
        return os.wait4(worker.pid, 0)[2]
    finally:
        os.close(worker.pidfd)


def _await_hello(network: Network, signals: child.Signals) -> None:
    poll = select.poll()
    poll.register(network.end.fileno(), select.POLLIN)
    poll.register(signals.fileno(), select.POLLIN)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not network.has_said_hello():
        left = deadline - time.monotonic()
        if left <= 0:
            raise SetupError("the run's broker does not answer", step=STEP)
        poll.poll(int(left * 1000) + 1)
        signals.check()


def _in_thread(work: "Callable[[], None]") -> "threading.Thread":
    """Starts a daemon's thread: the C library's resolver cannot be told to give up."""
    import threading

    thread = threading.Thread(target=work, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise SetupError(f"no thread to look names up: {error}", step="resolve") from error
    return thread


def _patiently(work: "Callable[[], NetPlan]", signals: child.Signals) -> "NetPlan":
    """Carries out what may take seconds, in a thread: a signal that asks for the end is heard."""
    done: list[NetPlan] = []
    failed: list[BaseException] = []

    def carry_out() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = _in_thread(carry_out)
    while thread.is_alive():
        thread.join(_PAUSE_MS / 1000)
        signals.check()
    if failed:
        raise failed[0]
    return done[0]
