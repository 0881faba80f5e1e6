"""The service manager's side: sd_notify(3), the watchdog, and sockets that it opened for us.

Without a manager all of it does nothing.  The variables are taken out of the environment, so that
no child believes that they are meant for it.
"""

import os
import socket
import stat
import time
from collections.abc import MutableMapping

from .errors import SetupError

LISTEN_FDS_START = 3  # SD_LISTEN_FDS_START
# The manager's buffer is full only while it is stuck itself; a server does not wait longer.
_PATIENCE_SECONDS = 1.0
_NS_PER_US = 1000


class Notifier:
    """Tells the service manager about a server's state.  Nothing here raises.

    watchdog_seconds: how often `watchdog` wants to be called, half of what the manager waits; None
    when it does not wait.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self._address = _address(environ.pop("NOTIFY_SOCKET", ""))
        self.watchdog_seconds = _watchdog(environ)

    def ready(self, status: str = "") -> bool:
        """Started, or done with reloading."""
        return self._send("READY=1", f"STATUS={_line(status)}" if status else "")

    def status(self, text: str) -> bool:
        """One line for `systemctl status`."""
        return self._send(f"STATUS={_line(text)}")

    def watchdog(self) -> bool:
        """Alive."""
        return self._send("WATCHDOG=1")

    def reloading(self, status: str = "reloading") -> bool:
        """Before reloading; `ready` says that it is done.

        The time tells the manager which of two reloads this is (Type=notify-reload).
        """
        now = time.monotonic_ns() // _NS_PER_US
        return self._send("RELOADING=1", f"MONOTONIC_USEC={now}", f"STATUS={_line(status)}")

    def stopping(self, status: str = "stopping", *, extend_seconds: float = 0.0) -> bool:
        """On the way out.

        extend_seconds: how long it may take from now, beyond the unit's TimeoutStopSec=.
        """
        extend = f"EXTEND_TIMEOUT_USEC={int(extend_seconds * 1e6)}" if extend_seconds else ""
        return self._send("STOPPING=1", f"STATUS={_line(status)}", extend)

    def _send(self, *lines: str) -> bool:
        """Whether the manager got it."""
        if not self._address:
            return False
        data = "\n".join(line for line in lines if line).encode("utf-8", "backslashreplace")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(_PATIENCE_SECONDS)
                sender.sendto(data, self._address)
        except OSError:
            return False  # a manager that restarts; it will ask again, or kill
        return True


def listen_fds(
    environ: MutableMapping[str, str] = os.environ,
    first: int = LISTEN_FDS_START,
    *,
    families: tuple[int, ...] = (socket.AF_UNIX,),
) -> list[tuple[int, str]]:
    """The sockets that the service manager passed, with their names; the caller's from now on.

    families: those that are served.  Raises SetupError for one that is not a listening stream
    socket of one of them.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    found = []
    for at in range(int(count)):
        fd = first + at
        _check_listener(fd, families)
        os.set_inheritable(fd, False)
        found.append((fd, names[at] if at < len(names) and names[at] else "unknown"))
    return found


def _check_listener(fd: int, families: tuple[int, ...]) -> None:
    only_unix = families == (socket.AF_UNIX,)
    place = "a path" if only_unix else "an address or a path"
    hint = f"the socket unit has ListenStream= with {place}, and Accept=no"
    try:
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError as error:
        raise SetupError(
            f"the service manager passed no descriptor {fd}: {error.strerror}",
            hint,
            step="socket activation",
            errno=error.errno or 0,
        ) from None
    if is_socket:
        with socket.socket(fileno=os.dup(fd)) as given:
            fits = given.family in families and given.type == socket.SOCK_STREAM
            listens = given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if fits and listens:
            return
    raise SetupError(
        f"descriptor {fd} of the service manager is not a listening"
        f" {'Unix ' if only_unix else ''}stream socket",
        hint,
        step="socket activation",
    )


def _address(text: str) -> str:
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else ""


def _watchdog(environ: MutableMapping[str, str]) -> float | None:
    """sd_watchdog_enabled(3): for this process, or for whoever has the variable."""
    us, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if not us.isdigit() or int(us) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(us) / 1e6 / 2


def _line(text: str) -> str:
    return " ".join(text.split())
