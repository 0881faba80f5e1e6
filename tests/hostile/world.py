"""The outside of the wall: everything an attack would have to reach, and whether it was reached.

One World serves many attacks.  It holds a secret in every place that a worker must not read from, a
listener of every family, a process that would notice a signal, and a picture of the files around
the grant.
"""

from __future__ import annotations

import ctypes
import os
import resource
import secrets
import select
import shutil
import signal
import socket
import stat
import struct
from pathlib import Path

from .host import HANDLE_BYTES, Ipc, file_handle, io_priority
from .steps import data

SCRIPT = "#!/bin/sh\necho executed\n"


def _unix_address(name: bytes) -> bytes:
    return struct.pack("<H", socket.AF_UNIX) + name


class World:
    """The host around all attacks, below the directory `root` (reachable by all)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.token = secrets.token_hex(16)
        self.signals: list[int] = []
        self._secret_memory = ctypes.create_string_buffer(self.token.encode())
        self._make_files()
        self._make_listeners()
        signal.signal(signal.SIGUSR1, lambda number, _: self.signals.append(number))
        self.victim = self._fork_victim()
        self.ipc = Ipc(self.token.encode(), f"wasisup-walls-{os.getpid()}")
        self.places = self._places()
        self._before = self._picture()

    # --- making it ---

    def _make_files(self) -> None:
        (self.root / "secret.txt").write_text(self.token)
        (self.root / "stdin.txt").write_text("harmless")
        self.writable = self.root / "rw"
        self.read_only = self.root / "ro"
        self.read_only.mkdir()
        (self.read_only / "locked.txt").write_text("locked")
        (self.read_only / "script").write_text(SCRIPT)
        (self.read_only / "script").chmod(0o755)
        self.fill()

    def fill(self) -> None:
        """Makes the writable grant anew, whatever the last attack did in there."""
        if self.writable.exists():
            for entry in self.writable.iterdir():
                shutil.rmtree(
                    entry
                ) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        self.writable.mkdir(exist_ok=True)
        self.writable.chmod(0o777)
        (self.writable / "inside.txt").write_text("inside")
        (self.writable / "inside.txt").chmod(0o666)
        (self.writable / "script").write_text(SCRIPT)
        (self.writable / "script").chmod(0o755)
        (self.writable / "link-neighbour").symlink_to("../secret.txt")
        (self.writable / "link-absolute").symlink_to(self.root / "secret.txt")
        (self.writable / "link-parent").symlink_to("..")
        (self.writable / "link-proc").symlink_to("/proc/self")
        (self.writable / "a").mkdir()
        (self.writable / "a").chmod(0o777)
        self._filled = self._grant_picture()

    def _make_listeners(self) -> None:
        name = f"wasisup-walls-{os.getpid()}"
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(str(self.root / "listen.sock"))
        (self.root / "listen.sock").chmod(0o777)
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind(f"\0{name}")
        self.datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.datagrams.bind(f"\0{name}-datagrams")
        for listener in (self.unix, self.abstract):
            listener.listen()

    def _fork_victim(self) -> int:
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
            while True:
                signal.pause()
        return pid

    def _places(self) -> dict[str, str]:
        unix = _unix_address(str(self.root / "listen.sock").encode())
        abstract = _unix_address(self.abstract.getsockname())
        datagrams = _unix_address(self.datagrams.getsockname())
        inet = struct.Struct(">H4s8x")
        here = socket.inet_aton("127.0.0.1")
        return {
            "secret": str(self.root / "secret.txt"),
            "secret-at": str(ctypes.addressof(self._secret_memory)),
            "victim": str(self.victim),
            "supervisor": str(os.getpid()),
            "handle": file_handle(str(self.root / "secret.txt")).hex(),
            "room": data(struct.pack("<Ii", HANDLE_BYTES, 0) + bytes(HANDLE_BYTES)),
            "tcp": (b"\2\0" + inet.pack(self.tcp.getsockname()[1], here)).hex(),
            "udp": (b"\2\0" + inet.pack(self.udp.getsockname()[1], here)).hex(),
            "unix": unix.hex(),
            "unix-size": str(len(unix)),
            "abstract": abstract.hex(),
            "abstract-size": str(len(abstract)),
            "abstract-dgram": datagrams.hex(),
            "abstract-dgram-size": str(len(datagrams)),
            "shm-key": str(self.ipc.key),
            "shm-id": str(self.ipc.shm),
            "msg-id": str(self.ipc.messages),
            "queue": self.ipc.queue_name,
            "key": self.ipc.queue_name,
            "key-id": str(self.ipc.user_key),
        }

    # --- looking at it ---

    def _grant_picture(self) -> list[tuple[object, ...]]:
        return [_look(path) for path in sorted(self.writable.rglob("*"))]

    def _picture(self) -> dict[str, object]:
        outside = [p for p in sorted(self.root.rglob("*")) if not p.is_relative_to(self.writable)]
        return {
            "files": [_look(path) for path in outside if path != self.read_only],
            "niceness": os.getpriority(os.PRIO_PROCESS, 0),
            "I/O priority": io_priority(),
            "CPU limit": resource.getrlimit(resource.RLIMIT_CPU),
            "processors": os.sched_getaffinity(0),
            "host name": socket.gethostname(),
            "mounts": Path("/proc/self/mountinfo").read_text(),
            "IPC": self.ipc.untouched(),
        }

    def damage(self, output: bytes) -> list[str]:
        """What an attack that said `output` did to the outside, in words; then mends the grant."""
        found = [f"the output holds a secret: {output[-200:]!r}"] if self._leaked(output) else []
        listeners = [self.tcp, self.udp, self.unix, self.abstract, self.datagrams]
        found += [f"a knock on {knocked}" for knocked in select.select(listeners, [], [], 0)[0]]
        found += [f"signal {number} came here" for number in self.signals]
        self.signals.clear()
        if os.waitid(os.P_PID, self.victim, os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT):
            found.append("the victim was signalled")
        found += [
            f"a dangerous file in the grant: {p}" for p in self.writable.rglob("*") if _dangerous(p)
        ]
        if self._grant_picture() != self._filled:
            self.fill()
        now = self._picture()
        found += [
            f"{what} changed: {was} -> {now[what]}"
            for what, was in self._before.items()
            if now[what] != was
        ]
        self._before = now  # one attack's damage is not the next one's
        return found

    def _leaked(self, output: bytes) -> bool:
        raw = self.token.encode()
        return raw in output or raw.hex().encode() in output

    def close(self) -> None:
        """Takes it all down."""
        os.kill(self.victim, signal.SIGKILL)
        os.waitpid(self.victim, 0)
        self.ipc.close()
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        for listener in (self.tcp, self.udp, self.unix, self.abstract, self.datagrams):
            listener.close()


def _look(path: Path) -> tuple[object, ...]:
    info = path.lstat()
    body = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
    return str(path), info.st_mode, info.st_uid, info.st_gid, info.st_nlink, body


def _dangerous(path: Path) -> bool:
    """A device, or a program that would run with its owner's rights."""
    info = path.lstat()
    if stat.S_ISBLK(info.st_mode) or stat.S_ISCHR(info.st_mode):
        return True
    return stat.S_ISREG(info.st_mode) and info.st_mode & 0o6111 > 0o1111 and info.st_size > 0
