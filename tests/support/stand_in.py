"""A stand-in for the embedded supervisor, for tests of the command alone."""

from __future__ import annotations

from typing import Any

from wasisup.supervisor.model import Outcome, RunRequest


class Supervisor:
    """Stands in for `embedded`: keeps the requests and ends them all in one way."""

    def __init__(self) -> None:
        self.requests: list[RunRequest] = []
        self.end: Outcome | Exception = Outcome(reason="exit", status=0, exit_code=0)

    def run(self, request: RunRequest, **_: Any) -> Outcome:
        self.requests.append(request)
        if isinstance(self.end, Exception):
            raise self.end
        return self.end
