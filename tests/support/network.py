"""The other ends of a guest's network: witnesses that should hear nothing, and small servers.

All of it is on loopback, where whatever was sent has arrived when the sender's call returns.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from .needs import unavailable

PATIENCE = 30.0  # seconds until a peer that says nothing fails the test
_EVERY_PROTOCOL = 0x0003  # ETH_P_ALL


def family_of(host: str) -> int:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def free_port(host: str = "127.0.0.1", kind: int = socket.SOCK_STREAM) -> int:
    """A port that nobody has right now."""
    with socket.socket(family_of(host), kind) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def needs_ipv6() -> None:
    """Skips, or fails where everything must work, without an IPv6 loopback."""
    try:
        free_port("::1")
    except OSError:
        unavailable("::1 on the loopback interface")


class Witness:
    """Listens and never answers; heard: whether anybody has connected or sent."""

    def __init__(self, kind: str, host: str = "127.0.0.1", port: int = 0) -> None:
        self._socket = socket.socket(
            family_of(host), socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
        )
        if ":" in host:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self._socket.bind((host, port))
        if kind == "tcp":
            self._socket.listen()
        self._socket.setblocking(False)
        self._kind = kind
        self.port = int(self._socket.getsockname()[1])
        shown = f"[{host}]" if ":" in host else host
        self.address = f"{kind}:{shown}:{self.port}"

    @property
    def heard(self) -> bool:
        try:
            if self._kind == "tcp":
                self._socket.accept()[0].close()
            else:
                self._socket.recv(100)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@contextmanager
def witnesses(*places: tuple[str, str, int]) -> Iterator[list[Witness]]:
    """A witness for each (kind, host, port)."""
    with ExitStack() as stack:
        made = [Witness(*place) for place in places]
        for one in made:
            stack.callback(one.close)
        yield made


class Capture:
    """What goes over the loopback interface, other programs' packets among it (packet(7)).

    Needs CAP_NET_RAW.
    """

    def __enter__(self) -> Self:
        self._socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_EVERY_PROTOCOL)
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.bind(("lo", _EVERY_PROTOCOL))
        self._socket.setblocking(False)
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ports(self) -> set[int]:
        """The ports to which a packet of TCP or UDP has gone over IPv4 so far."""
        found = set()
        while True:
            try:
                packet = self._socket.recv(128)
            except BlockingIOError:
                return found
            if len(packet) >= 24 and packet[0] >> 4 == 4 and packet[9] in (6, 17):
                start = (packet[0] & 15) * 4 + 2
                found.add(int.from_bytes(packet[start : start + 2], "big"))


@contextmanager
def _serving(listener: socket.socket, serve: Callable[[socket.socket], object]) -> Iterator[int]:
    """Serves in a thread until the listener is shut down: yields the port."""

    def loop() -> None:
        try:
            while True:
                serve(listener)
        except OSError:
            return  # it has been shut down

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        try:
            listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # a datagram socket is not connected, but what waits in it wakes up all the same
        thread.join(PATIENCE)
        listener.close()


def _answer(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(PATIENCE)
        try:
            while data := connection.recv(65536):
                connection.sendall(data.upper())
        except (ConnectionResetError, TimeoutError):
            return  # the guest has ended in the middle


@contextmanager
def upper_tcp(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A TCP server that answers in upper case, one connection after the other: its port."""
    listener = socket.create_server((host, port), family=family_of(host), backlog=64)
    with _serving(listener, _answer) as number:
        yield number


@contextmanager
def upper_udp(host: str = "127.0.0.1") -> Iterator[int]:
    """The same with datagrams."""

    def answer(sock: socket.socket) -> None:
        data, peer = sock.recvfrom(65536)
        if not peer or peer[1] == 0:
            raise OSError("shut down")
        sock.sendto(data.upper(), peer)

    with _serving(_free_for_both(host), answer) as port:
        yield port


def _free_for_both(host: str) -> socket.socket:
    """A UDP socket at a port that a TCP socket can have, too."""
    while True:
        sock = socket.socket(family_of(host), socket.SOCK_DGRAM)
        sock.bind((host, 0))
        try:
            with socket.socket(family_of(host)) as probe:
                probe.bind((host, sock.getsockname()[1]))
        except OSError:
            sock.close()
        else:
            return sock


class Web:
    """An HTTP server.  paths: what it was asked for.

    /to/REST redirects to http://REST; anything else is answered with its path, or what was posted
    in upper case.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.paths: list[str] = []

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@contextmanager
def web() -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            served.paths.append(self.path)
            if self.path.startswith("/to/"):
                self.say(302, b"", location=f"http://{self.path.removeprefix('/to/')}")
            else:
                self.say(200, self.path.encode())

        def do_POST(self) -> None:
            served.paths.append(self.path)
            self.say(200, self.rfile.read(int(self.headers["content-length"])).upper())

        def say(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing: the test reads `paths`."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = Web(server.server_port)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join(PATIENCE)
