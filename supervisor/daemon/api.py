"""What the API's operations do; routes.py says which is which, and reads what they are given."""

import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from ... import __version__
from .. import wire
from ..errors import WasisupError
from ..logs import logger
from . import output
from .access import Access
from .failures import HttpError, translate
from .job import Job
from .messages import Request, Response
from .openapi import document
from .records import MOST_LISTED, Ambiguous, RecordsError
from .routes import (
    BYTES,
    LINES,
    EventsQuery,
    ListQuery,
    LogsQuery,
    NameQuery,
    StdinQuery,
    Table,
    WaitQuery,
)
from .streams import as_text, chunks, ended_logs, live_logs, raw_parts, write_all

if TYPE_CHECKING:
    from .state import State

log = logger()
_encode = msgspec.json.Encoder().encode
_STDIN_SECONDS = 60.0
_NO_ROOM = {
    errno.EMFILE: 503, errno.ENFILE: 503, errno.ENOMEM: 503, errno.ENOSPC: 507, errno.EDQUOT: 507,
}  # fmt: skip


class Api:
    """Answers requests.  state: the daemon's parts."""

    def __init__(self, state: "State") -> None:
        self._state = state
        self.table = Table(lambda name: getattr(self, name))
        self._openapi = _encode(document())

    async def handle(self, request: Request) -> Response:
        """The answer to any request; every error is one, too."""
        try:
            response = await self.table.answer(request)
        except HttpError as error:
            response = self._refuse(request, error)
        except RecordsError as error:
            status = 507 if request.method == "POST" else 503
            response = self._refuse(request, HttpError(status, error.message, error.hint))
        except WasisupError as error:
            response = self._refuse(request, translate(error))
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _NO_ROOM:
                words = f"the daemon has no room: {error.strerror}"
                response = self._refuse(request, HttpError(_NO_ROOM[error.errno], words))
            else:
                log.exception("a request failed", method=request.method, path=request.path)
                words = f"internal error: {type(error).__name__}"
                response = self._refuse(request, HttpError(500, words, "the daemon's log has more"))
        route = self.table.pattern(request)
        self._state.metrics.answered(route, request.method, response.status)
        return response

    def _refuse(self, request: Request, error: HttpError) -> Response:
        if request.method == "POST" and request.path == "/v1/runs":
            self._state.metrics.refused(error.code)
            if error.code == "denied":
                log.warning("denied", uid=request.caller.uid, why=error.message)
        return error.response()

    # --- runs ---

    async def create_run(self, request: Request, spec: wire.RunRequest) -> Response:
        """Starts a run."""
        if self._state.stopping:
            raise HttpError(503, "the daemon is stopping", code="stopping")
        if spec.wait and spec.attach:
            raise HttpError(422, "wait and attach contradict each other")
        access = self._access(request)
        fds = request.take_fds()
        prepared = await self._state.intake.prepare(request.caller, access, spec, fds)
        job = self._state.runs.submit(prepared)
        if not spec.wait and not spec.attach:
            return _json(201, job.run, ("location", f"/v1/runs/{job.id}"))

        def gone() -> None:
            self._state.runs.kill(job, 9, "its client went away")

        connection = request.connection
        connection.on_gone(gone)
        job.connection = lambda: connection.not_on_gone(gone)
        if spec.attach:
            return _json(201, job.run, ("location", f"/v1/runs/{job.id}"))
        await job.ended()
        return _json(200, _with_output(job))

    async def list_runs(self, request: Request, query: ListQuery) -> Response:
        """Runs, the newest first."""
        access = self._access(request)
        uid = None if access.sees == "all" else request.caller.uid
        labels = [_label(text) for text in query.label]
        state, records = query.state, self._state.records
        if state not in (None, "ended"):
            runs = self._live(uid, state, labels, query.before)[: query.limit]
            runs, more = _within(runs, MOST_LISTED, query.limit)
        else:
            runs, more = records.page(uid, state, labels, query.limit, query.before)
            runs = [self._current(run) for run in runs]
        following = runs[-1].id if runs and more else None
        return _json(200, wire.RunList(runs=runs, next=following))

    async def get_run(self, request: Request, id: str) -> Response:
        """One run."""
        return _json(200, self._find(request, id)[0])

    async def kill_run(self, request: Request, id: str) -> Response:
        """Kills a run and waits for its end."""
        job = self._find_live(request, id)
        self._state.runs.send(job, "KILL")
        await job.ended()
        return _json(200, job.run)

    async def signal_run(self, request: Request, id: str, body: wire.SignalRequest) -> Response:
        """Sends a signal."""
        self._state.runs.send(self._find_live(request, id), body.signal)
        return Response(204)

    async def wait_for_run(self, request: Request, id: str, query: WaitQuery) -> Response:
        """Waits for a run's end."""
        run, job = self._find(request, id)
        if job is not None:
            try:
                await asyncio.wait_for(job.ended(), query.timeout)
            except TimeoutError:
                pass  # told as it is
            run = job.run
        return _json(200, run)

    async def get_logs(self, request: Request, id: str, query: LogsQuery) -> Response:
        """What a run has written."""
        run, job = self._find(request, id)
        streams: tuple[output.Stream, ...] = output.STREAMS
        if query.stream is not None:
            streams = (query.stream,)
        if job is not None:
            parts = live_logs(job, streams, follow=query.follow)
        else:
            parts = ended_logs(self._state.records, self._state.log_folder, run.id, streams)
        if query.stream is not None:
            return Response(200, raw_parts(parts), BYTES)
        return Response(200, chunks(parts), LINES)

    async def write_stdin(self, request: Request, id: str, query: StdinQuery) -> Response:
        """Writes to an open stdin."""
        job = self._find_live(request, id)
        async with job.stdin_lock:
            if job.prepared.stdin_writer is None:
                raise HttpError(409, "its stdin is not open", 'it was not started with "open"')
            try:
                await asyncio.wait_for(write_all(job, bytes(request.body)), _STDIN_SECONDS)
            except TimeoutError:
                raise HttpError(504, "the guest does not read its stdin") from None
            except BrokenPipeError:
                raise HttpError(409, "the guest reads its stdin no more") from None
            if query.close:
                job.prepared.close_stdin()
        return Response(204)

    async def get_stats(self, request: Request, id: str) -> Response:
        """What a run uses now."""
        run, job = self._find(request, id)
        return _json(200, _stats(run, job))

    async def list_stats(self, request: Request) -> Response:
        """What all live runs use."""
        access = self._access(request)
        stats = [
            _stats(job.run, job)
            for job in self._state.runs.live.values()
            if access.sees == "all" or job.run.uid == request.caller.uid
        ]
        return _json(200, wire.StatsList(stats=stats))

    # --- events ---

    async def stream_events(self, request: Request, query: EventsQuery) -> Response:
        """What happens from now on."""
        access = self._access(request)
        uid = request.caller.uid

        def wanted(event: wire.Event) -> bool:
            if access.sees != "all" and event.uid not in (None, uid):
                return False
            if query.type is not None and event.type != query.type:
                return False
            return query.run is None or (event.run or "").startswith(query.run)

        return Response(200, self._events(wanted, query), LINES)

    async def _events(self, wanted: Any, query: EventsQuery) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        deadline = None if query.timeout is None else loop.time() + query.timeout
        sent = 0
        with self._state.events.subscribe(wanted) as events:
            while query.limit is None or sent < query.limit:
                left = None if deadline is None else max(0.0, deadline - loop.time())
                try:
                    event = await asyncio.wait_for(anext(events), left)
                except (TimeoutError, StopAsyncIteration):
                    return
                yield _encode(event) + b"\n"
                sent += 1

    # --- modules and policies ---

    async def add_module(self, request: Request, query: NameQuery) -> Response:
        """Keeps a module."""
        access = self._access(request)
        sink, request.sink = request.sink, None
        assert sink is not None
        info = await self._state.modules.add(request.caller, access, sink, query.name)
        self._state.events.publish(
            wire.Event(
                time=datetime.now(UTC), type="module", uid=request.caller.uid, module=info.digest
            )
        )
        return _json(201, info, ("location", f"/v1/modules/{info.digest}"))

    async def list_modules(self, request: Request) -> Response:
        """The caller's modules."""
        self._access(request)
        return _json(200, wire.ModuleList(modules=self._state.modules.list(request.caller.uid)))

    async def get_module(self, request: Request, digest: str) -> Response:
        """One module."""
        self._access(request)
        return _json(200, self._module(request, digest))

    async def remove_module(self, request: Request, digest: str) -> Response:
        """Forgets a module."""
        self._access(request)
        info = self._module(request, digest)
        self._state.modules.remove(request.caller.uid, info.digest)
        return Response(204)

    def _module(self, request: Request, digest: str) -> wire.ModuleInfo:
        try:
            return self._state.modules.info(request.caller.uid, digest)
        except WasisupError as error:
            raise HttpError(404, error.message, error.hint) from None

    async def list_policies(self, request: Request) -> Response:
        """The policies that the caller may use."""
        allows = self._access(request).allows_policy
        return _json(200, wire.PolicyList(policies=self._state.catalogue.describe(allows)))

    # --- the daemon itself ---

    async def get_health(self, request: Request) -> Response:  # noqa: ARG002
        """Whether runs can be started."""
        if self._state.stopping:
            return _json(503, wire.Health(status="stopping", message="no new runs are taken"))
        failure = self._state.core.failure
        if failure is not None:
            return _json(503, wire.Health(status="degraded", message=failure.message))
        return _json(200, wire.Health(status="ok"))

    async def get_info(self, request: Request) -> Response:
        """The daemon, and who the caller is."""
        state, caller = self._state, request.caller
        access = self._access(request)
        ceilings = {key.replace("-", "_"): value for key, value in access.ceilings.items()}
        ceilings.pop("tmpfs", None)
        policies = [name for name in state.catalogue.names() if access.allows_policy(name)]
        return _json(
            200,
            wire.Info(
                version=__version__,
                api=wire.VERSION,
                engine=state.core.release,
                pid=os.getpid(),
                uid=os.geteuid(),
                started=state.started,
                running=state.admission.running,
                queued=state.admission.queued,
                walls=state.core.walls,
                cgroup=None if state.delegation is None else state.delegation.base,
                caller=wire.CallerInfo(
                    uid=caller.uid,
                    gid=caller.gid,
                    groups=list(caller.groups),
                    policies=policies,
                    ceilings=wire.QuotaValues(**{"fds": None, **ceilings}),  # type: ignore[arg-type]
                    runs=access.runs,
                    queued=access.queued,
                    sees=access.sees,
                    net=access.net,
                    kills=access.kills,
                ),
            ),
        )

    async def get_openapi(self, request: Request) -> Response:  # noqa: ARG002
        """The API's description."""
        return Response(200, self._openapi)

    async def get_metrics(self, request: Request) -> Response:  # noqa: ARG002
        """Figures for Prometheus."""
        self._state.runs.catch_up()  # whoever had a run's answer finds it counted
        body, kind = self._state.metrics.render()
        return Response(200, body, kind)

    # --- who sees what ---

    def _access(self, request: Request) -> Access:
        access = self._state.config.access(request.caller)
        if not access.serve:
            raise HttpError(
                403,
                f"this daemon does not serve uid {request.caller.uid}",
                "its configuration says whom it serves; an ordinary user's serves that user alone",
            )
        return access

    def _find(self, request: Request, id: str) -> "tuple[wire.Run, Job | None]":
        """A run that the caller may see, and its life if it has not ended."""
        access = self._access(request)
        uid = None if access.sees == "all" else request.caller.uid
        job = self._state.runs.live.get(id)
        if job is not None and (uid is None or job.run.uid == uid):
            return job.run, job
        try:
            run = self._state.records.get(id, uid)
        except Ambiguous:
            raise HttpError(422, f"more than one run has an id that starts with {id!r}") from None
        if run is None:
            raise HttpError(404, f"there is no run {id!r}")
        return self._current(run), self._state.runs.live.get(run.id)

    def _find_live(self, request: Request, id: str) -> Job:
        """As _find, for what is done to runs that live."""
        run, job = self._find(request, id)
        access = self._access(request)
        if access.kills != "all" and run.uid != request.caller.uid:
            raise HttpError(403, "it is somebody else's run", "you may only look at it")
        if job is None:
            raise HttpError(409, f"run {run.id} has ended")
        return job

    def _current(self, run: wire.Run) -> wire.Run:
        job = self._state.runs.live.get(run.id)
        if job is not None:
            return job.run
        return self._state.runs.unsaved(run.id) or run

    def _live(
        self,
        uid: int | None,
        state: str | None,
        labels: "list[tuple[str, str | None]]",
        before: str | None,
    ) -> "list[wire.Run]":
        """As Records.list: there a live run's state is that of a moment ago."""
        newest = None if before is None else self._state.records.get(before)
        if before is not None and (newest is None or newest.id != before):
            return []
        found = []
        for job in reversed(self._state.runs.live.values()):
            run = job.run
            if run.state != state or (uid is not None and run.uid != uid):
                continue
            if newest is not None and run.created >= newest.created:
                continue
            if all(
                name in run.labels and value in (None, run.labels[name]) for name, value in labels
            ):
                found.append(run)
        return found


