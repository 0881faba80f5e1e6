"""The server's life: what is opened, whom it becomes, serving, and a stop in good order."""

import asyncio
import contextlib
import copy
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ...policies.network import format_net
from .. import cgroups, grants, logs, network, reach
from ..core import Core, Source, check_reachable, take
from ..errors import SetupError, UsageError, WasisupError
from ..launch import Opened
from ..model import Outcome, RunRequest
from ..notify import Notifier
from . import component, identity, listen
from .exchange import Exchange
from .gate import Gate
from .http import Connection
from .messages import Request

if TYPE_CHECKING:
    from ..core import Ended, Running
    from .listen import Listener

log = logs.logger()

# What an exchange has open besides its connection: two ends each of stdin and what it waits for,
# the worker, its record, the copy of the artifact during the launch, a control group.
_FDS_OF_AN_EXCHANGE = 10
# With a network also: its broker, that one's record, the worker's ends to it and to the resolver,
# and the resolver's own.
_FDS_OF_A_BROKER = 5
_FDS_OF_ITS_OWN = 64
# The brokers' zygote, and as many look-ups as there are at once (brokers.py), with a socket and a
# file each.
_FDS_OF_NETWORKS = 80
_MOST_CONNECTIONS = 20_000
_SWEEP_SECONDS = 1.0
_KILL_SECONDS = 5.0
_FAREWELL_SECONDS = 3.0
_NEW_OBJECTS = 10_000  # as in daemon/app.py: answers leave no circles behind


class Settings:
    """How to serve.

    listen: addresses; sockets of a service manager win over them.  concurrency, queue: requests
    answered at once, and waiting for that.  max_body, max_header: bytes.  grace: seconds for what
    runs at a stop.  queue_seconds: that a request waits at the longest.  user: whom root becomes.
    log: logs.Format.
    """

    __slots__ = (
        "concurrency",
        "grace",
        "listen",
        "log",
        "max_body",
        "max_header",
        "queue",
        "queue_seconds",
        "user",
    )

    def __init__(
        self,
        *,
        listen: Sequence[str],
        concurrency: int,
        queue: int,
        queue_seconds: float,
        max_body: int | None,
        max_header: int,
        grace: float,
        user: str | None,
        log: "logs.Format",
    ) -> None:
        self.listen = listen
        self.concurrency = concurrency
        self.queue = queue
        self.queue_seconds = queue_seconds
        self.max_body = max_body
        self.max_header = max_header
        self.grace = grace
        self.user = user
        self.log: logs.Format = log


def main(request: RunRequest, settings: Settings, software: str) -> int:
    """Serves `request.module` until it is told to stop; the exit status.

    Raises UsageError, ModuleNotFound, InvalidModule, SetupError, WallMissing before it serves.
    """
    if request.listens:
        raise UsageError(
            "--tcplisten: the server listens, its guests do not",
            "leave it out of the policy, too; --listen says where the server listens",
        )
    logs.configure(settings.log)
    with contextlib.ExitStack() as held:
        listeners = listen.inherited()
        if not listeners:
            for text in settings.listen:
                listen.parse(text)  # all of them, before any is made
            for text in settings.listen:
                for listener in listen.open_listeners(text):
                    held.callback(listener.close)
                    listeners.append(listener)
        module = grants.open_module(request.module)
        held.callback(os.close, module)
        component.check(module, request.module)
        source = take(module, lambda: None)
        held.callback(source.close)
        become = identity.find(settings.user)
        if become is not None:
            identity.become(become)
            check_reachable(become.name)
            log.info("no longer root", user=become.name, groups=identity.group_names(become))
        connections = _raise_limits(settings.concurrency, request)
        opened = _open_grants(request, held)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        held.callback(os.close, nothing)
        delegation = cgroups.delegate()  # before there is any child, which would be in the way
        if delegation is not None:
            held.callback(delegation.leave)
            delegation.clear()
        server = Server(
            request,
            settings,
            source=source,
            opened=opened,
            nothing=nothing,
            software=software,
            most_connections=connections,
            delegation=delegation,
        )
        asyncio.run(server.run(listeners))
    return 0


