"""Runs the hostile core: builds it, starts its zygote and sends it steps, as the supervisor would.

Only the tests' own build holds the payload; the installed core and the installed command know
nothing of it.  Everything else on the way is the shipped code: zygote, launch spec, filters.
"""

from __future__ import annotations

import os
import re
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from support import brokers
from wasisup.runtime import engine, filters, record, spec, zygote

CHECKOUT = Path(__file__).resolve().parents[2]
MEMORY_QUOTA = 64 << 20
DATA_OVERHEAD = 32 << 20
FILE_SIZE = 1 << 20
DESCRIPTORS = 16
THREADS = 16
# The suite against a core with AddressSanitizer, which lives on memory that no quota counts.
SANITIZED = os.environ.get("WASISUP_SANITIZE") == "1"
# How a broker ends by itself: with its worker, or because that did not keep to the conversation.  A
# sanitized one looks for a signal stack on its way out, which its filter does not admit.
BROKER_ENDS = (0, 1, 159) if SANITIZED else (0, 1)
PATIENCE = 20.0  # seconds; nothing here takes one
# struct sock_filter: BPF_RET | BPF_K, SECCOMP_RET_ALLOW
LET_ALL_THROUGH = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)


def build(folder: Path) -> str:
    """The path of wasisup-core-hostile, built below `folder` from the sources of this checkout."""
    configure = ["cmake", "-S", str(CHECKOUT / "runtime/core"), "-B", str(folder)]
    configure += [f"-DPython_EXECUTABLE={sys.executable}"]
    configure += [f"-DWASISUP_HOSTILE_PAYLOAD={CHECKOUT / 'tests/hostile/payload.c'}"]
    if SANITIZED:
        configure += ["-DWASISUP_SANITIZE=ON"]
    make = ["cmake", "--build", str(folder), "--target", "wasisup-core-hostile", "-j2"]
    for command in (configure, make):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return str(folder / "wasisup-core-hostile")


@dataclass(frozen=True)
class Grant:
    """A directory given to the run."""

    path: Path
    read_only: bool = False


@dataclass(frozen=True)
class Setting:
    """How a run is set up.

    profile: of policies/syscalls.py, or None for filters that let everything through.  component:
    what is loaded is one, and the worker is set up for one.
    identity: (uid, gid) to become, or None for the caller's own.
    """

    profile: str | None = "run-cranelift"
    grants: tuple[Grant, ...] = ()
    engine: str = "cranelift"
    identity: tuple[int, int] | None = None
    cpu_ns: int | None = 5_000_000_000
    file_size: int = FILE_SIZE
    environment: tuple[tuple[str, str], ...] = ()
    # The worker is a component's.  rules: of its broker; None: it has none.
    component: bool = False
    rules: tuple[brokers.Rule, ...] | None = None


@dataclass(frozen=True)
class Step:
    """What one step came to; errno is 0 when it succeeded."""

    result: int
    errno: int


@dataclass
class Result:
    """How a worker ended.  code: exit status, or minus the signal."""

    code: int
    output: bytes
    record: record.RunRecord
    usage: float
    broker: record.RunRecord | None = None
    broker_status: int | None = None
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        for found in re.finditer(rb"^(\d+) (-?\d+) (\d+)$", self.output, re.MULTILINE):
            index, result, errno = map(int, found.groups())
            if index == len(self.steps):
                self.steps.append(Step(result, errno))

    @property
    def trapped(self) -> int | None:
        """The number of the system call that the filter ended the worker at."""
        return self.record.code if self.code == 159 and self.record.outcome == "syscall" else None

    def __str__(self) -> str:
        said = self.output[-400:].decode(errors="replace")
        return (
            f"code {self.code}, outcome {self.record.outcome} {self.record.code}, phase "
            f"{self.record.phase}, step {self.record.step!r}: {self.record.message!r}\n{said}"
        )


