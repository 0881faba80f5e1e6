"""The network around a component's worker: what it may reach, and everything that it must not.

One Outside serves many attacks.  The rule of the run is one TCP port of 127.0.0.1; near it, one
step to every side, somebody listens who would notice: another port, another address, another
family, the same port by another protocol.
"""

from __future__ import annotations

import os
import re
import select
import socket
import struct
from contextlib import ExitStack
from pathlib import Path

from support.brokers import Rule, sockaddr

# "Whatever is bound right now": the kernel's own choice of a port, in a test's favour.
_ATTEMPTS = 50
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Outside:
    """Listeners; `allowed` is the one that the rule is about."""

    def __init__(self, root: Path) -> None:
        self._held = ExitStack()
        name = f"\0wasisup-network-{os.getpid()}"
        path = str(root / "network.sock")
        self._find_port()
        self.port = self.allowed.getsockname()[1]
        self.rules = (Rule("127.0.0.1", self.port, self.port),)
        other = self._tcp("127.0.0.1", 0)
        self.other_port = other.getsockname()[1]
        self.free_port = _free_port()
        self.forbidden = {
            "another port": other,
            "another address": self._tcp("127.0.0.2", self.port),
            "another address's other port": self._tcp("127.0.0.2", self.other_port),
            "IPv6": self._tcp("::1", self.port),
            "another port of IPv6": self._tcp("::1", self.other_port),
            "UDP": self._udp("127.0.0.1", self.port),
            "another port of UDP": self._udp("127.0.0.1", self.other_port),
            "UDP of IPv6": self._udp("::1", self.port),
            "a Unix socket": self._unix(path),
            "an abstract socket": self._unix(name),
        }
        os.chmod(path, 0o777)
        self.places = {
            "port": str(self.port),
            "other-port": str(self.other_port),
            "free-port": str(self.free_port),
            "unix": (struct.pack("<H", socket.AF_UNIX) + path.encode() + b"\0").hex(),
            "unix-size": str(len(path) + 3),
            "abstract": (struct.pack("<H", socket.AF_UNIX) + name.encode()).hex(),
            "abstract-size": str(len(name) + 2),
        }

    def _find_port(self) -> None:
        """A port that is free for every neighbour of the allowed one as well."""
        for _ in range(_ATTEMPTS):
            self.allowed = socket.create_server(("127.0.0.1", 0), backlog=4096)
            try:
                with ExitStack() as tried:
                    port = self.allowed.getsockname()[1]
                    for host in ("127.0.0.2", "::1"):
                        family = socket.AF_INET6 if ":" in host else socket.AF_INET
                        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                            probe = tried.enter_context(socket.socket(family, kind))
                            probe.bind((host, port))
                    return
            except OSError:
                self.allowed.close()
        raise RuntimeError("no port is free everywhere")

    def _tcp(self, host: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return self._held.enter_context(socket.create_server((host, port), family=family))

    def _udp(self, host: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = self._held.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        made.bind((host, port))
        return made

    def _unix(self, path: str) -> socket.socket:
        made = self._held.enter_context(socket.socket(socket.AF_UNIX))
        made.bind(path)
        made.listen()
        return made

    # --- what attacks say ---

    def spell(self, steps: tuple[str, ...]) -> list[str]:
        """Steps with the places and addresses filled in.

        <HOST|PORT> is a socket address in hex, PORT a number or the name of one; <name> one of
        `places`.
        """

        def fill(found: re.Match[str]) -> str:
            host, bar, port = found[1].partition("|")
            if not bar:
                return self.places.get(host, found[0])
            return sockaddr(host, int(self.places.get(port, port))).hex()

        return [re.sub(r"<([^<>]+)>", fill, step) for step in steps]

    # --- and what they came to ---

    def visits(self) -> int:
        """How many connections have come to where they may; they are reset."""
        count = 0
        while select.select([self.allowed], [], [], 0)[0]:
            connection, _ = self.allowed.accept()
            with connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            count += 1
        return count

    def knocks(self) -> list[str]:
        """Who was reached that nobody may reach.  One attack's knocks are not the next one's."""
        found = []
        for what, listener in self.forbidden.items():
            while select.select([listener], [], [], 0)[0]:
                found.append(what)
                if listener.type == socket.SOCK_STREAM:
                    listener.accept()[0].close()
                else:
                    listener.recv(64)
        return found

    def close(self) -> None:
        """Takes it all down."""
        self._held.close()
        self.allowed.close()


def _free_port() -> int:
    """One that nobody is bound to, for attacks that would bind it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
