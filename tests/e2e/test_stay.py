"""A zygote that stays: the worker forked ahead is used, replaced, and never left behind."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator

import pytest

from support.processes import children
from wasisup.runtime import cache, engine, filters, record, spec, zygote


class Stays:
    """A live zygote that stays, and launches of a module that exits with a status of its own."""

    def __init__(self, artifact: int, programs: tuple[bytes, bytes]) -> None:
        self.artifact = artifact
        self.programs = programs
        self.zygote = zygote.start(
            engine.find_core(),
            engine.find_library(),
            engine.ENGINE_RELEASE,
            ("cranelift",),
            stay=True,
        )

    def run(self) -> tuple[int, int]:
        """Pid and exit status of one run."""
        writer = spec.SpecWriter(spec.KIND_RUN, "cranelift")
        writer.argument("module")
        writer.stdio((None, None, None))
        writer.artifact(self.artifact)
        writer.limits(
            memory=1 << 20,
            cpu_ns=10**10,
            fds=8,
            file_size=0,
            output=0,
            fuel=None,
            table_elements=0,
            data_overhead=64 << 20,
        )
        for stage, program in enumerate(self.programs, start=1):
            writer.filter(stage, program)
        page = record.create()
        try:
            worker = self.zygote.launch(writer.encode(), page, writer.fds, None, 0)
            _, status = os.waitpid(worker.pid, 0)
            os.close(worker.pidfd)
            assert record.read(page).outcome == "exit", record.read(page).message
        finally:
            os.close(page)
        return worker.pid, os.waitstatus_to_exitcode(status)

    def wait_for_spare(self) -> int:
        """The pid of the next spare, once the zygote has told of it."""
        assert self.zygote._hear_news(30_000)
        assert self.zygote._spare is not None
        return self.zygote._spare.pid


@pytest.fixture
def stays(guests, wasisup, cache_root) -> Iterator[Stays]:
    module = guests.wat(
        '(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))'
        ' (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const 7))))',
        "seven",
    )
    wasisup.run(module)
    before = children(os.getpid())  # daemons that other tests share
    with cache.ArtifactCache(str(cache_root)) as store:
        key = engine.engine_key("cranelift", fuel=False)
        digest = store.digest_of(os.stat(module)) or _digest(module)
        artifact = store.open_artifact(key, digest)
        assert artifact is not None
        made = Stays(artifact, filters.programs(filters.profile("run", "cranelift"), store))
        try:
            made.zygote.hello()
            yield made
        finally:
            made.zygote.close()
            os.close(artifact)
    assert children(os.getpid()) == before


def _digest(module: os.PathLike[str]) -> str:
    import hashlib

    with open(module, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_the_spare_is_what_runs_next(stays: Stays) -> None:
    """A launch goes to the worker that stood by, and the next one is forked after it."""
    spares = []
    for _ in range(3):
        spares.append(stays.wait_for_spare())
        assert stays.run() == (spares[-1], 7)
    assert len(set(spares)) == 3


def test_launches_without_a_pause(stays: Stays) -> None:
    """Whether a spare stands by or not, every launch is carried out."""
    assert {status for _, status in (stays.run() for _ in range(20))} == {7}


def test_a_spare_that_died(stays: Stays) -> None:
    """It is reaped, and the launch gets a worker all the same."""
    pid = stays.wait_for_spare()
    fd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(30_000)
    os.close(fd)
    worker, status = stays.run()
    assert (worker != pid, status) == (True, 7)


def test_nothing_is_left_when_it_closes(stays: Stays) -> None:
    """Also a spare that nobody has heard of yet: the fixture finds no child left."""
    stays.run()
