"""The life of every run: admitted, recorded, launched, waited for, judged, recorded again.

A run is in the records before it starts, and its end is there before anybody is told of it.
"""

import asyncio
import signal
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import logs, wire
from ..alarm import Alarm
from ..child import Ended
from ..errors import SetupError, WasisupError
from ..launch import limit_group, most_memory, timings, was_rejected
from ..model import Outcome, RunRequest, Usage
from ..verdict import judge
from . import net, output
from .admission import Admission, Full, NeverFits, Stopped
from .events import Hub
from .failures import HttpError
from .intake import Prepared
from .job import Job
from .metrics import Metrics
from .modules import ModuleStore
from .output import Kept
from .records import Records, RecordsError
from .recovery import boot_id, start_ticks
from .shapes import outcome_of, outcome_of_error, record_of

if TYPE_CHECKING:
    import resource

    from ..cgroups import Delegation
    from ..model import RunRecord
    from .admission import Ticket

log = logs.logger()

# Runs older than this are noted with their process, so that the next daemon can end what is left.
NOTE_SECONDS = 0.1
# How long a run's log entry may wait for a launch, behind which it costs nobody time.
CATCH_UP_SECONDS = 0.003
# How long the ends of killed runs are waited for.
KILL_SECONDS = 5.0


class Runs:
    """All runs that are alive.  folder: where detached runs' output goes.

    core: core.Core, or what stands in for it.  delegation: None without control groups.
    """

    def __init__(
        self,
        *,
        core: Any,
        records: Records,
        admission: Admission,
        modules: ModuleStore,
        events: Hub,
        metrics: Metrics,
        folder: str,
        delegation: "Delegation | None",
    ) -> None:
        self._core = core
        self._records = records
        self._admission = admission
        self._modules = modules
        self._events = events
        self._metrics = metrics
        self._folder = folder
        self._delegation = delegation
        self._unsaved: dict[str, tuple[wire.Run, tuple[bytes, bytes] | None, int]] = {}
        self.kept_bytes = 0  # of output since the last upkeep; its to reset
        self._failing = False  # the records cannot be written, and the log has it
        self._boot_id = boot_id()
        self._background: set[asyncio.Task[None]] = set()
        self._left: list[tuple[wire.Run, wire.Outcome]] = []  # to be counted and logged
        self._catch_up_soon = Alarm(self.catch_up)
        self.live: dict[str, Job] = {}

    # --- beginning ---

    def submit(self, prepared: Prepared) -> Job:
        """Admits and records a run, which starts as soon as there is room.

        `prepared` is taken over.  Raises HttpError.
        """
        spec, request = prepared.spec, prepared.request
        job = None
        try:
            run = record_of(prepared)
            kept = [
                stream
                for stream, given in (("stdout", spec.stdout), ("stderr", spec.stderr))
                if given is None
            ]
            files = not spec.wait
            job = Job(
                run,
                prepared,
                Kept(self._folder, run.id, kept, files=files),  # type: ignore[arg-type]
                wanted=spec.wait,
            )
            self._admit(job, request)
        except OSError as error:
            _drop(job, prepared, self._folder)
            raise HttpError(507, f"no room for the run: {error.strerror}") from error
        except BaseException:
            _drop(job, prepared, self._folder)
            raise
        self.live[run.id] = job
        if job.admitted:
            self._start(job)
        else:
            self._tell(job.run, "queued")
        return job

    def _admit(self, job: Job, request: RunRequest) -> None:
        access = job.prepared.access
        share = min(access.memory, self._admission.memory)
        memory = most_memory(request)
        try:
            job.ticket = self._admission.enqueue(
                job.run.uid,
                share if memory is None else memory,
                access.runs,
                access.queued,
                partial(self._admitted, job),
                share=access.memory,
            )
        except Full as full:
            raise HttpError(429, full.message, full.hint, retry_after=full.retry_after) from full
        except NeverFits as error:
            raise HttpError(422, f"quotas.memory: {error.message}", error.hint) from error
        except Stopped as error:
            raise HttpError(503, error.message, error.hint, code="stopping") from error
        try:
            self._records.begin(job.run)
        except BaseException as error:
            if job.admitted:
                self._admission.finished(job.ticket)
            else:
                self._admission.cancel(job.ticket)
            if not isinstance(error, RecordsError):
                raise
            raise HttpError(507, error.message, error.hint) from error
        job.recorded = True

    def _admitted(self, job: Job) -> None:
        job.admitted = True
        if job.recorded:
            self._start(job)

    def _start(self, job: Job) -> None:
        self._metrics.queued(time.monotonic_ns() - job.created_ns)
        self._go_on(job)

    def _go_on(self, job: Job) -> None:
        job.task = asyncio.get_running_loop().create_task(self._go(job))
        job.task.add_done_callback(partial(self._gone, job))

    def _gone(self, job: Job, task: "asyncio.Task[None]") -> None:
        """Only `kill` cancels, perhaps before the first step of `_go` could catch anything."""
        if task.cancelled():
            self._finish(job, _killed(job))

    async def _go(self, job: Job) -> None:
        try:
            await self._launch(job)
        except WasisupError as error:
            self._finish(job, outcome_of_error(error))
        except OSError as error:
            failed = SetupError(f"the run cannot be started: {error.strerror}", step="start")
            self._finish(job, outcome_of_error(failed))
        except Exception as error:
            log.exception("a run could not be started", run=job.id)
            failed = SetupError(f"internal error: {type(error).__name__}", step="start")
            self._finish(job, outcome_of_error(failed))

    async def _launch(self, job: Job) -> None:
        prepared, request = job.prepared, job.prepared.request
        fuel = request.quotas.fuel is not None
        module = prepared.module
        for _ in range(3):
            if not self._core.compiled(module.digest, request.engine, fuel=fuel):
                job.run.state = "starting"
                self._tell(job.run, "starting")
                await self._modules.ensure_compiled(module, request.engine, fuel=fuel)
            if self._delegation is not None and job.group is None:
                job.group = self._delegation.make(job.id)
            try:
                asks_net = bool(request.net) or request.net_host
                if asks_net or job.group is not None or request.quotas.cpus is not None:
                    component = self._core.is_component(module.digest, request.engine, fuel=fuel)
                    if asks_net:
                        await net.prepare(prepared, component=component)
                    limit_group(job.group, request, component=component)
                running = await self._core.launch(
                    job.within_kept(),
                    module.digest,
                    streams=job.streams(),
                    opened=prepared.opened,
                    caller=prepared.caller,
                    umask=prepared.spec.umask,
                    cgroup=None if job.group is None else job.group.fd,
                    ended=partial(self._ended, job),
                )
            except KeyError:
                continue  # pruned since we looked
            job.run.started = datetime.now(UTC)
            job.begin(running, request.quotas.timeout)
            self._tell(job.run, "running")
            if self._left:
                asyncio.get_running_loop().call_soon(self.catch_up)
            return
        raise SetupError("the compile cache does not keep what is stored", step="compile")

    # --- ending ---

    def _ended(
        self, job: Job, status: int, usage: "resource.struct_rusage", record: "RunRecord"
    ) -> None:
        """The worker has been reaped."""
        assert job.running is not None
        launched = job.running.launched
        wall = time.monotonic_ns() - launched
        job.finish()
        if job.attempt == 1 and job.cause is None and self._is_to_repeat(job, status, record):
            job.attempt = 2
            self._go_on(job)
            return
        request = job.prepared.request
        group = job.group
        try:
            judged = judge(
                Ended(status, usage, job.cause, wall),
                record,
                request.quotas,
                out_of_memory=group is not None and group.oom_kills() > 0,
                name_of=self._core.name_of,
            )
        except WasisupError as error:
            self._finish(job, outcome_of_error(error))
            return
        judged.timings = timings(job.created_ns, launched, record)
        judged.timings["total"] = time.monotonic_ns() - job.created_ns
        outcome = outcome_of(judged)
        # The worker's own word, which is to be no more than it could be.
        outcome.usage.output = min(outcome.usage.output, request.quotas.output or 1 << 62)
        outcome.usage.cgroup_memory_peak = None if group is None else group.memory_peak()
        if outcome.reason == "killed" and job.cause is not None:
            outcome.message = outcome.message or job.why
            outcome.interrupted = job.interrupted
        self._finish(job, outcome)

    def _is_to_repeat(self, job: Job, status: int, record: "RunRecord") -> bool:
        # One that was seen running has run, whatever its record says now: that is the worker's to
        # write.  And what it was launched with is closed: others have those numbers.
        if job.noted:
            return False
        request = job.prepared.request
        digest, fuel = job.prepared.module.digest, request.quotas.fuel is not None
        pruned = (
            record.outcome == "setup"
            and record.running_ns == 0
            and self._core.has_gone(digest, request.engine, fuel=fuel)
        )
        if was_rejected(status, record) or pruned:
            self._core.reject(digest, request.engine, fuel=fuel)
            return True
        return False

    def _finish(self, job: Job, outcome: wire.Outcome) -> None:
        """Records the end and lets go of everything; the rest of it when its output is large."""
        job.run.ended = datetime.now(UTC)
        if job.group is not None:
            job.group.close()
            job.group = None
        job.prepared.close()
        if job.connection is not None:
            job.connection()
            job.connection = None
        size = job.kept.size()
        if size > output.SMALL and not job.kept.in_files:
            task = asyncio.get_running_loop().create_task(self._keep_large(job, outcome))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
        else:
            self._record_end(job, outcome, size)

    async def _keep_large(self, job: Job, outcome: wire.Outcome) -> None:
        try:
            await asyncio.to_thread(job.kept.to_files)
        except OSError as error:
            log.error("output could not be kept", run=job.id, why=str(error))
            output.remove(self._folder, job.id)
            self._record_end(job, outcome, job.kept.size(), lost=True)
        else:
            self._record_end(job, outcome, job.kept.size())

    def _record_end(
        self, job: Job, outcome: wire.Outcome, size: int, *, lost: bool = False
    ) -> None:
        """Records the end.  size: bytes of output; lost: that only the one who waits gets."""
        run, kept = job.run, job.kept
        most = job.prepared.request.quotas.output or size
        if job.wanted or size <= output.SMALL:
            job.output = kept.whole("stdout", most), kept.whole("stderr", most)
        small = job.output if size <= output.SMALL else None
        in_files = 0 if small is not None or lost else size
        run.state, run.outcome, run.stopped = "ended", outcome, False
        self.kept_bytes += size
        try:
            self._records.end(run, small, in_files)
        except RecordsError as error:
            # Tried again until there is room; whoever asks meanwhile gets it from here.
            log.error("the end of a run could not be recorded", run=run.id, why=error.message)
            self._unsaved[run.id] = (run, small, in_files)
        else:
            if small is not None and kept.in_files:
                output.remove(self._folder, run.id)
        del self.live[run.id]
        if job.ticket is not None:
            self._admission.finished(job.ticket)
            job.ticket = None  # which knows the job: no circle that has to be looked for
        job.tell_end()
        self._tell(run, "ended", reason=outcome.reason, status=outcome.status)
        # Once those who wait have their answer: theirs is the next turn.
        asyncio.get_running_loop().call_soon(self._let_go, kept)
        self._left.append((run, outcome))
        if not self._catch_up_soon.is_set:
            self._catch_up_soon.set(CATCH_UP_SECONDS)

    def _let_go(self, kept: Kept) -> None:
        """Makes ready for the next run, and lets go of a run's output."""
        self._core.prepare()
        kept.close()

    def catch_up(self) -> None:
        """Counts and logs what has ended: when a worker has just been launched, or in a moment.

        Right after an answer whoever got it asks for the next run, and would wait.
        """
        self._catch_up_soon.clear()
        left, self._left = self._left, []
        for run, outcome in left:
            self._account(run, outcome)

    def _account(self, run: wire.Run, outcome: wire.Outcome) -> None:
        usage = outcome.usage
        self._metrics.ended(
            outcome.reason,
            run.policy,
            wall_ns=usage.wall_ns,
            cpu_ns=usage.cpu_user_ns + usage.cpu_system_ns,
            output=usage.output,
        )
        log.info(
            "run ended",
            run=run.id,
            uid=run.uid,
            policy=run.policy,
            module=run.module,
            reason=outcome.reason,
            status=outcome.status,
            denials=len(outcome.denials),
        )

    def _tell(self, run: wire.Run, kind: str, **more: Any) -> None:
        if self._events.heard:
            self._events.publish(
                wire.Event(
                    time=datetime.now(UTC),
                    type=kind,
                    run=run.id,
                    uid=run.uid,
                    policy=run.policy,
                    module=run.module,
                    labels=run.labels,
                    **more,
                )
            )

    # --- what is done to runs ---

    def kill(self, job: Job, number: int, why: str = "", *, interrupted: bool = False) -> None:
        """Ends a run with a signal's number as the cause, wherever it is in its life."""
        job.interrupted = job.interrupted or interrupted
        job.kill(number, why)
        if job.running is not None or job.run.state == "ended":
            return
        if job.task is not None:
            job.task.cancel()
        elif job.ticket is not None and not job.admitted:
            self._admission.cancel(job.ticket)
            job.ticket = None
            self._finish(job, _killed(job))

    def send(self, job: Job, name: str) -> None:
        """Sends a signal by name, as wire.SignalRequest explains it."""
        self._tell(job.run, "signal", signal=name)
        if name in ("STOP", "TSTP", "TTIN", "TTOU"):
            job.stop()
        elif name == "CONT":
            job.go_on()
        else:
            self.kill(job, signal.Signals[f"SIG{name}"])

    # --- what goes on beside them ---

    def note(self) -> None:
        """Every NOTE_SECONDS: notes who runs, and closes what only a launch needs."""
        rows = []
        for job in self.live.values():
            running = job.running
            if job.noted or running is None or not running.is_under_way():
                continue
            job.noted = True
            job.prepared.close_after_launch()
            ticks = start_ticks(running.pid)
            if ticks is not None:
                rows.append((job.id, running.pid, ticks, self._boot_id))
        try:
            if rows:
                self._records.started(rows)
            for run, small, size in list(self._unsaved.values()):
                self._records.end(run, small, size)
                del self._unsaved[run.id]
                if small is not None:
                    output.remove(self._folder, run.id)
        except RecordsError as error:
            if not self._failing:
                log.error("the records cannot be written", why=error.message)
            self._failing = True
        else:
            self._failing = False

    def unsaved(self, run: str) -> "wire.Run | None":
        """A run that has ended and is not recorded as such yet."""
        found = self._unsaved.get(run)
        return None if found is None else found[0]

    def drop(self, ticket: "Ticket") -> None:
        """Ends a waiting run that can never start: a reload left it no room."""
        for job in [job for job in self.live.values() if job.ticket is ticket]:
            job.ticket = None
            error = SetupError("it asks for more memory than there is to promise since a reload")
            self._finish(job, outcome_of_error(error))

    async def drain(self, seconds: float, hurry: asyncio.Event) -> None:
        """Lets nothing start any more, waits for what runs, and kills what is left.

        hurry: when it is set, there is no more waiting.
        """
        for ticket in self._admission.stop():
            for job in [job for job in self.live.values() if job.ticket is ticket]:
                job.ticket = None
                job.kill(signal.SIGTERM, "the daemon stopped before it was started")
                job.interrupted = True
                self._finish(job, _killed(job))
        hurried = asyncio.ensure_future(hurry.wait())
        over = asyncio.ensure_future(self._all_ended())
        await asyncio.wait([over, hurried], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        for job in list(self.live.values()):
            self.kill(job, signal.SIGTERM, "the daemon stopped", interrupted=True)
        # A file system that does not answer can hold a killed worker: the next daemon marks it.
        await asyncio.wait([over], timeout=KILL_SECONDS)
        over.cancel()
        for job in self.live.values():
            log.error("a run does not end although it was killed", run=job.id, uid=job.run.uid)
        self.note()  # the last try for ends that found no room

    async def _all_ended(self) -> None:
        for job in list(self.live.values()):
            await job.ended()
        while self._background:
            await asyncio.wait(self._background)


def _killed(job: Job) -> wire.Outcome:
    """The outcome of a run that was ended before it had a worker."""
    number = job.cause if isinstance(job.cause, int) else signal.SIGKILL
    made = outcome_of(
        Outcome(reason="killed", status=128 + number, signal=int(number), usage=Usage())
    )
    made.message, made.interrupted = job.why, job.interrupted
    return made


def _drop(job: "Job | None", prepared: Prepared, folder: str) -> None:
    prepared.close()
    if job is not None:
        job.kept.close()
        if job.kept.in_files:
            output.remove(folder, job.id)
