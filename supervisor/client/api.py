"""Each request of the API as a generator of operations: what is sent, and what comes back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack
from urllib.parse import quote, urlencode

import msgspec

from .. import wire
from ..errors import BadAnswer, Busy, InvalidModule, ModuleNotFound
from ..shapes import Chunk, Result, StrPath
from . import failures, sockets
from .http import Answer, Connections, Request, Sleep, exchange
from .options import DIGEST, ClientOptions, ModuleSource, Prepared

if TYPE_CHECKING:
    from .http import Flow

T = TypeVar("T")
RunId = wire.Run | str
_ERROR = 400
# Seconds: the first wait of one who has to come back later and was not told when.
_PATIENCE = 0.1


class Api:
    """The daemon at one socket.

    timeout: seconds that the daemon may be silent, in requests that do not wait for a run.
    """

    def __init__(self, socket: StrPath | None, timeout: float | None) -> None:
        path = sockets.default() if socket is None else os.fspath(socket)
        self.connections = Connections(path)
        self.timeout = timeout

    # --- runs ---

    def run(
        self, module: ModuleSource, args: Iterable[str | bytes], **options: Unpack[ClientOptions]
    ) -> Flow[Result]:
        """Runs to the end; raises what the embedded supervisor raises when the guest never ran."""
        with Prepared(module, args, wait=True, **options) as prepared:
            run = yield from self._post_run(prepared, None)
        return result_of(run)

    def run_when_there_is_room(
        self, module: ModuleSource, args: Iterable[str | bytes], **options: Unpack[ClientOptions]
    ) -> Flow[Result]:
        """As `run`; comes back when a full daemon says so."""
        patience = _PATIENCE
        while True:
            try:
                return (yield from self.run(module, args, **options))
            except Busy as busy:
                yield Sleep(busy.retry_after or patience)
                patience = min(2 * patience, 5.0)

    def start(
        self, module: ModuleSource, args: Iterable[str | bytes], **options: Unpack[ClientOptions]
    ) -> Flow[wire.Run]:
        """Starts a detached run."""
        with Prepared(module, args, **options) as prepared:
            return (yield from self._post_run(prepared, self.timeout))

    def _post_run(self, prepared: Prepared, timeout: float | None) -> Flow[wire.Run]:
        request = Request("POST", "/v1/runs", prepared.body, fds=prepared.fds, timeout=timeout)
        return (yield from self._call(request, wire.Run))

    def runs(
        self,
        state: str | None,
        label: str | Iterable[str],
        limit: int | None,
        before: RunId | None,
    ) -> Flow[wire.RunList]:
        """A page of runs."""
        query = {
            "state": state,
            "label": [label] if isinstance(label, str) else list(label),
            "limit": limit,
            "before": None if before is None else id_of(before),
        }
        return (yield from self._get("/v1/runs", wire.RunList, query))

    def get(self, run: RunId) -> Flow[wire.Run]:
        """A run's record."""
        return (yield from self._get(_of_run(run), wire.Run))

    def wait(self, run: RunId, timeout: float | None) -> Flow[wire.Run]:
        """The record once it has ended, or as it is after `timeout` seconds."""
        target = _target(_of_run(run, "wait"), {"timeout": timeout})
        return (yield from self._call(Request("GET", target), wire.Run))

    def kill(self, run: RunId) -> Flow[wire.Run]:
        """Ends it."""
        request = Request("DELETE", _of_run(run), timeout=self.timeout)
        return (yield from self._call(request, wire.Run))

    def signal(self, run: RunId, signal: str) -> Flow[None]:
        """Sends it a signal."""
        body = msgspec.json.encode({"signal": signal.upper().removeprefix("SIG")})
        request = Request("POST", _of_run(run, "signal"), body, timeout=self.timeout)
        yield from _whole(self.connections, request)

    def write_stdin(self, run: RunId, data: bytes, close: bool) -> Flow[None]:
        """Writes to an open stdin; more than one request takes goes in several."""
        left = memoryview(data)
        while True:
            part, left = left[: wire.MAX_STDIN_BYTES], left[wire.MAX_STDIN_BYTES :]
            query = {"close": 1 if close and not left else None}
            request = Request(
                "POST",
                _target(_of_run(run, "stdin"), query),
                bytes(part),
                content_type="application/octet-stream",
            )
            yield from _whole(self.connections, request)
            if not left:
                return

    def logs(self, run: RunId, follow: bool, stream: str | None) -> Reading[Chunk]:
        """Kept output; with `follow`, until the run has ended."""
        query = {"follow": 1 if follow else None, "stream": stream}
        request = Request("GET", _target(_of_run(run, "logs"), query))
        if stream is not None:
            return Reading(self.connections, request, lambda data: Chunk(stream, data))
        return Reading(self.connections, request, _chunk_of, lines=True)

    def stats(self, run: RunId | None) -> Flow[list[wire.Stats]]:
        """What live runs use."""
        if run is None:
            return (yield from self._get("/v1/stats", wire.StatsList)).stats
        return [(yield from self._get(_of_run(run, "stats"), wire.Stats))]

    # --- everything else ---

    def events(
        self,
        run: RunId | None,
        type: str | None,
        limit: int | None,
        timeout: float | None,
    ) -> Reading[wire.Event]:
        """What happens from now on."""
        query = {
            "run": None if run is None else id_of(run),
            "type": type,
            "limit": limit,
            "timeout": timeout,
        }
        request = Request("GET", _target("/v1/events", query))
        return Reading(self.connections, request, _event_of, lines=True)

    def policies(self) -> Flow[list[wire.PolicyInfo]]:
        """The policies that this caller may use."""
        return (yield from self._get("/v1/policies", wire.PolicyList)).policies

    def add_module(self, module: StrPath | bytes, name: str | None) -> Flow[wire.ModuleInfo]:
        """Uploads a module; it is compiled when this returns."""
        data, name = _read_module(module, name)
        request = Request(
            "POST",
            _target("/v1/modules", {"name": name}),
            data,
            content_type="application/wasm",
        )
        return (yield from self._call(request, wire.ModuleInfo))

    def modules(self) -> Flow[list[wire.ModuleInfo]]:
        """The modules that this caller may run by digest."""
        return (yield from self._get("/v1/modules", wire.ModuleList)).modules

    def module(self, digest: str | wire.ModuleInfo) -> Flow[wire.ModuleInfo]:
        """One of them."""
        return (yield from self._get(_of_module(digest), wire.ModuleInfo))

    def remove_module(self, digest: str | wire.ModuleInfo) -> Flow[None]:
        """Forgets one of them."""
        request = Request("DELETE", _of_module(digest), timeout=self.timeout)
        yield from _whole(self.connections, request)

    def info(self) -> Flow[wire.Info]:
        """What the daemon is, and who the caller is to it."""
        return (yield from self._get("/v1/info", wire.Info))

    def health(self) -> Flow[wire.Health]:
        """How the daemon is; a bad state is an answer, too."""
        request = Request("GET", "/v1/healthz", timeout=self.timeout)
        answer = yield from exchange(self.connections, request)
        body = yield from answer.read()
        try:
            return decode(body, wire.Health)
        except BadAnswer:
            raise failures.of_answer(answer.status, answer.headers, body) from None

    def metrics(self) -> Flow[str]:
        """The metrics, in the text form of Prometheus."""
        request = Request("GET", "/metrics", timeout=self.timeout)
        return (yield from _whole(self.connections, request)).decode()

    def _get(self, path: str, kind: type[T], query: Mapping[str, Any] | None = None) -> Flow[T]:
        request = Request("GET", _target(path, query or {}), timeout=self.timeout)
        return (yield from self._call(request, kind))

    def _call(self, request: Request, kind: type[T]) -> Flow[T]:
        return decode((yield from _whole(self.connections, request)), kind)