def _within(runs: "list[wire.Run]", size: int, limit: int) -> "tuple[list[wire.Run], bool]":
    """So many of the runs as have so many bytes of JSON, and whether there may be more."""
    for at, run in enumerate(runs, 1):
        size -= len(_encode(run))
        if size < 0:
            return runs[:at], True
    return runs, len(runs) == limit


def _with_output(job: Job) -> wire.Run:
    """The record with what the daemon kept of the run's output."""
    run = msgspec.structs.replace(job.run)
    spec = job.prepared.spec
    if spec.stdout is None:
        run.stdout, run.stdout_base64 = as_text(job.output[0])
    if spec.stderr is None:
        run.stderr, run.stderr_base64 = as_text(job.output[1])
    return run


def _stats(run: wire.Run, job: Job | None) -> wire.Stats:
    stats = wire.Stats(id=run.id, state=run.state, quotas=run.quotas)
    if job is None:
        if run.outcome is not None:
            usage = run.outcome.usage
            stats.cpu_ns = usage.cpu_user_ns + usage.cpu_system_ns
            stats.wall_ns, stats.rss, stats.output = usage.wall_ns, usage.max_rss, usage.output
        return stats
    running = job.running
    if running is not None:
        stats.wall_ns = time.monotonic_ns() - running.launched
        stats.output = running.output()
        stats.cpu_ns, stats.rss = _process(running.pid)
    return stats


def _process(pid: int) -> "tuple[int, int]":
    """Processor time (ns) and resident memory (bytes) of a process (proc_pid_stat(5))."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0, 0
    tick = 10**9 // os.sysconf("SC_CLK_TCK")
    return (int(fields[11]) + int(fields[12])) * tick, int(fields[21]) * os.sysconf("SC_PAGESIZE")


def _label(text: str) -> "tuple[str, str | None]":
    name, equals, value = text.partition("=")
    return name, value if equals else None


def _json(status: int, value: Any, *headers: "tuple[str, str]") -> Response:
    return Response(status, _encode(value), headers=headers)
