"""What a component's world says it needs, in words: `needs` for WASI 0.2.

A world names the very functions of an interface that are used, so this says more than a module's
imports do.  Where preview 1 was translated (by the adapter that toolchains put in) it says no more.
"""

from .needs import ARGUMENTS, CLOCKS, ENVIRONMENT, PROCESS, RANDOM, READS, STREAMS, WRITES, Needs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

FILES = "wasi:filesystem/types"
PREOPENS = "wasi:filesystem/preopens"
COMMAND = "wasi:cli/run"
SERVER = "wasi:http/incoming-handler"

CONNECTS = "network: opens connections"
LISTENS = "network: waits for connections"
DATAGRAMS = "network: sends and receives datagrams"
NAMES = "network: looks names up"
HTTP = "makes HTTP requests"

# By interface, in the order of the engine's list (core/engine/component.c; a test compares).
_GROUP_OF = {
    "wasi:cli/environment": ARGUMENTS,
    "wasi:cli/exit": PROCESS,
    "wasi:cli/stderr": STREAMS,
    "wasi:cli/stdin": STREAMS,
    "wasi:cli/stdout": STREAMS,
    "wasi:cli/terminal-input": STREAMS,
    "wasi:cli/terminal-output": STREAMS,
    "wasi:cli/terminal-stderr": STREAMS,
    "wasi:cli/terminal-stdin": STREAMS,
    "wasi:cli/terminal-stdout": STREAMS,
    "wasi:clocks/monotonic-clock": CLOCKS,
    "wasi:clocks/wall-clock": CLOCKS,
    PREOPENS: READS,
    FILES: READS,
    "wasi:http/outgoing-handler": HTTP,
    "wasi:http/types": HTTP,
    "wasi:io/error": STREAMS,
    "wasi:io/poll": CLOCKS,
    "wasi:io/streams": STREAMS,
    "wasi:random/insecure": RANDOM,
    "wasi:random/insecure-seed": RANDOM,
    "wasi:random/random": RANDOM,
    "wasi:sockets/instance-network": CONNECTS,
    "wasi:sockets/ip-name-lookup": NAMES,
    "wasi:sockets/network": CONNECTS,
    "wasi:sockets/tcp": CONNECTS,
    "wasi:sockets/tcp-create-socket": CONNECTS,
    "wasi:sockets/udp": DATAGRAMS,
    "wasi:sockets/udp-create-socket": DATAGRAMS,
}
# Functions that are good for something else than their interface.
_WRITING = (
    "write write-via-stream append-via-stream set-size set-times set-times-at create-directory-at"
    " link-at remove-directory-at rename-at symlink-at unlink-file-at sync sync-data"
)
_EXCEPTIONS = {
    **{(FILES, f"[method]descriptor.{name}"): WRITES for name in _WRITING.split()},
    ("wasi:cli/environment", "get-environment"): ENVIRONMENT,
    ("wasi:sockets/tcp", "[method]tcp-socket.start-listen"): LISTENS,
    ("wasi:sockets/tcp", "[method]tcp-socket.finish-listen"): LISTENS,
    ("wasi:sockets/tcp", "[method]tcp-socket.accept"): LISTENS,
}
INTERFACES = tuple(_GROUP_OF)
GROUPS = (
    STREAMS,
    READS,
    WRITES,
    ARGUMENTS,
    ENVIRONMENT,
    CLOCKS,
    RANDOM,
    CONNECTS,
    LISTENS,
    DATAGRAMS,
    NAMES,
    HTTP,
    PROCESS,
)


class WorldNeeds(Needs):
    """As Needs, for a component's world.

    groups: functions by group of GROUPS here.  unknown: (interface, name, kind).  functions: those
    that --invoke could name, "interface#function".  server: it answers HTTP requests.
    """

    __slots__ = ("command", "server")

    form = "component"

    def __init__(self, items: "Sequence[Any]") -> None:
        self.command = False
        self.server = False
        super().__init__(items, GROUPS)

    def _take_export(self, item: "Any") -> None:
        interface = _without_version(item.interface)
        if interface == COMMAND:
            self.command = True
        elif interface == SERVER:
            self.server = True
        elif item.kind == "function":
            name = f"{item.interface}#{item.name}" if item.interface else item.name
            self.functions.append((name, item.type))

    def _take_import(self, item: "Any") -> None:
        if item.kind == "interface":
            return  # types alone
        interface = _without_version(item.module)
        group = None if interface is None else _GROUP_OF.get(interface)
        if interface is None or group is None:
            self.unknown.append((item.module or "(world)", item.name, item.kind))
        elif item.kind == "function":
            group = _EXCEPTIONS.get((interface, item.name), group)
            self.groups[group].append(item.name.removeprefix("[method]"))

    @property
    def is_command(self) -> bool:
        """Whether `run` has something to call."""
        return self.command

    @property
    def is_reactor(self) -> bool:
        """Components need no initialising."""
        return False

    @property
    def opens_files(self) -> bool:
        """Whether it could open a file."""
        return any(name == "descriptor.open-at" for name in self.groups[READS])

    @property
    def accepts(self) -> bool:
        """A component takes no socket that listens already."""
        return False

    @property
    def uses_network(self) -> bool:
        """Whether it could use a network, by any of the ways there are."""
        return any(self.groups[group] for group in (CONNECTS, LISTENS, DATAGRAMS, NAMES, HTTP))

    @property
    def runs(self) -> bool:
        """Whether `run` can do anything with it."""
        return not self.unknown and (self.command or bool(self.functions))

    @property
    def notes(self) -> "list[str]":
        """What its world does not say about the least that could serve it."""
        notes = super().notes
        if self.uses_network:
            notes.append("which addresses it needs its world does not say either")
        return notes


def _without_version(name: str) -> "str | None":
    """The interface's name when it is of WASI 0.2, else None."""
    interface, at, version = name.partition("@0.2.")
    return interface if at and version.isdecimal() else None
