"""Reading what is granted: directories, scratch space, sockets, variables.

These functions read text and touch nothing; whether a directory is there is asked by `build`.
"""

import os

from ..supervisor.model import MAY_MISS, DirGrant, ListenGrant, TmpfsGrant
from .settings import TMPFS_SIZE
from .units import UnitError, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..supervisor.model import NetGrant

DIR_FORM = "HOST[::GUEST][::ro|::rw]"

_MODES = {"ro": True, "rw": False}


class GrantError(ValueError):
    """Not a grant.  The text is a clause to put after the flag's name."""


def parse_dir(text: str) -> DirGrant:
    """A directory: `HOST[::GUEST][::ro|::rw]`.

    The guest's name is HOST as it was typed unless GUEST says otherwise (so does wasmtime), and it
    may be written unless `::ro` is at the end.  A guest directory that is really named `ro` can be
    had as `HOST::./ro`.  Raises GrantError.
    """
    parts = text.split("::")
    read_only = False
    if len(parts) > 1 and parts[-1] in _MODES:
        read_only = _MODES[parts.pop()]
    if len(parts) > 2:
        raise GrantError(f"{text!r} has too many parts; write it like {DIR_FORM}")
    host = parts[0]
    guest = parts[1] if len(parts) == 2 else host
    if not host:
        raise GrantError(f"{text!r} names no host directory; write it like {DIR_FORM}")
    if not guest:
        raise GrantError(f"{text!r} has an empty guest name; write it like {DIR_FORM}")
    # A slip in the mode must not become a name that may be written.
    if len(parts) == 2 and guest.lower() in _MODES:
        raise GrantError(
            f"{text!r}: the mode is written once, in small letters, like {DIR_FORM}; a guest"
            f" directory of that name is ./{guest}"
        )
    if len(parts) == 2 and guest.endswith((":ro", ":rw")):
        raise GrantError(f"{text!r}: two colons stand before the mode, like {DIR_FORM}")
    return DirGrant(host, _no_nul(guest), read_only)


def parse_tmpfs(text: str) -> TmpfsGrant:
    """Scratch space: `GUEST[:SIZE]`, 64MiB unless SIZE says otherwise.  Raises GrantError."""
    guest, colon, size_text = text.rpartition(":")
    if not colon:
        guest, size = text, TMPFS_SIZE
    else:
        try:
            size = parse_size(size_text)
        except UnitError as error:
            raise GrantError(f"{text!r}: {error} (the form is GUEST[:SIZE])") from None
    if not guest:
        raise GrantError(f"{text!r} names no guest directory; write it like /tmp:64MiB")
    return TmpfsGrant(_no_nul(guest), size)


def parse_listen(text: str) -> ListenGrant:
    """A listening TCP socket: `HOST:PORT`, an IPv6 address in brackets.  Raises GrantError."""
    host, colon, port_text = text.rpartition(":")
    form = "write it like 127.0.0.1:8080 or [::1]:8080"
    if not colon or not host:
        raise GrantError(f"{text!r} is not HOST:PORT; {form}")
    if host.startswith("[") and host.endswith("]") and ":" in host:
        host = host[1:-1]
    elif ":" in host or "[" in host or "]" in host:
        raise GrantError(f"{text!r}: an IPv6 address goes in brackets; {form}")
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5):
        raise GrantError(f"{text!r} has no port number; {form}")
    port = int(port_text)
    if port == 0:
        raise GrantError(f"{text!r}: nobody could know which port 0 became; name one")
    if port > 65535:
        raise GrantError(f"{text!r}: ports end at 65535")
    return ListenGrant(_no_nul(host), port)


def parse_net(text: str) -> "NetGrant | str":
    """A grant of the network, or "host"; see policies/network.py.  Raises GrantError."""
    # Not at the top: it brings ipaddress along, which few runs need.
    from . import network

    return network.parse_net(text)


def parse_env(text: str) -> "tuple[str, str | None]":
    """A variable: `K=V`, or `K` for the caller's value (None here).  Raises GrantError."""
    name, equals, value = text.partition("=")
    if not name:
        raise GrantError(f"{text!r} names no variable; write it like NAME=VALUE, or NAME")
    return _no_nul(name), _no_nul(value) if equals else None


def parse_walls(text: str) -> "list[str]":
    """Names of walls, with commas between them.  Raises GrantError for a name that is none."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in MAY_MISS:
            raise GrantError(f"{name!r} cannot be missing; what can is {', '.join(MAY_MISS)}")
    return names


# By the kind of the setting (settings.SETTINGS).
PARSERS: "dict[str, Callable[[str], Any]]" = {
    "dir": parse_dir,
    "tmpfs": parse_tmpfs,
    "net": parse_net,
    "listen": parse_listen,
    "env": parse_env,
    "walls": parse_walls,
}


def guest_key(guest: str) -> str:
    """What makes two guest names the same directory: `/tmp`, `/tmp/` and `//tmp/.` are one."""
    normal = os.path.normpath(guest)
    return normal[1:] if normal.startswith("//") else normal


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise GrantError("there is a NUL byte in it")
    return text
