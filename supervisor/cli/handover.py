"""What `wasisup run` hands to a daemon: the request as JSON, and the descriptors it speaks of.

A policy of the system's is named, so that the daemon's administrator has the say in it; any other
was read here, and what it sets goes along as if it had been typed.
"""

import os

from ..errors import UsageError
from ..grants import open_directory, open_listener, open_module
from ..model import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TypeVar

    from ...policies.build import Plan
    from ...policies.policy import Policy
    from ..grants import Descriptors
    from ..model import ListenGrant

    T = TypeVar("T")

_SIZES = ("memory", "file-size", "output")
_TIMES = ("cpu-time", "timeout")
_NUMBERS = ("fds", "fuel", "cpus")


class Sources:
    """Where a plan's settings came from.

    flags: how many values were typed, by key of `settings.SETTINGS`.  net: those of --net.
    labels: for the record.
    """

    __slots__ = ("flags", "labels", "net", "policy")

    def __init__(
        self,
        flags: "dict[str, int]",
        policy: "Policy | None",
        labels: "dict[str, str]",
        net: "Sequence[str]" = (),
    ) -> None:
        self.flags = flags
        self.policy = policy
        self.labels = labels
        self.net = net


class Handover:
    """A request in the making.

    streams: this process's stdio for the guest's, None in place of a closed one; no streams at all:
    a detached run.  fds: what goes with the request; `held` owns those that are opened here.
    Raises ModuleNotFound, InvalidModule and SetupError as the embedded supervisor does.
    """

    __slots__ = ("_fields", "_named", "_plan", "_said", "_sources", "fds")

    def __init__(
        self,
        plan: "Plan",
        sources: Sources,
        streams: "Sequence[int | None] | None",
        held: "Descriptors",
    ) -> None:
        self._plan = plan
        self._sources = sources
        self.fds: list[int] = []
        policy = sources.policy
        self._named = policy is not None and policy.is_systems
        self._said = set(sources.flags)
        if policy is not None and not self._named:
            self._said |= set(policy.values)
        module = plan.request.module
        source = held.own(open_module(module))
        self._fields: dict[str, Any] = {
            "module": {"fd": self._add(source), "name": _name(module)},
            "attach": streams is not None,
        }
        self._add_grants(held)
        if plan.request.net or plan.request.net_host:
            self._add_net(source, held)
        for name, fd in zip(("stdin", "stdout", "stderr"), streams or (), strict=False):
            if fd is None:  # closed here: to the guest, nothing
                fd = held.own(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))  # noqa: PLW2901
            self._fields[name] = {"fd": self._add(fd)}

    def _add_grants(self, held: "Descriptors") -> None:
        request = self._plan.request
        self._fields["dirs"] = [
            {
                "guest": _text(grant.guest, "--dir"),
                "fd": self._add(held.own(open_directory(grant))),
                "read_only": grant.read_only,
                "host": _name(os.path.realpath(grant.host)),
            }
            for grant in self._own("dir", request.dirs)
        ]
        self._fields["listens"] = [
            self._listener(listen, held) for listen in self._own("tcplisten", request.listens)
        ]

    def _add_net(self, module: int, held: "Descriptors") -> None:
        """Grants of the network: the daemon's to carry out, but for a module's sockets."""
        from ...policies.network import HOST, format_net, parse_net
        from .. import launch
        from ..network import as_listener

        request = self._plan.request
        texts = list(self._sources.net)
        if not self._named:
            texts = [format_net(grant) for grant in request.net]
            texts += [HOST] if request.net_host else []
        if not launch.is_component_source(module):
            left = []
            for text in texts:
                grant = parse_net(text)
                listen = None if isinstance(grant, str) else as_listener(grant)
                if listen is None:
                    left.append(text)
                else:
                    self._fields["listens"].append(self._listener(listen, held))
            texts = left
        self._fields["net"] = texts

    def _listener(self, listen: "ListenGrant", held: "Descriptors") -> "dict[str, Any]":
        return {
            "fd": self._add(held.own_socket(open_listener(listen))),
            "name": f"{listen.host}:{listen.port}",
        }

    def request(self) -> "dict[str, Any]":
        """A `wire.RunRequest`, ready for JSON.  Raises UsageError for what JSON cannot say."""
        request = self._plan.request
        umask = os.umask(0o077)
        os.umask(umask)
        argv0 = os.path.basename(request.module) if request.argv0 is None else request.argv0
        fields = {
            **self._fields,
            "argv0": _text(argv0, "--argv0"),
            "args": [_bytes(arg) for arg in request.args],
            # The policy's too: what NAME stands for only its caller can say.
            "env": {_text(name, "--env"): _bytes(value) for name, value in request.env},
            "tmpfs": [
                {"guest": _text(scratch.guest, "--tmpfs"), "size": scratch.size}
                for scratch in self._own("tmpfs", request.tmpfs)
            ],
            "policy": request.policy if self._named else "default",
            "quotas": self._quotas(),
            "allow_missing": sorted(request.allow_missing),
            "umask": umask,
            "labels": self._sources.labels,
        }
        if "engine" in self._said:
            fields["engine"] = request.engine
        if "invoke" in self._said:
            fields["invoke"] = _text(request.invoke or "", "--invoke")
        if "clock-resolution" in self._said:
            fields["clock_resolution"] = _time(request.clock_resolution or None)
        return fields

    def _quotas(self) -> "dict[str, Any]":
        """Those that somebody set, as the API has them: a number of the size kind counts bytes."""
        found: dict[str, Any] = {}
        for key in (*_SIZES, *_TIMES, *_NUMBERS):
            if key in self._said:
                name = key.replace("-", "_")
                value = getattr(self._plan.request.quotas, name)
                found[name] = _time(value) if key in _TIMES else value
                if value is None:
                    found[name] = "none"
        return found

    def _own(self, key: str, grants: "list[T]") -> "list[T]":
        """Those that are not the daemon's to grant: all, or what was typed beside its policy."""
        if not self._named:
            return grants
        typed = self._sources.flags.get(key, 0)
        return grants[len(grants) - typed :]

    def _add(self, fd: int) -> int:
        self.fds.append(fd)
        return len(self.fds) - 1


def _time(ns: "int | None") -> str:
    return "none" if ns is None else f"{ns}ns"


def _bytes(value: "str | bytes") -> "str | dict[str, str]":
    data = os.fsencode(value)
    try:
        return data.decode()
    except UnicodeDecodeError:
        import binascii

        return {"base64": binascii.b2a_base64(data, newline=False).decode()}


def _text(value: str, flag: str) -> str:
    if value.isascii() or not any("\udc80" <= c <= "\udcff" for c in value):
        return value
    raise UsageError(
        f"{flag}: {value!r} is not UTF-8, and so cannot be said to a daemon",
        "run it here: --no-daemon",
    )


def _name(path: str) -> str:
    """An absolute path for the record, made printable."""
    return printable(os.path.abspath(path))
