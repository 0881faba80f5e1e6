"""One request and the worker that answers it, from the wait for a place to the line in the log.

The worker's end is what decides: an answer is complete only when its run has ended by itself.  All
of it goes through pipes, so neither side's speed is any other's business: a client that is slow
holds its own worker back, in a write, and nothing else.
"""

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from .. import logs
from ..child import Ended
from ..core import ZygoteGone
from ..errors import WasisupError
from ..launch import limit_group, was_rejected
from ..model import printable
from ..verdict import judge
from . import cgi, http
from .gate import Full
from .messages import Refused, Request
from .stderr import ErrorLog

if TYPE_CHECKING:
    import resource
    from collections.abc import Sequence

    from ..cgroups import RunGroup
    from ..model import Denial, Outcome, RunRecord
    from .server import Server

log = logs.logger()

_READ_BYTES = 64 << 10
_LINE_BYTES = 1 << 10
_DENIALS = 8  # in the line of a request
CLIENT_GONE = 499  # for the log alone, as nginx has it
_LATE = ("timeout", "cpu_time")


class Exchange:
    """One request being answered.

    id: in the log, and in the guest's HTTP_X_REQUEST_ID when the client sent none.
    """

    __slots__ = (
        "_attempt",
        "_began",
        "_cause",
        "_client",
        "_connection",
        "_err",
        "_group",
        "_holds_place",
        "_out",
        "_out_paused",
        "_outcome",
        "_parser",
        "_request",
        "_running",
        "_sent",
        "_server",
        "_status",
        "_stdin",
        "_stdin_guest",
        "_task",
        "_timer",
        "_why",
        "id",
    )

    def __init__(self, server: "Server", connection: "http.Connection", request: Request) -> None:
        self.id = os.urandom(8).hex()
        self._server = server
        self._connection = connection
        self._client = True  # is there, and has yet to be answered
        self._request = request
        self._began = time.monotonic_ns()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._holds_place = False
        self._attempt = 0  # launches so far
        self._cause: int | str | None = None
        self._why = ""
        self._running: Any = None
        self._outcome: Outcome | None = None
        self._group: RunGroup | None = None
        self._parser: cgi.HeadParser | None = cgi.HeadParser()
        self._status = self._sent = 0
        self._stdin = self._stdin_guest = self._out = -1
        self._out_paused = False
        self._err: ErrorLog | None = None

    # --- the connection's side ---

    def start(self) -> None:
        """Begins; the server knows of it until it is over."""
        self._server.exchanges.add(self)
        self._go()

    def body_came(self) -> None:
        """There is more in the request's buffer, or it is complete."""
        if self._stdin >= 0:
            self._feed()
        elif self._task is None and self._running is None and self._attempt == 0:
            self._go()

    def writable(self) -> None:
        """The client takes more."""
        if self._out_paused and self._out >= 0:
            self._out_paused = False
            self._server.loop.add_reader(self._out, self._on_out)

    def fail(self, refused: Refused) -> None:
        """Ends it with an error of the server's own; cut off if the answer has begun."""
        self._why = self._why or refused.why
        if self._client:
            self._client = False
            if self._connection.has_begun:
                self._sent = self._connection.sent
                self._connection.cut()
            else:
                self._refuse(refused)
        self.kill(signal.SIGKILL)

    def gone(self) -> None:
        """The client is not there any more."""
        if self._client:
            self._client = False
            self._sent = self._connection.sent
            self._why = self._why or "the client has gone"
            self.kill(signal.SIGKILL)

    # --- what the server does to it ---

    def kill(self, cause: "int | str") -> None:
        """Ends the run, wherever it is in its life; the first cause counts."""
        if self._cause is None:
            self._cause = cause
        if self._running is not None:
            self._running.send(signal.SIGKILL)
        elif self._task is not None:
            self._task.cancel()
        else:
            self._conclude()

    def stop(self) -> None:
        """Ends it because the server has no more time."""
        self.fail(Refused(503, "the server stopped"))

    # --- to a worker ---

    def _go(self) -> None:
        """Goes for a worker, unless the body is small and still coming.

        So a client that is slow with a form takes nobody's place.
        """
        request = self._request
        small = request.length is not None and request.length <= http.HOLD_BYTES
        if request.complete or not small:
            self._begin()

    def _begin(self) -> None:
        self._task = self._server.loop.create_task(self._enter())
        self._task.add_done_callback(self._entered)

    def _entered(self, task: "asyncio.Task[None]") -> None:
        """Only `kill` cancels, perhaps before the first step; then there is nobody to be told."""
        if task.cancelled():
            self._task = None
            self._conclude()

    async def _enter(self) -> None:
        """Waits for a place, or, the second time, for the module; then launches."""
        refused = None
        try:
            self._attempt += 1
            if self._attempt == 1:
                await self._server.gate.enter(self._server.queue_seconds)
                self._holds_place = True
            else:
                await self._server.compile()
            await self._launch()
        except Refused as error:
            refused = error
        except Full:
            refused = Refused(503, "too many requests at once", retry_after=1)
        except WasisupError as error:
            # The words are for the operator: whoever asked is told nothing of this machine.
            log.error("no run", request=self.id, why=error.message, hint=error.hint)
            gone = isinstance(error, ZygoteGone)
            refused = Refused(503 if gone else 500, "no run", retry_after=1 if gone else None)
        except OSError as error:
            log.error("no run", request=self.id, why=str(error))
            refused = Refused(503, "no run", retry_after=1)
        except Exception:
            log.exception("no run", request=self.id)
            refused = Refused(500, "internal error")
        self._task = None
        if refused is not None:
            self.fail(refused)

    async def _launch(self) -> None:
        server, request = self._server, self._request
        try:
            env = cgi.variables(
                method=request.method,
                target=request.target,
                version=request.version,
                headers=request.headers,
                remote=self._connection.remote,
                remote_port=self._connection.remote_port,
                place=self._connection.place,
                software=server.software,
                length=self._length(),
            )
        except cgi.BadTarget as error:
            raise Refused(400, str(error)) from error
        if not request.get("x-request-id"):
            env["HTTP_X_REQUEST_ID"] = self.id
        out = -1
        try:
            guest_in = self._open_stdin()
            self._out, out = os.pipe2(os.O_CLOEXEC)
            self._err = ErrorLog(server.loop, self.id)
            os.set_blocking(self._out, False)
            if server.delegation is not None and self._group is None:
                self._group = server.delegation.make(self.id)
            limit_group(self._group, server.request, component=server.component)
            self._running = await server.launch(
                env,
                streams=(guest_in, out, self._err.guests_end),
                cgroup=None if self._group is None else self._group.fd,
                ended=self._ended,
            )
        finally:
            if out >= 0:
                os.close(out)
            if self._err is not None:
                self._err.launched()
        loop = server.loop
        loop.add_reader(self._out, self._on_out)
        timeout = server.request.quotas.timeout
        if timeout is not None:
            self._timer = loop.call_later(min(timeout / 1e9, 86400.0), self.kill, "timeout")
        if self._cause is not None:
            self._running.send(signal.SIGKILL)
        self._feed()

    def _length(self) -> int | None:
        """CONTENT_LENGTH: that of a chunked body only when it has come as a whole."""
        request = self._request
        if request.length is None:
            return request.received if request.complete else None
        declared = bool(request.length) or bool(request.get("content-length"))
        return request.length if declared else None

    def _open_stdin(self) -> int:
        """The guest's end; it stays here until the worker has ended: another may have to follow."""
        if self._stdin_guest >= 0:
            return self._stdin_guest
        if self._request.complete and not self._request.buffer:
            return self._server.nothing
        self._stdin_guest, self._stdin = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._stdin, False)
        return self._stdin_guest

    # --- the body, to the guest ---

    def _feed(self) -> None:
        request, loop = self._request, self._server.loop
        if self._stdin < 0:
            return
        buffer = request.buffer
        while buffer:
            try:
                written = os.write(self._stdin, bytes(buffer[:_READ_BYTES]))
            except BlockingIOError:
                loop.add_writer(self._stdin, self._feed)
                return
            del buffer[:written]
        loop.remove_writer(self._stdin)
        if request.complete:
            os.close(self._stdin)
            self._stdin = -1
        else:
            self._connection.resume_reading()

    def _close_stdin(self) -> None:
        """What is still to come of the body is nobody's."""
        if self._stdin >= 0:
            self._server.loop.remove_writer(self._stdin)
            os.close(self._stdin)
            self._stdin = -1
        if self._stdin_guest >= 0:
            os.close(self._stdin_guest)
            self._stdin_guest = -1
        self._request.unwanted = True
        self._request.buffer.clear()
        if not self._request.complete and self._connection.is_open:
            self._connection.resume_reading()

    # --- the guest's output ---

    def _on_out(self) -> None:
        try:
            data = os.read(self._out, _READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._server.loop.remove_reader(self._out)
            os.close(self._out)
            self._out = -1
            self._conclude()
            return
        if not self._client:
            return
        connection = self._connection
        if self._parser is None:
            connection.write(data)
        else:
            try:
                found = self._parser.feed(data)
            except cgi.BadOutput as error:
                self.fail(Refused(502, f"no CGI answer: {error}"))
                return
            if found is None:
                return
            self._parser = None
            head, rest = found
            self._status = head.status
            connection.begin_answer(head.status, head.reason, head.headers, head.length)
            connection.write(rest)
            connection.flush()
        if connection.write_paused and self._out >= 0:
            self._out_paused = True
            self._server.loop.remove_reader(self._out)

    # --- the end ---

    def _ended(self, status: int, usage: "resource.struct_rusage", record: "RunRecord") -> None:
        """The worker has been reaped."""
        server = self._server
        launched, self._running = self._running.launched, None
        wall = time.monotonic_ns() - launched
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_to_repeat(status, record):
            self._close_out()
            self._begin()
            return
        group = self._group
        try:
            self._outcome = judge(
                Ended(status, usage, self._cause, wall),
                record,
                server.request.quotas,
                out_of_memory=group is not None and group.oom_kills() > 0,
                name_of=server.core.name_of,
            )
        except WasisupError as error:
            log.error("no run", request=self.id, why=error.message, hint=error.hint)
            self._outcome = server.failed(error)
        if group is not None:
            self._group = None
            group.close()
        self._leave_gate()
        server.loop.call_soon(server.core.prepare)
        self._close_stdin()
        self._conclude()

    def _is_to_repeat(self, status: int, record: "RunRecord") -> bool:
        """Whether the engine did not take what was in the cache, or it was pruned: not run yet."""
        if self._attempt != 1 or self._cause is not None or record.running_ns:
            return False
        pruned = record.outcome == "setup" and self._server.has_gone()
        if was_rejected(status, record) or pruned:
            self._server.reject()
            return True
        return False

    def _conclude(self) -> None:
        """Once the worker has ended and all that it wrote is on its way: the answer's end."""
        if self._running is not None or self._task is not None:
            return
        outcome = self._outcome
        if outcome is not None and self._client:
            if self._out >= 0:
                return
            self._client = False
            if self._parser is not None:
                self._answer_failure(outcome)
            elif outcome.reason == "exit":
                self._sent = self._connection.sent
                if not self._connection.end_answer():
                    self._why = "less than its Content-Length"
            else:
                self._sent = self._connection.sent
                self._connection.cut()
        self._over()

    def _answer_failure(self, outcome: "Outcome") -> None:
        """The run is over and there is no head of an answer."""
        reason = outcome.reason
        if reason == "exit":
            assert self._parser is not None
            nothing = "nothing" if self._parser.is_empty else "no complete head"
            self._why = f"no CGI answer: it wrote {nothing} to stdout"
        if reason in _LATE:
            status = 504 if self._request.complete else 408
        elif reason in ("setup", "invalid_module"):
            status = 500
        else:
            status = 502
        self._refuse(Refused(status, self._why))

    def _refuse(self, refused: Refused) -> None:
        self._status = refused.status
        self._connection.refuse(self._request, refused)
        self._sent = self._connection.sent

    def _close_out(self) -> None:
        if self._out >= 0:
            self._server.loop.remove_reader(self._out)
            os.close(self._out)
            self._out = -1
        if self._err is not None:
            err, self._err = self._err, None
            err.close()

    def _leave_gate(self) -> None:
        if self._holds_place:
            self._holds_place = False
            self._server.gate.leave()

    def _over(self) -> None:
        """Gives everything back, and writes the line."""
        if self not in self._server.exchanges:
            return
        self._server.exchanges.discard(self)
        self._close_out()
        self._close_stdin()
        self._leave_gate()
        if self._group is not None:
            group, self._group = self._group, None
            group.close()
        self._server.finished()
        self._log_request()

    def _log_request(self) -> None:
        outcome, request = self._outcome, self._request
        fields: dict[str, Any] = {}
        if outcome is not None:
            fields = {"reason": outcome.reason, "exit": outcome.status}
            if outcome.message:
                fields["message"] = printable(outcome.message[:_LINE_BYTES], "\n")
            if denied := _denied(outcome.denials):
                fields["denied"] = denied
        if self._why:
            fields["why"] = self._why
        for name in ("user-agent", "referer"):
            if value := request.get(name):
                fields[name.replace("-", "_")] = printable(value[:256])
        log.info(
            "request",
            request=self.id,
            remote=self._connection.remote,
            method=request.method,
            target=printable(request.target[:_LINE_BYTES]),
            version=request.version,
            status=self._status or CLIENT_GONE,
            sent=self._sent,
            received=request.received,
            ms=round((time.monotonic_ns() - self._began) / 1e6, 2),
            **fields,
        )


def _denied(denials: "Sequence[Denial]") -> list[str]:
    """What the guest was refused, each as its kind and what it was about; of a network, --net's.

    C libraries look for directories at any rate: what is about nothing in particular is left out.
    """
    named = [denial for denial in denials if denial.path]
    found = [f"{denial.kind} {denial.path[:_LINE_BYTES]}" for denial in named[:_DENIALS]]
    if len(named) > _DENIALS:
        found.append(f"and {len(named) - _DENIALS} more")
    return found
