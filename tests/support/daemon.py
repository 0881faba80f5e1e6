"""A daemon for the tests of its API: with the real core or the fake one, and watched for leaks."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .api import Api, connect, connect_as
from .chaos import GONE, Service, role
from .fake_core import PROGRAMS
from .processes import all_pidfds, children, wait_gone

TESTS = Path(__file__).resolve().parent.parent
# The worker that the zygote has forked ahead, and what it is launched through.
_SPARE = Counter({"child worker": 1, "socket:[]": 1, "anon_inode:[pidfd]": 1})
_FAKE = f"sys.path.insert(0, {str(TESTS)!r}); from support import fake_core; fake_core.install()"


class Daemon(Service):
    """`wasisup daemon`.

    core: "fake" or "real".  programs: the guests, by the names that the fake core knows.  config:
    tables of its configuration; lists of tables are arrays of them.
    """

    def __init__(
        self,
        core: str,
        env: Mapping[str, str],
        folder: Path,
        programs: Mapping[str, Path],
        config: Mapping[str, Any] | None = None,
        *,
        prefix: tuple[str, ...] = (),
        preset: str = "",
    ) -> None:
        digests = {hashlib.sha256(path.read_bytes()).hexdigest(): name
                   for name, path in programs.items()}  # fmt: skip
        more = {PROGRAMS: json.dumps(digests)}
        super().__init__(
            {**env, **more},
            folder,
            toml(config or {}),
            prefix=prefix,
            preset="\n".join([_FAKE if core == "fake" else "", preset]),
        )
        self.core = core
        self.programs = programs
        self._probe: Api | None = None
        self._apis: list[Api] = []
        self._at_rest: Counter[str] = Counter()

    def start(self, **options: Any) -> None:
        super().start(**options)
        self._probe = self.api()
        self._probe.get("/v1/healthz")
        self._at_rest = self.held() + _SPARE

    def api(
        self, uid: int | None = None, gid: int | None = None, groups: Sequence[int] = ()
    ) -> Api:
        """The API as this process sees it, or as another user does (for root only)."""
        if uid is None:
            made = Api(lambda: connect(self.socket), self.programs)
        else:
            own = uid if gid is None else gid
            made = Api(lambda: connect_as(self.socket, uid, own, groups), self.programs)
        self._apis.append(made)
        return made

    def held(self) -> Counter[str]:
        """What it has open and what children it has, by kind.

        Without what is kept on purpose: compiled modules, openers with what they are spoken to
        through, and what SQLite keeps of a connection that upkeep has closed.
        """
        found: Counter[str] = Counter()
        for fd in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                target = os.readlink(f"/proc/{self.pid}/fd/{fd}")
            except FileNotFoundError:
                continue
            if not target.removesuffix(" (deleted)").endswith((".cwasm", "/records.db")):
                found[re.sub(r"\d+", "", target)] += 1
        for child in children(self.pid):
            what = role(child)
            if what == "opener":
                found.subtract(["socket:[]", "anon_inode:[pidfd]"])
            else:
                found[f"child {what}"] += 1
        return +found

    def leaked(self) -> Counter[str]:
        """What it holds beyond what it does at rest, once that is nothing or does not end."""
        assert self._probe is not None
        deadline = time.monotonic() + GONE
        while True:
            # An answer: whatever was under way has had its turn.
            self._probe.ask("GET", "/v1/healthz")
            more = self.held() - self._at_rest
            if not more or time.monotonic() > deadline:
                return more

    def hang_up(self) -> None:
        """Closes this process's connections, but for the one that asks whether it is at rest."""
        for api in self._apis:
            if api is not self._probe:
                api.close()

    def let_go(self) -> None:
        """Closes this process's connections, and hears no more notices."""
        for api in self._apis:
            api.close()
        self._apis.clear()
        if self.notices is not None:
            self.notices.close()
            self.notices = None

    def finish(self) -> None:
        """Ends it in good order, with nothing left."""
        self.signal(signal.SIGTERM)
        self.finished()

    def finished(self) -> None:
        """Waits for an end in good order that something else has brought about."""
        family = all_pidfds(self.pid)
        self.let_go()
        assert self.wait() == 0, self.log()
        assert wait_gone(family, GONE) == set()
        assert not os.path.exists(self.socket)
        assert '"level": "error"' not in self.log(), self.log()
        assert "Traceback" not in self.log(), self.log()


def toml(config: Mapping[str, Any]) -> str:
    """Tables as TOML: strings, numbers and lists are written in it as in JSON."""
    parts = []
    for name, value in config.items():
        for header, table in (
            [(f"[[{name}]]", one) for one in value]
            if isinstance(value, list)
            else [(f"[{name}]", value)]
        ):
            inner = {key: one for key, one in table.items() if isinstance(one, dict)}
            lines = [f"{key} = {json.dumps(one)}" for key, one in table.items() if key not in inner]
            parts += [header, *lines]
            for key, one in inner.items():
                parts += [f"[{name}.{key}]", *(f"{k} = {json.dumps(v)}" for k, v in one.items())]
    return "\n".join(parts)
