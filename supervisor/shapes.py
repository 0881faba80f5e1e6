"""What a program that uses wasisup as a library hands in and gets back, daemon or not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Self, TypedDict

from msgspec import Struct

from .errors import RunFailed
from .model import DirGrant
from .wire import Outcome, Run, Usage

StrPath = str | os.PathLike[str]


def Dir(host: StrPath, guest: str | None = None, *, read_only: bool = False) -> DirGrant:
    """A directory to grant, which the guest finds as `guest`, or under the name given here."""
    host = os.fspath(host)
    return DirGrant(host, host if guest is None else guest, read_only)


class RunOptions(TypedDict, total=False):
    """What a run may be given, by keyword; whatever is left out is the policy's.

    env: variables; nothing is inherited.  dirs: `Dir`, or a path to be found under its own name and
    written to.  tmpfs: sizes of scratch space, by the guest's name for it.  net: whom a component
    may connect to, "tcp:example.org:443", and where it may listen, "listen:tcp:127.0.0.1:8080", as
    on the command line.  stdin: text, bytes, or
    what has a descriptor, which is handed on; nothing if left out.  policy: its name.  memory,
    file_size, output: bytes, or "64MiB"; cpu_time, timeout, clock_resolution: seconds, or "500ms";
    "none": without a limit.  cpus: processors' worth of time.  engine: "cranelift" or "pulley".
    invoke: the export to call.  argv0: what the guest is called.  allow_missing: names of walls.
    """

    env: Mapping[str, str | bytes]
    dirs: Iterable[DirGrant | StrPath]
    tmpfs: Mapping[str, int | str]
    net: Iterable[str]
    stdin: object
    policy: str
    memory: int | str
    cpu_time: float | str
    timeout: float | str
    fds: int
    file_size: int | str
    output: int | str
    fuel: int | str
    cpus: float | str
    engine: str
    invoke: str
    argv0: str
    clock_resolution: float | str
    allow_missing: Iterable[str]


class Chunk(NamedTuple):
    """Bytes of a run's "stdout" or "stderr"."""

    stream: str
    data: bytes


class Result(Struct, frozen=True, kw_only=True):
    """How a run ended, and what it wrote.

    stdout, stderr: what was caught of them.  run: the daemon's record; None without a daemon.
    """

    outcome: Outcome
    stdout: bytes = b""
    stderr: bytes = b""
    run: Run | None = None

    @property
    def reason(self) -> str:
        """One of `model.REASONS`: "exit", "trap", "timeout", ..."""
        return self.outcome.reason

    @property
    def status(self) -> int:
        """What `wasisup run` would exit with."""
        return self.outcome.status

    @property
    def exit_code(self) -> int | None:
        """The guest's own, None if it did not exit by itself."""
        return self.outcome.exit_code

    @property
    def usage(self) -> Usage:
        """What it used."""
        return self.outcome.usage

    @property
    def text(self) -> str:
        """stdout as text; bytes that are not UTF-8 are replaced."""
        return self.stdout.decode("utf-8", "replace")

    def check(self) -> Self:
        """Itself, when the status is 0; else raises RunFailed."""
        if self.status == 0:
            return self
        said = self.outcome.message.partition("\n")[0]
        raise RunFailed(
            f"the run ended with status {self.status} ({self.reason})"
            + (f": {said}" if said else ""),
            self,
        )
