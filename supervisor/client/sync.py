"""Client: a daemon's API with blocking calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Generic, Self, TypeVar, Unpack

from .. import wire
from ..shapes import Chunk, Result, StrPath
from .api import Api, Reading, RunId
from .driver import Driver
from .options import ClientOptions, ModuleSource
from .pool import Pool

T = TypeVar("T")


class Stream(Generic[T]):
    """What comes piece by piece, for as long as there is more.

    The request goes out with the first piece, or at the `with`.  Leaving the `with`, or `close`,
    leaves the rest unread.
    """

    def __init__(self, driver: Driver, reading: Reading[T]) -> None:
        self._driver = driver
        self._reading = reading

    def __enter__(self) -> Self:
        self._driver.drive(self._reading.open())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        piece = self._driver.drive(self._reading.next())
        if piece is None:
            raise StopIteration
        return piece

    def close(self) -> None:
        """Closes the connection, unless all was read."""
        self._reading.close()


class Client:
    """A daemon's runs, modules and events.

    socket: its path; by default $WASISUP_SOCKET, or that of your own daemon if there is one, or
    /run/wasisup/wasisup.sock.  timeout: seconds that the daemon may be silent, in calls that do not
    wait for a run; None: for ever.

    One connection is kept between calls; a call that finds it busy makes another, so threads may
    share a client.  Where a call takes a run, its record will do, or its id, or the beginning of
    that.  Every call may raise ClientError: DaemonUnavailable, ClientTimeout, BadAnswer, or an
    ApiError, which says what the daemon has against it.
    """

    def __init__(self, socket: StrPath | None = None, timeout: float | None = None) -> None:
        self._api = Api(socket, timeout)
        self._driver = Driver()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the kept connection."""
        self._api.connections.close()

    @property
    def socket(self) -> str:
        """The socket's path."""
        return self._api.connections.path

    def run(
        self,
        module: ModuleSource,
        args: Iterable[str | bytes] = (),
        **options: Unpack[ClientOptions],
    ) -> Result:
        """Runs a module to its end; it is killed when this is interrupted.

        module: a path (opened here, with your rights), bytes, "sha256:..." or a ModuleInfo.
        options: `RunOptions` and `ClientOptions`.  Raises ModuleNotFound, InvalidModule or
        SetupError when the guest never ran; how it ended is in the result, see `Result.check`.
        """
        return self._driver.drive(self._api.run(module, args, **options))

    def start(
        self,
        module: ModuleSource,
        args: Iterable[str | bytes] = (),
        **options: Unpack[ClientOptions],
    ) -> wire.Run:
        """Starts a run that outlives this client, and returns its record.

        As `run`, but what keeps the guest from running is found in the record's outcome later on.
        stdin=PIPE keeps its stdin open for `write_stdin`.
        """
        return self._driver.drive(self._api.start(module, args, **options))

    def map(
        self,
        module: ModuleSource,
        inputs: Iterable[Any],
        args: Iterable[str | bytes] = (),
        *,
        max_workers: int | None = None,
        check: bool = False,
        **options: Unpack[ClientOptions],
    ) -> Iterator[Result]:
        """Runs a module once for each input; yields the results in the inputs' order.

        An input is stdin (text, bytes), or arguments (a list or tuple), or a `Job` with both.
        args: before those of each input.  At most `max_workers` (default: the processors) runs are
        under way, and inputs are taken as there is room.  The first error, and with `check` the
        first run that does not end with 0, is raised, and the runs under way are killed; so they
        are when the iterator is closed.
        """
        with Pool(module, args, client=self, max_workers=max_workers, **options) as pool:
            yield from pool.map(inputs, check=check)

    def runs(
        self,
        *,
        state: str | None = None,
        label: str | Iterable[str] = (),
        limit: int | None = None,
        before: RunId | None = None,
    ) -> list[wire.Run]:
        """Runs that you may see, the newest first.

        state: queued, starting, running or ended.  label: NAME or NAME=VALUE, or several that all
        have to fit.  limit: the daemon's default if None.  before: only older ones than this.
        """
        return self._driver.drive(self._api.runs(state, label, limit, before)).runs

    def get(self, run: RunId) -> wire.Run:
        """A run's record.  Raises NotFound."""
        return self._driver.drive(self._api.get(run))

    def wait(self, run: RunId, timeout: float | None = None) -> wire.Run:
        """The record once the run has ended, or as it is after `timeout` seconds."""
        return self._driver.drive(self._api.wait(run, timeout))

    def kill(self, run: RunId) -> wire.Run:
        """Kills a run; returns its record when it has ended.  Raises Conflict if it had before."""
        return self._driver.drive(self._api.kill(run))

    def signal(self, run: RunId, signal: str = "TERM") -> None:
        """Sends a signal: HUP INT QUIT TERM KILL end it, STOP halts it until CONT."""
        self._driver.drive(self._api.signal(run, signal))

    def logs(self, run: RunId, *, follow: bool = False, stream: str | None = None) -> Stream[Chunk]:
        """What a run wrote, both streams or one of them ("stdout", "stderr").

        follow: until it has ended.
        """
        return Stream(self._driver, self._api.logs(run, follow, stream))

    def write_stdin(self, run: RunId, data: bytes = b"", *, close: bool = False) -> None:
        """Writes to the stdin of a run that was started with stdin=PIPE; close: it was the last."""
        self._driver.drive(self._api.write_stdin(run, data, close))

    def events(
        self,
        *,
        run: RunId | None = None,
        type: str | None = None,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Stream[wire.Event]:
        """What happens from now on, to one run or of one type only if that is given.

        After `limit` events or `timeout` seconds it is over.
        """
        return Stream(self._driver, self._api.events(run, type, limit, timeout))

    def stats(self, run: RunId | None = None) -> list[wire.Stats]:
        """What live runs use now: those that you may see, or one."""
        return self._driver.drive(self._api.stats(run))

    def policies(self) -> list[wire.PolicyInfo]:
        """The policies that you may use."""
        return self._driver.drive(self._api.policies())

    def add_module(self, module: StrPath | bytes, name: str | None = None) -> wire.ModuleInfo:
        """Uploads a module and has it compiled, to be run by digest.  Raises InvalidRequest."""
        return self._driver.drive(self._api.add_module(module, name))

    def modules(self) -> list[wire.ModuleInfo]:
        """The modules that you may run by digest."""
        return self._driver.drive(self._api.modules())

    def module(self, digest: str | wire.ModuleInfo) -> wire.ModuleInfo:
        """One of them, by its digest.  Raises NotFound."""
        return self._driver.drive(self._api.module(digest))

    def remove_module(self, digest: str | wire.ModuleInfo) -> None:
        """Has the daemon forget one.  Raises NotFound."""
        self._driver.drive(self._api.remove_module(digest))

    def info(self) -> wire.Info:
        """What the daemon is, and what it lets you do."""
        return self._driver.drive(self._api.info())

    def health(self) -> wire.Health:
        """How the daemon is; "degraded" and "stopping" are no errors here."""
        return self._driver.drive(self._api.health())

    def metrics(self) -> str:
        """Its metrics as Prometheus reads them."""
        return self._driver.drive(self._api.metrics())
