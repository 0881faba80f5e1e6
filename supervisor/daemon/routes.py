"""Which request is for whom: the table of the API, from which its OpenAPI document is made too."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta, Struct

from .. import wire
from .failures import HttpError
from .messages import Request, Response

JSON = "application/json"
BYTES = "application/octet-stream"
WASM = "application/wasm"
LINES = "application/x-ndjson"

_QUICK_BYTES = 64 << 10
_MOST_LISTS = 2 * wire.MAX_TEXT_BYTES  # as JSON or base64


class Query(Struct, forbid_unknown_fields=True):
    """A query string's fields."""


class ListQuery(Query):
    """label: NAME, or NAME=VALUE; all of them have to fit.  before: the id to go on from."""

    state: wire.State | None = None
    label: Annotated[list[Annotated[str, Meta(max_length=400)]], Meta(max_length=16)] = []
    limit: Annotated[int, Meta(ge=1, le=wire.MAX_LIMIT)] = 100
    before: Annotated[str, Meta(max_length=16)] | None = None


class WaitQuery(Query):
    """timeout: seconds after which the run is told as it is."""

    timeout: Annotated[float, Meta(ge=0, le=86400)] | None = None


class LogsQuery(Query):
    """follow: go on until the run has ended.  stream: only this one, as raw bytes."""

    follow: bool = False
    stream: wire.StreamName | None = None


class StdinQuery(Query):
    """close: end stdin after this."""

    close: bool = False


class EventsQuery(Query):
    """Only events of one run or type.  limit: so many; timeout: for so many seconds."""

    run: Annotated[str, Meta(max_length=16)] | None = None
    type: Annotated[str, Meta(max_length=32)] | None = None
    limit: Annotated[int, Meta(ge=1)] | None = None
    timeout: Annotated[float, Meta(ge=0, le=86400)] | None = None


class NameQuery(Query):
    """name: what the module is to be called."""

    name: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None


class Route(NamedTuple):
    """One operation.

    path: with `{id}` in place of what varies.  answers: by status, the type of the JSON, a media
    type, or None for no body; errors need not be named.  bodies: media types of a raw body, or
    None.  limit: most bytes of body.  streamed: the body goes to a memfd as it comes.
    """

    method: str
    path: str
    name: str
    summary: str
    answers: dict[int, Any]
    query: type[Query] = Query
    body: type[Struct] | None = None
    bodies: tuple[str, ...] = ()
    limit: int = 0
    streamed: bool = False
    errors: tuple[int, ...] = ()


_ON_RUN = (400, 404, 422)

