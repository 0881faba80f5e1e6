"""journald's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): fields, not lines.

One datagram an entry.  An entry that is too large for one goes as a sealed memfd.
"""

import errno
import fcntl
import os
import re
import socket
import struct
from collections.abc import Mapping, MutableMapping
from typing import Any

from .model import printable

SOCKET = "/run/systemd/journal/socket"
IDENTIFIER = "wasisup"

# Fields of their own name, so that `journalctl RUN_ID=...` finds them.
_FIELDS = {"run": "RUN_ID", "run_id": "RUN_ID", "uid": "UID", "policy": "POLICY"}
_PREFIX = "WASISUP_"
_MAX_NAME = 64  # journald refuses longer ones
# syslog(3)
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


class Journal:
    """Sends events to the journal; what journald does not take at once is dropped, and counted."""

    def __init__(self, path: str = SOCKET) -> None:
        self.dropped = 0
        self._path = path
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_UNIX, kind)

    def write(self, event: MutableMapping[str, Any]) -> None:
        """Sends a finished event of structlog."""
        entry = encode(event)
        try:
            self._socket.sendto(entry, socket.MSG_NOSIGNAL, self._path)
        except OSError as error:
            # ENOBUFS: the same as EMSGSIZE, for entries over net.core.wmem_max.
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS) or not self._send_file(entry):
                self.dropped += 1

    def close(self) -> None:
        self._socket.close()

    def _send_file(self, entry: bytes) -> bool:
        try:
            fd = os.memfd_create("wasisup-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError:
            return False
        try:
            with open(fd, "wb", buffering=0, closefd=False) as file:
                file.write(entry)
            seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))]
            self._socket.sendmsg([], rights, socket.MSG_NOSIGNAL, self._path)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True


def encode(event: Mapping[str, Any]) -> bytes:
    """The entry of an event.

    MESSAGE has the fields as well, since that is all that `journalctl` shows.
    """
    fields = dict(event)
    level = fields.pop("level", "info")
    exception = fields.pop("exception", None)
    message = _text(fields.pop("event", ""))
    shown = "".join(f" {key}={_word(value)}" for key, value in fields.items() if value is not None)
    trace = f"\n{exception}" if exception else ""
    entry = [
        _field("MESSAGE", f"{message}{shown}{trace}"),
        _field("PRIORITY", str(_PRIORITIES.get(level, 6))),
        _field("SYSLOG_IDENTIFIER", IDENTIFIER),
    ]
    for key, value in fields.items():
        if value is not None:
            entry.append(_field(_FIELDS.get(key) or _name(key), _text(value)))
    return b"".join(entry)


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" not in data:
        return b"%s=%s\n" % (name.encode(), data)
    return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data)


def _name(key: str) -> str:
    return (_PREFIX + re.sub(r"[^A-Z0-9]", "_", key.upper()))[:_MAX_NAME]


def _text(value: Any) -> str:
    return printable(value, "\n\t") if isinstance(value, (str, bytes)) else str(value)


def _word(value: Any) -> str:
    text = printable(value) if isinstance(value, (str, bytes)) else str(value)
    return repr(text) if not text or " " in text else text
