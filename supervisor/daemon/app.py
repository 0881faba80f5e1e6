"""`wasisup daemon`: from a configuration to a running supervisor, and to its end."""

import asyncio
import contextlib
import errno
import fcntl
import gc
import os
import resource
import signal
import socket as sockets
import sys
import time
from datetime import UTC, datetime
from typing import Any

from .. import cgroups, logs, wire
from ..core import Core
from ..errors import ConfigError, SetupError, UsageError, WasisupError
from ..listening import open_socket
from ..notify import Notifier, listen_fds
from . import config as configs
from .api import Api
from .catalogue import Catalogue
from .config import Config
from .recovery import recover
from .runs import NOTE_SECONDS
from .server import Server
from .state import State

log = logs.logger()

UPKEEP_SECONDS = 60.0
# Of the write-ahead log; a run writes 16 KiB of it.
_MOST_LOG_BYTES = 32 << 20
# New objects until circles are looked for: some dozen runs at once are more than Python's own 700,
# and leave no circles behind.
_NEW_OBJECTS = 10_000
# What a stop takes beyond the drain: killing, recording, closing.
_STOP_SECONDS = 10.0
_STATUS_SECONDS = 5.0
_ANSWER_SECONDS = 2.0


def main(socket: str | None = None, config: str | None = None, check: bool = False) -> int:
    """Runs the daemon until it is told to stop; with `check`, only checks the configuration.

    socket: where to listen, in place of the configuration's; LISTEN_FDS wins over both.
    Raises ConfigError for a configuration that is wrong, SetupError when it cannot start.
    """
    loaded = configs.load(config)
    if check:
        return _check(loaded)
    logs.configure(loaded.log.format, loaded.log.level)
    listeners = [sockets.socket(fileno=fd) for fd, _ in listen_fds()]
    with contextlib.ExitStack() as held:
        where = "an inherited socket"
        if not listeners:
            where = loaded.socket if socket is None else socket
            listeners = _listen(loaded, where)
            held.callback(_remove, where, os.stat(where))
        for listener in listeners:
            held.callback(listener.close)
        held.enter_context(_only_one(loaded))
        _raise_descriptor_limit()
        os.umask(0o077)
        # Before there is any child, which would be in the way.
        delegation = cgroups.delegate()
        if delegation is not None:
            held.callback(delegation.leave)
            delegation.clear()
        asyncio.run(Daemon(loaded, config, delegation, where=where).run(listeners))
    return 0


