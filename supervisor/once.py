"""`wasisup.run`: one run in one call, without a daemon, its output caught."""

from __future__ import annotations

import os
import selectors
import signal
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, Unpack

import msgspec

from ..policies import policy as policies
from ..policies.build import Given, build
from . import embedded, model, wire
from .errors import UsageError
from .model import DirGrant, TmpfsGrant
from .shapes import Result, RunOptions, StrPath

_SCALARS = (
    "memory",
    "cpu_time",
    "timeout",
    "fds",
    "file_size",
    "output",
    "fuel",
    "cpus",
    "engine",
    "invoke",
    "argv0",
    "clock_resolution",
)
_PIPE_BYTES = 64 << 10


def run(
    module: StrPath | bytes, args: Iterable[str | bytes] = (), **options: Unpack[RunOptions]
) -> Result:
    """Runs a module to its end, here and now, and returns how it ended and what it wrote.

    module: a path, or its bytes.  args: those after argv[0].  options: see `RunOptions`.
    Raises ModuleNotFound, InvalidModule, UsageError, SetupError or another WasisupError when the
    guest never ran; `Result.check` raises when it did not end well.  A signal that asks this
    process for its end kills the run, and is then delivered as if there had been none (Ctrl-C
    raises KeyboardInterrupt).
    """
    given: dict[str, Any] = dict(options)
    stdin = given.pop("stdin", None)
    with ExitStack() as held:
        if isinstance(module, bytes):
            given.setdefault("argv0", "module.wasm")
            module = _in_memory(module, held)
        request = _request(os.fspath(module), args, given)
        streams = held.enter_context(_Streams(stdin))
        outcome = embedded.run(request, streams.fds)
        stdout, stderr = streams.caught()
    if outcome.reason == "killed" and outcome.signal not in (None, signal.SIGKILL):
        # By nobody but this process: a worker can be sent nothing else from outside.
        signal.raise_signal(outcome.signal)
    return Result(
        outcome=msgspec.convert(outcome.as_dict(), wire.Outcome), stdout=stdout, stderr=stderr
    )


def _request(module: str, args: Iterable[str | bytes], given: dict[str, Any]) -> model.RunRequest:
    flags = {
        name.replace("_", "-"): [Given(_written(given.pop(name)), name)]
        for name in _SCALARS
        if name in given
    }
    missing = given.pop("allow_missing", ())
    flags["allow-missing"] = [Given(name, "allow_missing") for name in missing]
    flags["net"] = [Given(text, "net") for text in _listed(given.pop("net", ()))]
    name = given.pop("policy", None)
    policy = None if name is None else policies.load(name)
    request = build(module, list(args), flags, policy).request
    request.env = list({**dict(request.env), **_text(given.pop("env", {}))}.items())
    for grant in given.pop("dirs", ()):
        if not isinstance(grant, DirGrant):
            grant = DirGrant(os.fspath(grant), os.fspath(grant))  # noqa: PLW2901
        request.dirs.append(grant)
    for guest, size in given.pop("tmpfs", {}).items():
        request.tmpfs.append(TmpfsGrant(guest, _size(size)))
    if given:
        raise TypeError(f"a run has no option {next(iter(given))!r}")
    return request


def _listed(net: Iterable[str]) -> Iterable[str]:
    if isinstance(net, str):
        raise TypeError(f"net is a list of grants, such as [{net!r}]")
    return net


def _written(value: object) -> str:
    """A quota as somebody would type it; a float without an exponent."""
    return f"{value:.9f}" if isinstance(value, float) else str(value)


def _size(value: int | str) -> int:
    from ..policies.units import UnitError, parse_size

    try:
        return parse_size(str(value))
    except UnitError as error:
        raise UsageError(f"tmpfs: {error}") from None


def _text(env: Any) -> dict[str, str]:
    return {name: os.fsdecode(value) for name, value in env.items()}


def _in_memory(data: bytes, held: ExitStack) -> str:
    """The path of a file in memory with these bytes; `held` removes it."""
    fd = os.memfd_create("module", os.MFD_CLOEXEC)
    held.callback(os.close, fd)
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
    return f"/proc/self/fd/{fd}"


class _Streams:
    """stdin for the guest, and its stdout and stderr into memory, by a thread of its own.

    fds: the guest's ends.
    """

    def __init__(self, stdin: Any) -> None:
        if isinstance(stdin, str):
            stdin = stdin.encode()
        self._input = memoryview(stdin if isinstance(stdin, bytes) else b"")
        self._stdin = stdin
        self._caught: dict[int, bytearray] = {}
        self._guests: list[int] = []
        self._ours: list[int] = []
        self._selector = selectors.DefaultSelector()
        self._thread: threading.Thread | None = None
        self.fds: list[int] = []

    def __enter__(self) -> _Streams:
        try:
            self.fds.append(self._open_stdin())
            for _ in ("stdout", "stderr"):
                ours, guests = os.pipe2(os.O_CLOEXEC)
                self._guests.append(guests)
                self.fds.append(guests)
                self._watch(ours, selectors.EVENT_READ)
                self._caught[ours] = bytearray()
            self._thread = threading.Thread(target=self._pump, name="wasisup-output")
            self._thread.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()
        self._selector.close()
        while self._ours:
            os.close(self._ours.pop())

    def caught(self) -> tuple[bytes, bytes]:
        """stdout and stderr, once the guest is gone."""
        self._finish()
        stdout, stderr = self._caught.values()
        return bytes(stdout), bytes(stderr)

    def _finish(self) -> None:
        while self._guests:
            os.close(self._guests.pop())
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _open_stdin(self) -> int:
        if isinstance(self._stdin, bytes):
            guests, ours = os.pipe2(os.O_CLOEXEC)
            self._guests.append(guests)
            os.set_blocking(ours, False)
            self._watch(ours, selectors.EVENT_WRITE)
            return guests
        if self._stdin is None:
            guests = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            self._guests.append(guests)
            return guests
        return self._stdin if isinstance(self._stdin, int) else int(self._stdin.fileno())

    def _watch(self, fd: int, events: int) -> None:
        self._ours.append(fd)
        self._selector.register(fd, events)

    def _pump(self) -> None:
        while self._selector.get_map():
            for key, events in self._selector.select():
                move = self._write if events & selectors.EVENT_WRITE else self._read
                if not move(key.fd):
                    self._selector.unregister(key.fd)
                    self._ours.remove(key.fd)
                    os.close(key.fd)

    def _read(self, fd: int) -> bool:
        data = os.read(fd, _PIPE_BYTES)
        self._caught[fd] += data
        return bool(data)

    def _write(self, fd: int) -> bool:
        if not self._input:
            return False
        try:
            self._input = self._input[os.write(fd, self._input) :]
        except BrokenPipeError:  # the guest has left without reading it all
            return False
        return bool(self._input)
