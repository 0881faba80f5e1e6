"""Attacks with descriptors that whoever closes them waits for."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.api import connect_as
from support.command import SAFETY_NET
from support.openers import NOBODY, needs_root
from support.puppet import Inside, play
from wasisup.supervisor.daemon import closing

_FOR_EVER = 3600


@contextmanager
def lingering() -> Iterator[int]:
    """A TCP socket whose last close waits for an hour, for a peer that reads nothing."""
    with ExitStack() as held, socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        sock = held.enter_context(socket.create_connection(listener.getsockname()))
        peer, _ = listener.accept()
        sock.setblocking(False)
        try:
            while True:
                sock.send(bytes(1 << 20))
        except BlockingIOError:
            pass
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, _FOR_EVER))
        try:
            yield sock.detach()
        finally:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()  # with a reset, which ends the waiting


def _hand_over(sock: socket.socket, fd: int) -> None:
    """Sends a descriptor with a request, and keeps none: it is the daemon that closes it last."""
    with sock:
        socket.send_fds(sock, [b"GET /v1/healthz HTTP/1.1\r\n"], [fd])
        os.close(fd)
        sock.sendall(b"\r\n")
        assert b" 200 " in sock.recv(64)


@needs_root
def test_close_that_waits_holds_nobody_else_up(tmp_path: Path) -> None:
    """While one caller's sockets linger, another's pipe is closed and its reader sees the end."""

    async def attack(inside: Inside) -> None:
        with ExitStack() as stack:
            for _ in range(3):
                sock = connect_as(inside.socket, *NOBODY)
                await asyncio.to_thread(_hand_over, sock, stack.enter_context(lingering()))
            reader, writer = os.pipe()
            await asyncio.to_thread(_hand_over, inside.connect(), writer)
            end = asyncio.to_thread(os.read, reader, 1)
            assert await asyncio.wait_for(end, SAFETY_NET) == b""
            os.close(reader)
            assert closing.held(NOBODY.uid)  # or nothing would have been shown

    play(tmp_path, attack)


@needs_root
def test_callers_descriptors_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that never become whole hold a share of the daemon's descriptors and not all."""

    async def attack(inside: Inside) -> None:
        reader, writer = os.pipe()
        half = b"GET /v1/healthz HTTP/1.1\r\n"
        most = closing.share()
        refused = False
        with ExitStack() as stack:
            for _ in range(most // 100 + 8):
                sock = stack.enter_context(connect_as(inside.socket, *NOBODY))
                await asyncio.to_thread(socket.send_fds, sock, [half], [reader] * 100)
                # Another caller's request comes after it, and is served.
                (await inside.ask("GET", "/v1/healthz")).ok()
                refused = refused or _has_answer(sock)
            assert refused
            assert closing.held(NOBODY.uid) <= most + 228
        os.close(reader)
        os.close(writer)

    def _has_answer(sock: socket.socket) -> bool:
        return bool(select.select([sock], [], [], 0)[0]) and b" 429 " in sock.recv(64)

    monkeypatch.setattr(closing, "share", lambda: 512)
    play(tmp_path, attack)
