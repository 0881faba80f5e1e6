"""`wasisup run` through a daemon: the same run, carried out by somebody else.

Everything is opened here, as the user, and handed over as descriptors: the guest writes straight
into this command's terminal or pipe.  The run is bound to the connection, so that it ends when this
command does, however that comes.  JSON by the standard library and not by msgspec: on this road the
import would cost more than the run.
"""

import json
import os
import select

from .. import child
from ..client import failures
from ..client.driver import Driver, message
from ..client.http import READ_BYTES, Connections, Request, exchange
from ..errors import BadAnswer, ClientError, DaemonUnavailable, InvalidModule, ModuleNotFound
from ..grants import Descriptors, open_stdio
from ..model import Denial, Outcome, Usage
from .handover import Handover

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...policies.build import Plan
    from ..client.http import Connect, Flow, Link, Receive, Send
    from .handover import Sources

_ERROR = 400
# Seconds that the daemon has to take a signal; after that the connection is closed, which ends the
# run too, if there is anybody left to end it.
_SIGNAL_TIMEOUT = 2.0
_NAMES = {1: "HUP", 2: "INT", 3: "QUIT", 15: "TERM", 18: "CONT", 20: "STOP", 21: "STOP", 22: "STOP"}
_CONT = 18


def run(plan: "Plan", sources: "Sources", socket: str) -> Outcome:
    """Carries out a run as `embedded.run` does, and raises what that raises, or ClientError.

    The quotas of the plan's request become those that the daemon put in force.
    """
    streams = open_stdio((0, 1, 2))
    with child.Signals() as signals:
        thin = _Thin(socket, signals)
        try:
            record = thin.wait(thin.start(plan, sources, streams))
        except child.Interrupted as interrupted:
            number = interrupted.signal
            return Outcome(reason="killed", status=128 + number, signal=number)
        except DaemonUnavailable as error:
            error.hint = f"{error.hint}, or run it here: --no-daemon" if error.hint else None
            raise
        except (InvalidModule, ModuleNotFound) as error:
            error.message = _as_typed(error.message, plan)
            raise
        finally:
            thin.close()
    return _outcome(plan, record)


def detach(plan: "Plan", sources: "Sources", socket: str) -> str:
    """Starts a run that goes on without this command; returns its id."""
    with child.Signals() as signals:
        thin = _Thin(socket, signals)
        try:
            return str(thin.start(plan, sources, None)["id"])
        except child.Interrupted as interrupted:
            raise KeyboardInterrupt(interrupted.signal) from interrupted
        finally:
            thin.close()


