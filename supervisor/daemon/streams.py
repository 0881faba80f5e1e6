"""A run's streams on their way to and from clients."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from msgspec import UNSET

from .. import wire
from . import output
from .job import Job
from .records import Records

# How often output is looked at for those who follow it.  Kept output lies in memory files, which
# inotify does not cover (Linux 6.14), or on a disk.
FOLLOW_SECONDS = 0.05
_PART_BYTES = 64 << 10
_CONTROLS = bytes({*range(32)} - set(b"\t\n\r"))
_encode = msgspec.json.Encoder().encode


async def ended_logs(
    records: Records, folder: str, run: str, streams: "tuple[output.Stream, ...]"
) -> "AsyncIterator[tuple[output.Stream, bytes]]":
    """What a run that has ended wrote: its records have it, or files in `folder`."""
    stored = records.output(run)
    if stored is not None:
        for stream, data in zip(output.STREAMS, stored, strict=True):
            if stream in streams and data:
                yield stream, data
        return
    kept = output.from_files(folder, run)
    if kept is None:
        return
    try:
        for stream in streams:
            at = 0
            while data := await asyncio.to_thread(kept.read, stream, at, _PART_BYTES):
                at += len(data)
                yield stream, data
    finally:
        kept.close()


async def live_logs(
    job: Job, streams: "tuple[output.Stream, ...]", *, follow: bool
) -> "AsyncIterator[tuple[output.Stream, bytes]]":
    """What a live run has written, and with `follow` what it goes on to write."""
    # Own descriptors: those of the run are closed when it ends.
    lent = {stream: fd for stream in streams if (fd := job.kept.fd(stream)) is not None}
    fds = {stream: os.dup(fd) for stream, fd in lent.items()}
    at = dict.fromkeys(fds, 0)
    end = asyncio.ensure_future(job.ended())
    try:
        while True:
            over = end.done() or not follow
            for stream, fd in fds.items():
                while data := os.pread(fd, _PART_BYTES, at[stream]):
                    at[stream] += len(data)
                    yield stream, data
            if over:
                return
            await asyncio.wait([end], timeout=FOLLOW_SECONDS)
    finally:
        end.cancel()
        for fd in fds.values():
            os.close(fd)


async def raw_parts(
    parts: "AsyncIterator[tuple[output.Stream, bytes]]",
) -> AsyncIterator[bytes]:
    """The bytes alone."""
    async for _, data in parts:
        yield data


async def chunks(
    parts: "AsyncIterator[tuple[output.Stream, bytes]]",
) -> AsyncIterator[bytes]:
    """Lines of wire.LogChunk."""
    async for stream, data in parts:
        text, raw = as_text(data)
        yield _encode(wire.LogChunk(stream=stream, text=text, base64=raw)) + b"\n"


def as_text(data: bytes) -> Any:
    """As text, or else as bytes: one of the two is UNSET.

    Text that is mostly control characters would take six bytes each in JSON, and so goes as bytes.
    """
    if len(data) > _PART_BYTES and len(data.translate(None, _CONTROLS)) < len(data) // 2:
        return UNSET, data
    try:
        return data.decode(), UNSET
    except UnicodeDecodeError:
        return UNSET, data


async def write_all(job: Job, data: bytes) -> None:
    """Writes to an open stdin as the guest reads it.  Raises BrokenPipeError when it does not."""
    loop = asyncio.get_running_loop()
    rest = memoryview(data)
    while rest:
        fd = job.prepared.stdin_writer
        if fd is None:
            raise BrokenPipeError
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            # By a descriptor of its own: the run's is closed at its end, and its number given on.
            own = os.dup(fd)
            ready = asyncio.Event()
            loop.add_writer(own, ready.set)
            waiting = asyncio.ensure_future(ready.wait())
            ended = asyncio.ensure_future(job.ended())
            try:
                await asyncio.wait([waiting, ended], return_when=asyncio.FIRST_COMPLETED)
            finally:
                loop.remove_writer(own)
                os.close(own)
                waiting.cancel()
                ended.cancel()