ROUTES = (
    Route(
        "POST", "/v1/runs", "create_run", "Start a run; with `wait`, answer when it has ended.",
        {200: wire.Run, 201: wire.Run}, body=wire.RunRequest, limit=wire.MAX_JSON_BYTES,
        errors=(400, 403, 404, 413, 415, 422, 429, 503, 504, 507),
    ),
    Route(
        "GET", "/v1/runs", "list_runs", "Runs that you may see, the newest first.",
        {200: wire.RunList}, query=ListQuery, errors=(400, 422),
    ),
    Route("GET", "/v1/runs/{id}", "get_run", "A run's record.", {200: wire.Run}, errors=_ON_RUN),
    Route(
        "DELETE", "/v1/runs/{id}", "kill_run", "Kill a run; answers when it has ended.",
        {200: wire.Run}, errors=(*_ON_RUN, 403, 409),
    ),
    Route(
        "POST", "/v1/runs/{id}/signal", "signal_run", "Send a signal to a run.", {204: None},
        body=wire.SignalRequest, limit=4096, errors=(*_ON_RUN, 403, 409, 413, 415),
    ),
    Route(
        "GET", "/v1/runs/{id}/wait", "wait_for_run", "Wait until a run has ended.",
        {200: wire.Run}, query=WaitQuery, errors=_ON_RUN,
    ),
    Route(
        "GET", "/v1/runs/{id}/logs", "get_logs",
        "What a run has written: lines of LogChunk, or the bytes of one stream.",
        {200: wire.LogChunk}, query=LogsQuery, errors=_ON_RUN,
    ),
    Route(
        "POST", "/v1/runs/{id}/stdin", "write_stdin", "Write to an open stdin.", {204: None},
        query=StdinQuery, bodies=(BYTES,), limit=wire.MAX_STDIN_BYTES,
        errors=(*_ON_RUN, 403, 409, 413, 504),
    ),
    Route(
        "GET", "/v1/runs/{id}/stats", "get_stats", "What a run uses now.", {200: wire.Stats},
        errors=_ON_RUN,
    ),
    Route("GET", "/v1/stats", "list_stats", "What all live runs use now.", {200: wire.StatsList},
          errors=(400, 422)),
    Route(
        "GET", "/v1/events", "stream_events", "What happens, as lines of Event.",
        {200: wire.Event}, query=EventsQuery, errors=(400, 422),
    ),
    Route(
        "GET", "/v1/policies", "list_policies", "The policies that you may use.",
        {200: wire.PolicyList}, errors=(400, 422),
    ),
    Route(
        "POST", "/v1/modules", "add_module", "Keep a module and compile it ahead.",
        {201: wire.ModuleInfo}, query=NameQuery, bodies=(WASM, BYTES),
        limit=wire.MAX_MODULE_BYTES, streamed=True, errors=(400, 413, 415, 422, 503, 504, 507),
    ),
    Route("GET", "/v1/modules", "list_modules", "The modules that you may run by digest.",
          {200: wire.ModuleList}, errors=(400, 422)),
    Route("GET", "/v1/modules/{digest}", "get_module", "A module.", {200: wire.ModuleInfo},
          errors=_ON_RUN),
    Route("DELETE", "/v1/modules/{digest}", "remove_module", "Forget a module.", {204: None},
          errors=_ON_RUN),
    Route("GET", "/v1/healthz", "get_health", "Whether runs can be started.",
          {200: wire.Health, 503: wire.Health}, errors=(400, 422)),
    Route("GET", "/v1/info", "get_info", "The daemon, and who you are to it.", {200: wire.Info},
          errors=(400, 422)),
    Route("GET", "/v1/openapi.json", "get_openapi", "This document.", {200: dict[str, Any]},
          errors=(400, 422)),
    Route("GET", "/metrics", "get_metrics", "For Prometheus.", {200: "text/plain"},
          errors=(400, 422)),
)  # fmt: skip


class Table:
    """Finds routes.  handlers: by the routes' names."""

    def __init__(self, handlers: "Callable[[str], Callable[..., Awaitable[Response]]]") -> None:
        self._fixed: dict[str, dict[str, Route]] = {}
        self._varied: dict[tuple[int, str, str], dict[str, Route]] = {}
        self._handlers = {route.name: handlers(route.name) for route in ROUTES}
        self._decoders = {
            route.body: msgspec.json.Decoder(route.body) for route in ROUTES if route.body
        }
        for route in ROUTES:
            if "{" in route.path:
                self._varied.setdefault(_shape(route.path), {})[route.method] = route
            else:
                self._fixed.setdefault(route.path, {})[route.method] = route

    def find(self, method: str, path: str) -> "tuple[Route, str]":
        """The route, and what stands in place of its `{...}`.  Raises HttpError."""
        methods = self._fixed.get(path)
        varying = ""
        if methods is None:
            methods = self._varied.get(_shape(path))
            if methods is None:
                raise HttpError(404, f"there is nothing at {path}", "GET /v1/openapi.json")
            varying = path.split("/")[3]
        route = methods.get("GET" if method == "HEAD" else method)
        if route is None:
            allowed = ", ".join(sorted(methods))
            raise HttpError(405, f"{path} takes {allowed}", allow=allowed)
        return route, varying

    def limit_of(self, method: str, path: str) -> "tuple[int, bool]":
        """Most bytes of body for a request, and whether they go to a memfd.

        What there is no route for may bring a little, and gets its answer.
        """
        try:
            route, _ = self.find(method, path)
        except HttpError:
            return 4096, False
        return route.limit or 4096, route.streamed

    def pattern(self, request: Request) -> str:
        """The path of the request's route, or "none"."""
        try:
            return self.find(request.method, request.path)[0].path
        except HttpError:
            return "none"

    async def answer(self, request: Request) -> Response:
        """Answers a request.  Raises HttpError."""
        route, varying = self.find(request.method, request.path)
        arguments: list[Any] = [request]
        if "{" in route.path:
            arguments.append(varying)
        if route.query is not Query:
            arguments.append(_query(route.query, request.query))
        elif request.query:
            raise HttpError(422, f"{route.path} takes no query")
        if route.body is not None:
            arguments.append(self._body(route, request))
        elif route.bodies:
            _check_media(request, route.bodies)
        elif request.body:
            raise HttpError(400, f"{route.method} {route.path} takes no body")
        return await self._handlers[route.name](*arguments)

    def _body(self, route: Route, request: Request) -> Any:
        _check_media(request, (JSON,))
        try:
            if route.body is wire.RunRequest:
                _check_parts(request.body)
            return self._decoders[route.body].decode(request.body)  # type: ignore[index]
        except msgspec.ValidationError as error:
            raise HttpError(422, _words(error)) from None
        except msgspec.DecodeError as error:
            raise HttpError(400, f"the body is not JSON: {error}") from None
        except (RecursionError, UnicodeDecodeError) as error:
            raise HttpError(400, f"the body is not JSON that is taken here: {error}") from None


