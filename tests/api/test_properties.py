"""What the OpenAPI document says holds for whatever may be sent by it (schemathesis)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
import urllib3
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from support.api import connect
from wasisup.supervisor.daemon.routes import ROUTES

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
EXAMPLES = 40  # of each operation and kind
MORE = {"create_run": 150}
PLAIN = ("args", "labels", "umask", "wait", "attach")
SETTINGS = hypothesis.settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)


class UnixPool(urllib3.HTTPConnectionPool):
    """Connections to a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def _new_conn(self) -> Any:
        connection = super()._new_conn()
        connection._new_conn = lambda: connect(self._path)
        return connection


class UnixAdapter(HTTPAdapter):
    """Sends what requests sends to a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._pool = UnixPool(path)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> UnixPool:
        return self._pool

    def close(self) -> None:
        self._pool.close()


@pytest.fixture(scope="module")
def session(daemon) -> Iterator[requests.Session]:
    """What schemathesis talks through."""
    with requests.Session() as made:
        made.mount("http://localhost", UnixAdapter(daemon.socket))
        yield made


@pytest.fixture(scope="module")
def schema(daemon) -> Any:
    """The document, as the daemon serves it."""
    api = daemon.api()
    document = api.get("/v1/openapi.json")
    api.close()
    return schemathesis.openapi.from_dict(document)


@pytest.fixture
def known(api) -> Iterator[dict[str, list[str]]]:
    """What there is to be asked for: an ended run, one that goes on, and a module."""
    ended = api.run("stdio", "both", labels={"job": "a"})
    live = api.start("stdio", "block", stdin={"open": True}, quotas={"timeout": "none"})
    api.ready(live)
    yield {"id": [ended["id"], live], "digest": [ended["digest"]]}
    api.ask("DELETE", f"/v1/runs/{live}")
    for run in api.get("/v1/runs?state=running")["runs"]:
        api.ask("DELETE", f"/v1/runs/{run['id']}")


def tame(case: Any, known: dict[str, list[str]], module: bytes, pick: int) -> None:
    """Most requests are about something that there is, and none takes for ever."""
    for name, values in known.items() if pick else ():
        if name in case.path_parameters:
            case.path_parameters[name] = values[pick % len(values)]
    if pick and isinstance(case.body, dict) and "module" in case.body:
        case.body["module"] = {"digest": known["digest"][0]}
        # What comes by descriptor cannot come this way.
        for name in ("policy", "dirs", "listens", "stdout", "stderr"):
            case.body.pop(name, None)
        if pick == 1:
            case.body = {key: case.body[key] for key in case.body.keys() & {*PLAIN, "module"}}
    if pick and case.operation.path == "/v1/modules":
        case.body = module
    if isinstance(case.query, dict):
        if case.operation.definition.raw["operationId"] in ("stream_events", "wait_for_run"):
            case.query["timeout"] = 0
        case.query.pop("follow", None)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("name", [route.name for route in ROUTES])
def test_operation(session, schema, known, programs, name, mode):
    """No 5xx, and every answer as the document has it, whatever is asked."""
    operation = schema.find_operation_by_id(name)
    module = programs["quota"].read_bytes()
    seen: Counter[int] = Counter()

    @hypothesis.settings(SETTINGS, max_examples=MORE.get(name, EXAMPLES))
    @hypothesis.given(case=operation.as_strategy(mode), pick=st.integers(0, 3))
    def conforms(case: Any, pick: int) -> None:
        tame(case, known, module, pick)
        response = case.call(base_url="http://localhost", session=session, timeout=30)
        seen[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    try:
        conforms()
    except hypothesis.errors.Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, "an operation without parameters cannot be wrong"
    assert mode is GenerationMode.NEGATIVE or min(seen) < 300, f"nothing was done: {seen}"