class Server:
    """What all connections and exchanges share.

    Descriptors stay the caller's.  core: what stands in for the real one, in tests.
    """

    def __init__(
        self,
        request: RunRequest,
        settings: Settings,
        *,
        source: Source,
        opened: Opened,
        nothing: int,
        software: str,
        most_connections: int,
        delegation: "cgroups.Delegation | None",
        core: Any = None,
    ) -> None:
        self.request = request
        self.software = software
        self.nothing = nothing
        self.delegation = delegation
        self.queue_seconds = settings.queue_seconds
        self.max_header = settings.max_header
        self.max_headers = 128
        self.max_body = sys.maxsize if settings.max_body is None else settings.max_body
        self.gate = Gate(settings.concurrency, settings.queue)
        self.core = Core(lambda: None) if core is None else core
        self.loop: asyncio.AbstractEventLoop
        self.connections: set[Connection] = set()
        self.exchanges: set[Exchange] = set()
        self.stopping = False
        self.component = False  # once it is compiled: whether it is one
        self._settings = settings
        self._source = source
        self._opened = opened
        self._most_connections = most_connections
        self._own = identity.own()
        self._fuel = request.quotas.fuel is not None
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._env = dict(request.env)
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._none_left = asyncio.Event()
        self._notifier = Notifier()

    async def run(self, listeners: "Sequence[Listener]") -> None:
        """Serves until `stop`, and closes the listeners.

        Raises WasisupError when it cannot begin.
        """
        self.loop = asyncio.get_running_loop()
        servers: list[asyncio.Server] = []
        try:
            await self.core.start()
            reach.check(
                self._opened.directories,
                self.core.cache_roots(),
                accept="cache" in self.request.allow_missing,
            )
            await self.compile()
            await self._check_network()
            self._watch_signals()
            for listener in listeners:
                servers.append(await self._listen(listener))
            gc.collect()
            gc.freeze()
            gc.set_threshold(_NEW_OBJECTS)
            self.core.prepare()
            places = [listener.where for listener in listeners]
            for place in places:
                _say(f"serving {self.request.module} at {place}")
            self._notifier.ready(f"serving {', '.join(places)}")
            log.info("serving", module=self.request.module, digest=self._source.digest, at=places)
            sweep = asyncio.create_task(self._sweep())
            await self._stop.wait()
            for listener in listeners:
                listener.close()
            await self._finish(servers)
            sweep.cancel()
        finally:
            for one in servers:
                one.close()
            await self._end_all()
            await self.core.close()
            log.info("stopped", dropped_lines=logs.dropped())

    async def _check_network(self) -> None:
        """Tries once what each request will need of the network: a broker, and names that resolve.

        Each launch resolves them anew, so a name's addresses may change while this serves.  Raises
        UsageError, SetupError, WallMissing.
        """
        request = self.request
        if not request.net and not request.net_host:
            return
        if self.component:
            await self.core.try_network(request, self._own)
            return
        for grant in request.net:
            if network.as_listener(grant) is not None:
                raise UsageError(
                    f"--net {format_net(grant)}: the server listens, the modules it serves do not",
                    "leave it out, of the policy, too; only a component could listen by itself",
                )
        log.warning(
            "a module of WASI preview 1 cannot use --net: only components connect",
            module=request.module,
            net=network.useless(request),
        )

    async def _listen(self, listener: "Listener") -> asyncio.Server:
        sock = listener.sock.dup()  # the loop closes what it is given
        sock.setblocking(False)

        def connected() -> Connection:
            return Connection(self, listener.place)

        if listener.place.port == 0:
            return await self.loop.create_unix_server(connected, sock=sock, backlog=1024)
        return await self.loop.create_server(connected, sock=sock, backlog=1024)

    def _watch_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self.loop.add_signal_handler(number, self.stop)

    def stop(self) -> None:
        """Ends it in good order; the second time, without waiting for what runs."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = self.loop.time()
            for connection in [*self.connections]:
                connection.sweep(now)

    async def _finish(self, servers: "Sequence[asyncio.Server]") -> None:
        """No more requests; those that are answered get their time."""
        self.stopping = True
        for server in servers:
            server.close()
        grace = self._settings.grace
        self._notifier.stopping(
            f"waiting for {len(self.exchanges)} requests",
            extend_seconds=grace + _KILL_SECONDS + _FAREWELL_SECONDS,
        )
        log.info("stopping", requests=len(self.exchanges), seconds=grace)
        for connection in [*self.connections]:
            connection.close_when_idle()
        await self._wait(lambda: bool(self.exchanges), grace, hurry=True)

    async def _end_all(self) -> None:
        """Kills what is left; nothing stays behind, whatever happened."""
        self.stopping = True
        for exchange in [*self.exchanges]:
            exchange.stop()
        await self._wait(lambda: bool(self.exchanges), _KILL_SECONDS)
        for left in self.exchanges:
            log.error("a run does not end although it was killed", request=left.id)
        await self._wait(lambda: bool(self.connections), _FAREWELL_SECONDS, hurry=True)
        for connection in [*self.connections]:
            connection.cut()
        await asyncio.sleep(0)

    async def _wait(self, some: "Callable[[], bool]", seconds: float, hurry: bool = False) -> None:
        deadline = self.loop.time() + seconds
        while some() and self.loop.time() < deadline and not (hurry and self._hurry.is_set()):
            self._none_left.clear()
            waiter = asyncio.ensure_future(self._none_left.wait())
            hurried = asyncio.ensure_future(self._hurry.wait())
            events = [waiter, hurried] if hurry else [waiter]
            await asyncio.wait(
                events,
                timeout=deadline - self.loop.time(),
                return_when=asyncio.FIRST_COMPLETED,
            )
            waiter.cancel()
            hurried.cancel()

    # --- what connections and exchanges need ---

    def answerer(self, connection: Connection, request: Request) -> Exchange:
        """Who answers `request`."""
        return Exchange(self, connection, request)

    def is_full(self) -> bool:
        """Whether a new request would be turned away."""
        return self.gate.waiting > 0 and self.gate.waiting >= self._settings.queue

    def has_room(self) -> bool:
        """Whether one more connection is taken."""
        return len(self.connections) < self._most_connections

    def finished(self) -> None:
        """An exchange, or a connection, is over."""
        self._none_left.set()

    async def compile(self) -> None:
        """Compiles the module unless it is compiled.  Raises InvalidModule, SetupError."""
        name = os.path.basename(self.request.module)
        await self.core.compile(self._source, name, self.request.engine, self._own, fuel=self._fuel)
        found: bool = self.core.is_component(
            self._source.digest, self.request.engine, fuel=self._fuel
        )
        self.component = found

    async def launch(
        self,
        env: dict[str, str],
        *,
        streams: "Sequence[int | None]",
        cgroup: int | None,
        ended: "Ended",
    ) -> "Running":
        """Launches a worker; what the operator gave with --env is not the client's to change.

        Raises what Core.launch does, but for KeyError.
        """
        request = copy.copy(self.request)
        request.env = [*{**env, **self._env}.items()]
        for _ in range(2):
            try:
                running: Running = await self.core.launch(
                    request,
                    self._source.digest,
                    streams=streams,
                    opened=self._opened,
                    caller=self._own,
                    umask=self._umask,
                    cgroup=cgroup,
                    ended=ended,
                )
            except KeyError:  # pruned since
                await self.compile()
            else:
                return running
        raise SetupError("the compile cache does not keep what is stored", step="compile")

    def has_gone(self) -> bool:
        """Whether the compiled module was pruned from the cache."""
        gone: bool = self.core.has_gone(self._source.digest, self.request.engine, fuel=self._fuel)
        return gone

    def reject(self) -> None:
        """Drops the compiled module: the next launch compiles."""
        self.core.reject(self._source.digest, self.request.engine, fuel=self._fuel)

    @staticmethod
    def failed(error: WasisupError) -> Outcome:
        """The outcome of a run that never was."""
        return Outcome(reason="setup", status=error.exit_status, message=error.message)


def _open_grants(request: RunRequest, held: contextlib.ExitStack) -> Opened:
    grants.check_names(request)
    directories = []
    for grant in request.dirs:
        fd = grants.open_directory(grant)
        held.callback(os.close, fd)
        directories.append((grant, fd))
    return Opened(directories, [])


def _raise_limits(concurrency: int, request: RunRequest) -> int:
    """Takes all descriptors that there are; how many connections they are enough for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    own, each = _FDS_OF_ITS_OWN, _FDS_OF_AN_EXCHANGE
    if request.net or request.net_host:
        own, each = own + _FDS_OF_NETWORKS, each + _FDS_OF_A_BROKER
    left = hard - own - concurrency * each
    if left < concurrency:
        raise SetupError(
            f"{hard} descriptors are too few for {concurrency} requests at once",
            "ulimit -n raises them, --concurrency lowers what is needed",
            step="limits",
        )
    # Each may have a second one, that tells when its client has left.
    return min(left // 2, _MOST_CONNECTIONS)


def _say(line: str) -> None:
    """A line for whoever started it, and waits for that; the log has it as well."""
    if sys.stdout is not None:
        with contextlib.suppress(OSError, ValueError):
            print(line, flush=True)