class _Parts(Struct):
    """What of a wire.RunRequest may be large, not looked into; the rest is passed over."""

    module: msgspec.Raw = msgspec.Raw(b"")
    stdin: msgspec.Raw = msgspec.Raw(b"")
    labels: msgspec.Raw = msgspec.Raw(b"")


_parts = msgspec.json.Decoder(_Parts).decode


def _check_parts(body: "bytes | bytearray") -> None:
    """Refuses a run whose lists are so long that to read them would hold everybody else up.

    msgspec counts elements only once all are made: seconds for 16 MiB of labels.  Bytes as base64
    and one long text cost next to nothing.
    """
    if len(body) <= _QUICK_BYTES:
        return
    parts = _parts(body)
    if len(parts.labels) > _QUICK_BYTES:
        raise HttpError(413, f"labels: more than {_QUICK_BYTES} bytes")
    if len(body) - len(parts.module) - len(parts.stdin) > _MOST_LISTS:
        raise HttpError(
            413,
            f"more than {_MOST_LISTS} bytes beside module and stdin",
            f"arguments and variables may have {wire.MAX_TEXT_BYTES} bytes together",
        )


def _shape(path: str) -> "tuple[int, str, str]":
    parts = path.split("/")
    if len(parts) not in (4, 5) or not parts[3]:
        return 0, "", ""
    return len(parts), f"{parts[1]}/{parts[2]}", parts[4] if len(parts) == 5 else ""


def _check_media(request: Request, allowed: "tuple[str, ...]") -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # curl --data says that it sends a form; people mean what the operation takes.
    if given in ("", "application/x-www-form-urlencoded", *allowed):
        return
    raise HttpError(415, f"a body of type {given}; taken here: {', '.join(allowed)}")


def _query(kind: "type[Query]", text: str) -> Query:
    fields: dict[str, Any] = {}
    known = {field.name: field for field in msgspec.structs.fields(kind)}
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=bool(text), errors="strict",
            max_num_fields=64,
        )  # fmt: skip
    except ValueError as error:
        raise HttpError(400, f"the query is not one: {error}") from None
    for name, value in pairs:
        if name == "label" and "label" in known:
            fields.setdefault(name, []).append(value)
        elif name in fields:
            raise HttpError(422, f"the query has {name!r} twice")
        else:
            fields[name] = value
    try:
        return msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as error:
        raise HttpError(422, f"query: {_words(error)}") from None


def _words(error: msgspec.ValidationError) -> str:
    """msgspec's message: `Expected ... - at `$.quotas.memory``, with the place in front."""
    message, _, place = str(error).partition(" - at `$")
    where = place.rstrip("`").lstrip(".")
    text = message[:1].lower() + message[1:]
    return f"{where}: {text}" if where else text