class Reading(Generic[T]):
    """An answer that is read piece by piece; the request is sent when the first one is wanted."""

    def __init__(
        self,
        connections: Connections,
        request: Request,
        read: Callable[[bytes], T],
        *,
        lines: bool = False,
    ) -> None:
        self._connections = connections
        self._request = request
        self._read = read
        self._lines = lines
        self._answer: Answer | None = None
        self._rest = b""
        self._ready: list[bytes] = []

    def open(self) -> Flow[None]:
        """Sends the request, if it has not been sent."""
        if self._answer is None:
            answer = yield from exchange(self._connections, self._request)
            if answer.status >= _ERROR:
                body = yield from answer.read()
                raise failures.of_answer(answer.status, answer.headers, body)
            self._answer = answer

    def next(self) -> Flow[T | None]:
        """The next piece; None at the end."""
        yield from self.open()
        assert self._answer is not None
        while not self._ready:
            part = yield from self._answer.part()
            if not part:
                return None
            if self._lines:
                *whole, self._rest = (self._rest + part).split(b"\n")
                self._ready = [line for line in reversed(whole) if line.strip()]
            else:
                self._ready = [part]
        return self._read(self._ready.pop())

    def close(self) -> None:
        """Leaves the rest unread."""
        if self._answer is not None:
            self._answer.close()