class Daemon:
    """A daemon's life.

    core: what stands in for the real one, in tests.  where: what it listens on, for people.
    """

    def __init__(
        self,
        config: Config,
        config_path: str | None,
        delegation: cgroups.Delegation | None,
        core: Any = None,
        *,
        where: str,
    ) -> None:
        self._where = where
        self._config_path = config_path
        self._delegation = delegation
        self._core = Core(self._zygote_lost) if core is None else core
        self._config = config
        self._notifier = Notifier()
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._trouble = ""  # of the last reload, for `systemctl status`
        self.state: State | None = None
        self.ready = asyncio.Event()

    async def run(self, listeners: list[sockets.socket]) -> None:
        """Serves until `stop`.  The listeners stay the caller's.  Raises SetupError."""
        state = self.state = State(self._config, self._core, self._delegation)
        for problem in (*self._config.warnings, *state.catalogue.problems):
            log.warning("configuration", problem=problem)
        found = recover(state.records, state.log_folder)
        state.modules.remove_strays()
        api = Api(state)
        server = Server(api.handle, api.table.limit_of, state.budgets)
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._core.start()
            self._watch_signals()
            for listener in listeners:
                server.listen(listener)
            tasks = [asyncio.create_task(one) for one in (self._note(), self._keep_up())]
            if self._notifier.watchdog_seconds is not None:
                tasks.append(asyncio.create_task(self._feed_watchdog()))
            # What is there now stays: no need to look through it again and again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(_NEW_OBJECTS)
            self._notifier.ready(f"serving {self._where}")
            log.info("serving", socket=self._where, engine=self._core.release, recovered=found)
            self.ready.set()
            await self._stop.wait()
            await self._drain(state, server)
        finally:
            for task in tasks:
                task.cancel()
            server.close()
            await state.close()
            log.info("stopped")

    def stop(self) -> None:
        """Ends the daemon in good order; the second time, without waiting for runs."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def reload(self) -> None:
        """Reads configuration and policies again; what is wrong stays as it was, and is told."""
        state = self.state
        assert state is not None
        self._notifier.reloading()
        status = "reloaded"
        try:
            new = configs.load(self._config_path)
            for key in state.config.needs_restart(new):
                log.warning("a change that needs a restart", key=key)
            state.reconfigure(new)
            logs.configure(new.log.format, new.log.level)
        except (UsageError, OSError) as error:
            words = error.message if isinstance(error, WasisupError) else str(error)
            log.error("the configuration stays as it was", why=words)
            status = f"reload failed, the old configuration stays: {words}"
        state.catalogue.reload()
        for problem in state.catalogue.problems:
            log.error("a policy stays as it was", why=problem)
            status = f"reload failed, an old policy stays: {problem}"
        log.info("reloaded", status=status)
        self._trouble = "" if status == "reloaded" else f"; {status}"
        if not self._trouble:
            state.events.publish(wire.Event(time=datetime.now(UTC), type="reloaded"))
        self._notifier.ready(status)

    async def _drain(self, state: State, server: Server) -> None:
        seconds = state.config.limits.drain / 1e9
        # Whoever comes now is answered: runs can be looked at, fed and killed, and none is taken.
        state.stopping = True
        state.events.publish(wire.Event(time=datetime.now(UTC), type="stopping"))
        self._notifier.stopping(
            f"waiting for {len(state.runs.live)} runs", extend_seconds=seconds + _STOP_SECONDS
        )
        log.info("stopping", runs=len(state.runs.live), seconds=seconds)
        await state.runs.drain(seconds, self._hurry)
        server.stop_listening()
        state.events.close()
        # Those who waited for the last runs are told now.
        await server.finish(_ANSWER_SECONDS)

    def _zygote_lost(self) -> None:
        if self.state is not None:
            self.state.metrics.zygote_restarts.inc()

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)

    async def _note(self) -> None:
        assert self.state is not None
        while True:
            await asyncio.sleep(NOTE_SECONDS)
            self.state.runs.note()

    async def _keep_up(self) -> None:
        """Retention, checkpoints, and a line for `systemctl status`."""
        state = self.state
        assert state is not None
        last = time.monotonic()
        while True:
            await asyncio.sleep(_STATUS_SECONDS)
            late = time.monotonic() - last >= UPKEEP_SECONDS
            much = state.records.log_bytes() + state.runs.kept_bytes > _MOST_LOG_BYTES
            if late or much or not state.runs.live:
                state.runs.kept_bytes = 0
                try:
                    await self._clean_up(state)
                except (WasisupError, OSError) as error:
                    log.error("the records could not be kept up", why=str(error))
                await asyncio.to_thread(_give_back_memory)
                last = time.monotonic()
            self._notifier.status(
                f"{state.admission.running} running, {state.admission.queued} queued{self._trouble}"
            )

    async def _clean_up(self, state: State) -> None:
        from . import output

        records = state.config.records
        more = True
        while more:
            done = await asyncio.to_thread(
                state.records.upkeep, records.keep, records.size, time.time_ns()
            )
            for run in done.removed:
                output.remove(state.log_folder, run)
            if done.error is not None:
                log.error("the records could not be kept up", why=str(done.error))
            more = done.more
        await asyncio.to_thread(self._core.prune, state.config.limits.cache)

    async def _feed_watchdog(self) -> None:
        seconds = self._notifier.watchdog_seconds
        assert seconds is not None
        while True:
            self._notifier.watchdog()
            await asyncio.sleep(seconds)


def _give_back_memory() -> None:
    """Gives freed memory to the kernel: tens of thousands of runs leave holes (malloc_trim(3))."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    if trim is not None:
        trim(0)


def _check(config: Config) -> int:
    where = config.path or "no file, the defaults"
    problems = Catalogue().problems
    for warning in config.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    print(f"{where}: {'good' if not problems else 'good, but for policies'}")
    return 1 if problems else 0


def _listen(config: Config, where: str) -> list[sockets.socket]:
    try:
        return [open_socket(where, config.socket_mode, config.socket_gid)]
    except OSError as error:
        raise _no_socket(where, error) from error


def _no_socket(where: str, error: OSError) -> WasisupError:
    if error.errno == errno.EADDRINUSE:
        return SetupError(
            f"{where}: another daemon answers there",
            "one is enough; --socket names another place",
            step="listen",
            errno=errno.EADDRINUSE,
        )
    if "too long" in str(error):
        return ConfigError(f"{where}: a socket's path has at most 107 bytes", "--socket PATH")
    return SetupError(
        f"{where}: {error.strerror}",
        "--socket PATH, or the key `socket` of the configuration, names another place",
        step="listen",
        errno=error.errno or 0,
    )


def _remove(where: str, made: os.stat_result) -> None:
    """Removes the socket that this daemon made, unless another has taken its place."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.stat(where), made):
            os.unlink(where)


@contextlib.contextmanager
def _only_one(config: Config) -> Any:
    """Holds the lock of the state directory: two daemons would recover each other's runs."""
    try:
        os.makedirs(config.state, 0o700, exist_ok=True)
        fd = os.open(f"{config.state}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SetupError(
            f"{config.state} cannot be used: {error.strerror}",
            "the key `state` of the configuration names another place",
            step="state",
            errno=error.errno or 0,
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise SetupError(
            f"{config.state} is another daemon's",
            "each daemon needs a state directory of its own: the key `state`",
            step="state",
        ) from None
    try:
        yield
    finally:
        os.close(fd)


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