class _Thin(Driver):
    """The connection that a run is bound to, and this command's signals while it waits for it."""

    __slots__ = ("_connections", "_id", "_signals", "_told")

    def __init__(self, socket: str, signals: child.Signals) -> None:
        self._connections = Connections(socket)
        self._signals = signals
        self._id = ""
        self._told = False

    def close(self) -> None:
        """Closes the connection."""
        self._connections.close()

    def start(
        self, plan: "Plan", sources: "Sources", streams: "list[int | None] | None"
    ) -> "dict[str, Any]":
        """Starts the run and returns its record; without streams it is a detached one."""
        with Descriptors() as held:
            handover = Handover(plan, sources, streams, held)
            body = json.dumps(handover.request()).encode()
            posted = Request("POST", "/v1/runs", body, fds=handover.fds)
            record = self.drive(_call(self._connections, posted))
        self._id = record["id"]
        return record

    def wait(self, record: "dict[str, Any]") -> "dict[str, Any]":
        """The record when the run has ended."""
        asking = Request("GET", f"/v1/runs/{self._id}/wait", bound=True)
        while record.get("outcome") is None:
            record = self.drive(_call(self._connections, asking))
        return record

    def connect(self, operation: "Connect") -> None:
        """Does not wait for room in the backlog: a signal may come meanwhile."""
        operation.timeout = 0
        super().connect(operation)

    def send(self, operation: "Send") -> None:
        """Sends, with an eye on the signals."""
        connection = operation.link.socket
        left, fds = memoryview(operation.data), operation.fds
        while left:
            self._watch(operation.link, select.POLLOUT)
            sent = connection.sendmsg(*message(left, fds))
            left, fds = left[sent:], ()

    def receive(self, operation: "Receive") -> bytes:
        """Receives, with an eye on the signals."""
        self._watch(operation.link, select.POLLIN)
        data: bytes = operation.link.socket.recv(READ_BYTES)
        return data

    def sleep(self, seconds: float) -> None:
        """Sleeps, unless a signal ends it."""
        self._signals.pause(int(seconds * 1000))

    def _watch(self, link: "Link", event: int) -> None:
        """Waits until the socket is ready, and sees to signals."""
        poll = select.poll()
        connection = link.socket.fileno()
        poll.register(connection, event)
        poll.register(self._signals, select.POLLIN)
        while True:
            ready = poll.poll()
            if self._told or not self._id:
                self._signals.check()
            else:
                self._pass_on()
            if any(fd == connection for fd, _ in ready):
                return

    def _pass_on(self) -> None:
        for number in self._signals.take():
            if _NAMES.get(number) == "STOP":
                self._tell(number)
                self._signals.stop_here(number)
                self._tell(_CONT)
                break
            if number == _CONT:
                self._tell(number)
        if self._signals.asked is not None:
            self._tell(self._signals.asked)
            # A second one has to help against a daemon that does not react.
            self._signals.asked = None
            self._told = True

    def _tell(self, number: int) -> None:
        """Passes a signal on, by a connection of its own: this one is waiting."""
        body = json.dumps({"signal": _NAMES[number]}).encode()
        target = f"/v1/runs/{self._id}/signal"
        connections = Connections(self._connections.path)
        try:
            answer = Driver().drive(
                exchange(connections, Request("POST", target, body, timeout=_SIGNAL_TIMEOUT))
            )
            answer.close()  # it may have ended already: what counts is what `wait` says
        except ClientError:
            if self._signals.asked is not None:
                raise child.Interrupted(self._signals.asked) from None
        finally:
            connections.close()


def _call(connections: Connections, request: Request) -> "Flow[dict[str, Any]]":
    """The record in the answer.  Raises ClientError."""
    answer = yield from exchange(connections, request)
    body = yield from answer.read()
    if answer.status >= _ERROR:
        raise failures.of_answer(answer.status, answer.headers, body)
    try:
        record: dict[str, Any] = json.loads(body)
        record["id"]
    except (ValueError, TypeError, KeyError) as error:
        raise BadAnswer(f"the daemon's answer is no run: {error}") from error
    return record


def _outcome(plan: "Plan", record: "dict[str, Any]") -> Outcome:
    """The record's outcome, as the embedded supervisor would have it or raise it."""
    ended = record["outcome"]
    text = _as_typed(str(ended.get("message", "")), plan)
    for name, value in record.get("quotas", {}).items():
        if name in plan.request.quotas.__slots__:
            setattr(plan.request.quotas, name, value)
    error = failures.of_outcome(
        ended["reason"],
        text,
        ended.get("hint"),
        step=ended.get("step"),
        errno=ended.get("errno"),
        wall=ended.get("wall"),
    )
    if error is not None:
        raise error
    usage = ended.get("usage", {})
    return Outcome(
        reason=ended["reason"],
        status=ended["status"],
        exit_code=ended.get("exit_code"),
        signal=ended.get("signal"),
        trap=ended.get("trap"),
        message=text,
        usage=Usage(**{name: usage[name] for name in Usage.__slots__ if name in usage}),
        denials=[
            Denial(one["kind"], one["count"], one["errno"], one["path"])
            for one in ended.get("denials", ())
        ],
        walls=ended.get("walls", ()),
        syscall=ended.get("syscall"),
        timings=ended.get("timings", {}),
        digest=record.get("digest"),
    )


def _as_typed(message: str, plan: "Plan") -> str:
    """The message with the module called as it was typed: the daemon was told the whole path."""
    path = os.path.abspath(plan.request.module)
    if message.startswith(f"{path}:"):
        return plan.request.module + message.removeprefix(path)
    return message