def _whole(connections: Connections, request: Request) -> Flow[bytes]:
    answer = yield from exchange(connections, request)
    body = yield from answer.read()
    if answer.status >= _ERROR:
        raise failures.of_answer(answer.status, answer.headers, body)
    return body


def decode(data: bytes, kind: type[T]) -> T:
    """An answer's JSON.  Raises BadAnswer."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadAnswer(f"the daemon's answer is no {kind.__name__}: {error}") from error


def result_of(run: wire.Run) -> Result:
    """The result in the answer to a request with `wait`.  Raises as `failures.of_outcome` says."""
    outcome = run.outcome
    if outcome is None:
        raise BadAnswer(f"the daemon says that run {run.id} is over, and not how it ended")
    error = failures.of_outcome(
        outcome.reason,
        outcome.message,
        outcome.hint,
        step=outcome.step,
        errno=outcome.errno,
        wall=outcome.wall,
    )
    if error is not None:
        raise error
    return Result(
        outcome=outcome,
        stdout=_bytes_of(run.stdout, run.stdout_base64),
        stderr=_bytes_of(run.stderr, run.stderr_base64),
        run=run,
    )


def id_of(run: RunId) -> str:
    """A run's id."""
    return run if isinstance(run, str) else run.id


def _bytes_of(text: str | msgspec.UnsetType, data: bytes | msgspec.UnsetType) -> bytes:
    if isinstance(text, str):
        return text.encode()
    return data if isinstance(data, bytes) else b""


def _chunk_of(line: bytes) -> Chunk:
    chunk = decode(line, wire.LogChunk)
    return Chunk(chunk.stream, _bytes_of(chunk.text, chunk.base64))


def _event_of(line: bytes) -> wire.Event:
    return decode(line, wire.Event)


def _of_run(run: RunId, what: str = "") -> str:
    path = f"/v1/runs/{quote(id_of(run), safe='')}"
    return f"{path}/{what}" if what else path


def _of_module(digest: str | wire.ModuleInfo) -> str:
    text = digest if isinstance(digest, str) else digest.digest
    return f"/v1/modules/{quote(text.removeprefix(DIGEST), safe='')}"


def _target(path: str, query: Mapping[str, Any]) -> str:
    given = {name: value for name, value in query.items() if value not in (None, [])}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def _read_module(module: StrPath | bytes, name: str | None) -> tuple[bytes, str | None]:
    if isinstance(module, bytes):
        return module, name
    path = os.fspath(module)
    try:
        with open(path, "rb") as file:
            return file.read(), os.path.basename(path) if name is None else name
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModuleNotFound(f"{path}: no such module") from error
    except OSError as error:
        raise InvalidModule(f"{path}: {error.strerror}") from error
