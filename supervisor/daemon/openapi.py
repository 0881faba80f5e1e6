"""The OpenAPI 3.1 document, from the routes and the types that validate requests."""

from typing import Any

import msgspec

from ... import __version__
from .. import wire
from .failures import CODES
from .routes import BYTES, JSON, LINES, ROUTES, Query, Route

_REF = "#/components/schemas/{name}"
_LINES_OF = ("stream_events", "get_logs")
# Whatever is asked for: HTTP itself went wrong, the caller is not served, or there is no room.
_ANY = (400, 403, 405, 408, 413, 414, 429, 431, 500, 503)


def document() -> dict[str, Any]:
    """The document, ready for JSON."""
    kinds = _kinds()
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    known = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, known)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "wasisup",
            "version": __version__,
            "summary": "Runs WebAssembly that nobody has to trust.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "HTTP/1.1 on a Unix socket. Who you are is what the kernel says of the"
            " connection. Descriptors can be sent along with the first bytes of a request"
            " (SCM_RIGHTS) and are named in it by their place.",
        },
        "servers": [{"url": "http://localhost", "description": "the socket"}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _kinds() -> list[Any]:
    kinds: list[Any] = [wire.Error]
    for route in ROUTES:
        kinds += [kind for kind in route.answers.values() if _is_shape(kind)]
        if route.body is not None:
            kinds.append(route.body)
    return list(dict.fromkeys(kinds))


def _is_shape(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _operation(route: Route, known: dict[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": {
            str(status): _answer(route, kind, known) for status, kind in route.answers.items()
        },
    }
    for status in sorted({*route.errors, *_ANY} - route.answers.keys()):
        operation["responses"][str(status)] = _error(status, known)
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": known[route.body]}},
        }
    elif route.bodies:
        operation["requestBody"] = {
            "required": True,
            "content": {media: {"schema": {}} for media in route.bodies},
        }
    return operation


def _answer(route: Route, kind: Any, known: dict[Any, Any]) -> dict[str, Any]:
    if kind is None:
        return {"description": "Done."}
    if isinstance(kind, str):
        return {"description": route.summary, "content": {kind: {"schema": {"type": "string"}}}}
    schema = known[kind] if _is_shape(kind) else {"type": "object"}
    if route.name in _LINES_OF:
        content = {LINES: {"schema": schema}}
        if route.name == "get_logs":
            content[BYTES] = {"schema": {}}
        return {"description": "Lines, each a JSON document, as they come.", "content": content}
    return {"description": route.summary, "content": {JSON: {"schema": schema}}}


def _error(status: int, known: dict[Any, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": CODES[status],
        "content": {JSON: {"schema": known[wire.Error]}},
    }
    if status == 429:
        schema = {"type": "integer", "minimum": 1}
        answer["headers"] = {"retry-after": {"description": "seconds", "schema": schema}}
    return answer


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    found = []
    for part in route.path.split("/"):
        if part.startswith("{"):
            schema: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 64}
            found.append(
                {"name": part.strip("{}"), "in": "path", "required": True, "schema": schema}
            )
    return found


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query is Query:
        return []
    (schema,), components = msgspec.json.schema_components([route.query], ref_template=_REF)
    properties: dict[str, Any] = components[route.query.__name__]["properties"]
    return [
        {"name": name, "in": "query", "required": False, "schema": _without_null(one)}
        for name, one in properties.items()
        if schema
    ]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A query has no null: a field is left out, or it has a value."""
    options = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if not options:
        return {key: value for key, value in schema.items() if key != "default"}
    return options[0] if len(options) == 1 else {"anyOf": options}
