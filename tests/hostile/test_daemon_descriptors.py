"""Attacks on the daemon by what it does with descriptors' numbers once they are closed."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from support.command import SAFETY_NET
from support.puppet import MODULE, Inside, play
from wasisup.supervisor.daemon.streams import write_all
from wasisup.supervisor.model import RunRecord

REJECTED = RunRecord(phase="loading", outcome="rejected")


def test_worker_that_ran_is_not_launched_again_with_closed_descriptors(tmp_path: Path) -> None:
    """A worker that was taken over takes its own start back, to be launched with what has the
    numbers of its descriptors by then."""

    async def attack(inside: Inside) -> None:
        reader, writer = os.pipe()
        run = await inside.start(stdin={"fd": 0}, stdout={"fd": 1}, fds=(reader, writer))
        os.close(reader)
        os.close(writer)
        worker = await inside.core.worker(0)
        worker.begun = True
        inside.state.runs.note()  # nothing of the launch is needed any more
        assert inside.state.runs.live[run].noted
        worker.end(126 << 8, REJECTED)
        record = (await inside.ask("GET", f"/v1/runs/{run}/wait")).ok()
        assert len(inside.core.workers) == 1
        assert record["outcome"]["reason"] == "invalid_module"

    play(tmp_path, attack)


def test_write_that_waits_leaves_the_next_holder_of_its_number_alone(tmp_path: Path) -> None:
    """A run ends while a client writes to its stdin: a connection that gets the pipe's number is
    still heard."""

    async def attack(inside: Inside) -> None:
        run = await inside.start(stdin={"open": True})
        worker = await inside.core.worker(0)
        job = inside.state.runs.live[run]
        number = job.prepared.stdin_writer
        assert number is not None
        writing = asyncio.create_task(write_all(job, bytes(1 << 20)))
        await asyncio.sleep(0)  # the pipe is full
        worker.end(0, RunRecord(phase="done", outcome="exit"))
        ours, theirs = socket.socketpair()
        with ours, theirs:
            loop, heard = asyncio.get_running_loop(), asyncio.Event()
            os.dup2(ours.fileno(), number, inheritable=False)
            try:
                loop.add_reader(number, heard.set)
                with pytest.raises(BrokenPipeError):
                    await writing
                theirs.send(b"x")
                await asyncio.wait_for(heard.wait(), SAFETY_NET)
            finally:
                loop.remove_reader(number)
                os.close(number)

    play(tmp_path, attack)


def test_what_is_no_socket_is_closed_again(tmp_path: Path) -> None:
    """A file in place of a listening socket costs the daemon no descriptor."""

    async def attack(inside: Inside) -> None:
        body = {"module": MODULE, "listens": [{"fd": 0, "name": "http"}]}
        reader, writer = os.pipe()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(64):
            answer = await inside.ask("POST", "/v1/runs", body, fds=(reader,))
            answer.refused(422, "not a socket")
        # The last ones may be on their way to being closed, and the opener has some.
        assert len(os.listdir("/proc/self/fd")) < before + 32
        os.close(reader)
        os.close(writer)

    play(tmp_path, attack)