class Core:
    """A running hostile zygote for one engine, and an artifact for its workers to load."""

    def __init__(self, path: str, engine_kind: str, folder: Path) -> None:
        self.engine = engine_kind
        self.zygote = zygote.start(
            path, engine.find_library(), engine.ENGINE_RELEASE, (engine_kind,)
        )
        self.artifact = folder / f"artifact-{engine_kind}"
        # One that is mounted: a small artifact is read, and a run without grants has no mounts.
        self.large = folder / f"large-{engine_kind}"
        self.component = folder / f"component-{engine_kind}"
        self._programs: dict[str, tuple[bytes, bytes]] = {}
        self._compile(b"\0asm\1\0\0\0", self.artifact)
        self._compile(_with_data(2 << 20), self.large)
        self._compile(b"\0asm\x0d\0\1\0", self.component)
        self._path = path

    def close(self) -> None:
        """Ends the zygote."""
        self.zygote.close()

    def programs(self, profile: str | None) -> tuple[bytes, bytes]:
        """The filters of both stages."""
        if profile is None:
            return LET_ALL_THROUGH, LET_ALL_THROUGH
        if profile not in self._programs:
            self._programs[profile] = filters.build(profile, 1), filters.build(profile, 2)
        return self._programs[profile]

    def _compile(self, binary: bytes, target: Path) -> None:
        module = os.memfd_create("module")
        os.write(module, binary)
        description = os.memfd_create("description")
        artifact = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        writer = spec.SpecWriter(spec.KIND_COMPILE, self.engine)
        writer.module(module)
        writer.output(artifact, description)
        for stage, program in enumerate(self.programs(f"compile-{self.engine}"), 1):
            writer.filter(stage, program)
        _limits(writer, Setting(file_size=1 << 30), memory=1 << 30)
        result = self._launch(writer, os.memfd_create("output"))
        for fd in (module, description, artifact):
            os.close(fd)
        if result.record.outcome != "compiled":
            raise RuntimeError(f"the empty module does not compile: {result}")

    def run(
        self,
        steps: list[str],
        setting: Setting,
        stdin: int | None = None,
        *,
        artifact: Path | None = None,
    ) -> Result:
        """Runs the steps in a fresh worker and waits for its end."""
        output = os.memfd_create("output")
        opened = [os.open(g.path, os.O_PATH | os.O_DIRECTORY) for g in setting.grants]
        usual = self.component if setting.component else self.artifact
        opened.append(os.open(artifact or usual, os.O_RDONLY))
        broker = None if setting.rules is None else brokers.start(self._path, setting.rules)
        nothing = os.open("/dev/null", os.O_RDWR) if stdin is None else os.dup(stdin)
        try:
            writer = spec.SpecWriter(spec.KIND_RUN, setting.engine)
            pid = "-1" if broker is None else str(broker.worker.pid)
            for argument in ("hostile", *steps):
                writer.argument(argument.replace("<broker>", pid))
            for name, value in setting.environment:
                writer.variable(name, value)
            for fd, grant in zip(opened, setting.grants, strict=False):
                writer.directory(fd, f"/{grant.path.name}", read_only=grant.read_only)
            if setting.component:
                writer.form(spec.FORM_COMPONENT)
                writer.threads(THREADS)
            writer.stdio([nothing, output, output])
            if broker is not None:
                writer.broker(broker.socket.fileno())
            writer.artifact(opened[-1])
            for stage, program in enumerate(self.programs(setting.profile), 1):
                writer.filter(stage, program)
            if setting.identity is not None:
                writer.identity(*setting.identity, [])
            _limits(writer, setting, memory=MEMORY_QUOTA)
            result = self._launch(writer, output, None if broker is None else broker.socket.close)
            if broker is not None:
                result.broker, result.broker_status = broker.end(), broker.status
            return result
        finally:
            if broker is not None:
                broker.close()
            for fd in (*opened, nothing):
                os.close(fd)

    def _launch(
        self, writer: spec.SpecWriter, output: int, launched: Callable[[], None] | None = None
    ) -> Result:
        page = record.create()
        try:
            worker = self.zygote.launch(writer.encode(), page, writer.fds, None, 0)
            if launched is not None:
                launched()
            code, usage = reap(worker)
            return Result(code, _contents(output), record.read(page), usage)
        finally:
            os.close(page)
            os.close(output)

    def start(self, steps: list[str], setting: Setting) -> zygote.Worker:
        """Starts a worker that says nothing and is not waited for: the caller reaps it."""
        writer = spec.SpecWriter(spec.KIND_RUN, setting.engine)
        for argument in ("hostile", *steps):
            writer.argument(argument)
        artifact = os.open(self.artifact, os.O_RDONLY)
        page = record.create()
        try:
            writer.artifact(artifact)
            for stage, program in enumerate(self.programs(setting.profile), 1):
                writer.filter(stage, program)
            _limits(writer, setting, memory=MEMORY_QUOTA)
            return self.zygote.launch(writer.encode(), page, writer.fds, None, 0)
        finally:
            os.close(artifact)
            os.close(page)


def reap(worker: zygote.Worker) -> tuple[int, float]:
    """Waits for a worker, no longer than PATIENCE: exit code or minus the signal, CPU seconds."""
    try:
        if not select.select([worker.pidfd], [], [], PATIENCE)[0]:
            signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
    finally:
        os.close(worker.pidfd)
    _, status, usage = os.wait4(worker.pid, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime


def _limits(writer: spec.SpecWriter, setting: Setting, memory: int) -> None:
    writer.limits(
        memory=memory,
        cpu_ns=setting.cpu_ns,
        fds=DESCRIPTORS,
        file_size=setting.file_size,
        output=setting.file_size,  # stdout is a file here, and RLIMIT_FSIZE allows for both
        fuel=None,
        table_elements=1000,
        data_overhead=DATA_OVERHEAD,
    )


def _with_data(size: int) -> bytes:
    """A module with a memory and `size` zero bytes to put there; at least 64 KiB, below 256 MiB."""
    pages = _leb(size // 65536 + 1)
    data = b"\1\0\x41\0\x0b" + _leb(size) + bytes(size)
    memory = b"\1\0" + pages
    sections = b"\5" + _leb(len(memory)) + memory + b"\x0b" + _leb(len(data)) + data
    return b"\0asm\1\0\0\0" + sections


def _leb(number: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _contents(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)
