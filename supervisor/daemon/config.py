"""The daemon's configuration: a TOML file, none needed.

root's is /etc/wasisup/wasisup.toml, an ordinary user's ~/.config/wasisup/wasisup.toml;
`systemd/wasisup.toml` is the form of it, with every key explained.  Whoever can write the file
decides what everybody may do: it has to be its daemon's user's, or root's, and nobody else's.
"""

import grp
import os
import pwd
import resource
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from ...policies import policy as policies
from ..errors import ConfigError
from ..places import default_path, default_socket, default_state
from .access import ANY, Access, Caller, Scope
from .config_file import (
    MIB,
    CallerRights,
    Ceilings,
    File,
    Limits,
    Log,
    Records,
    Rights,
    read,
)
from .machine import memory_size
from .tables import Reader

__all__ = [
    "Ceilings",
    "Config",
    "Limits",
    "Log",
    "Records",
    "Rights",
    "Rule",
    "default_path",
    "default_socket",
    "default_state",
    "load",
]

GROUP = "wasisup"
# What a supervisor holds open for one run: pidfd, record page, log, pipes; and as much again in the
# moment of a launch.
FDS_PER_RUN = 8
MOST_RUNS = 1000  # the default's bound, not the file's
MEMORY_SHARE = 0.75
# Callers whose rights are remembered; beyond it they are looked up again.
_MOST_KNOWN = 1024


class Rule(Struct, frozen=True):
    """A [[caller]], with its users and groups as numbers."""

    uids: frozenset[int]
    gids: frozenset[int]
    rights: Rights

    def fits(self, caller: Caller) -> bool:
        """Whether it is about this caller: by uid, primary or supplementary group."""
        return caller.uid in self.uids or not self.gids.isdisjoint((caller.gid, *caller.groups))


class Config(Struct, frozen=True, eq=False):
    """The configuration in force.

    path: the file it was read from, or None.  uid: the daemon's own.  socket: path, and
    socket_mode and socket_gid (None: as it comes) of it.  state: directory of records and logs.
    warnings: sentences for the administrator.
    """

    path: str | None
    uid: int
    socket: str
    socket_mode: int
    socket_gid: int | None
    state: str
    limits: Limits
    records: Records
    log: Log
    default: Rights
    callers: tuple[Rule, ...]
    warnings: tuple[str, ...] = ()
    _known: dict[Caller, Access] = msgspec.field(default_factory=dict)

    def access(self, caller: Caller) -> Access:
        """What this caller may do: by the first [[caller]] that fits, or [default]."""
        key = Caller(caller.uid, caller.gid, caller.groups)
        found = self._known.get(key)
        if found is None:
            found = self._look_up(key)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = found
        return found

    def needs_restart(self, new: "Config") -> list[str]:
        """The keys in which `new` differs and that a running daemon cannot change."""
        names = ("socket", "socket_mode", "socket_gid", "state")
        return [
            name.replace("_gid", "_group").replace("_", "-")
            for name in names
            if getattr(self, name) != getattr(new, name)
        ]

    def _look_up(self, caller: Caller) -> Access:
        rights = next((rule.rights for rule in self.callers if rule.fits(caller)), Rights())
        master = caller.uid in (0, self.uid)
        # Every daemon belongs to root and to its own user; an ordinary user's to nobody else.
        scope: Scope = "all" if master else "own"
        below = self.default if not master else _without_scope(self.default)
        access = _merge(rights, below, scope, self.limits.memory)
        if self.uid not in (0, caller.uid):
            return msgspec.structs.replace(access, serve=False)
        return access


def load(
    path: str | None = None, *, uid: int | None = None, environ: Mapping[str, str] = os.environ
) -> Config:
    """The configuration of `path`, or of the file at the default place, if there is one.

    uid: whose daemon it is; its own by default.  Raises ConfigError, which names the file and, for
    each problem in it, line and key.
    """
    uid = os.geteuid() if uid is None else uid
    chosen = default_path(uid, environ) if path is None else path
    try:
        text = read(chosen)
    except FileNotFoundError:
        if path is not None:
            raise ConfigError(
                f"there is no file {path!r}", "without --config none is needed"
            ) from None
        return _resolve(None, Reader(chosen, ""), uid, environ)
    return _resolve(chosen, Reader(chosen, text), uid, environ)


def _resolve(path: str | None, reader: Reader, uid: int, environ: Mapping[str, str]) -> Config:
    file = reader.section(File, reader.table)
    rules = tuple(_rule(caller, reader, at) for at, caller in enumerate(file.caller))
    mode = _mode(file.socket_mode, reader)
    gid = _socket_gid(file.socket_group, reader, uid)
    for key in ("socket", "state"):
        value = getattr(file, key)
        if value is not None and not os.path.isabs(value):
            reader.problem((key,), f"{value!r} is not an absolute path")
    reader.finish()
    return Config(
        path=path,
        uid=uid,
        socket=file.socket or default_socket(uid, environ),
        socket_mode=mode,
        socket_gid=gid,
        state=file.state or default_state(uid, environ),
        limits=_derived(file.limits),
        records=file.records,
        log=file.log,
        default=file.default,
        callers=rules,
        warnings=_warnings(file, environ),
    )


def _derived(limits: Limits) -> Limits:
    """With the machine's figures where the file has none."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fit = MOST_RUNS if hard == resource.RLIM_INFINITY else hard // FDS_PER_RUN
    return msgspec.structs.replace(
        limits,
        runs=limits.runs or max(1, min(MOST_RUNS, fit)),
        memory=limits.memory or int(memory_size() * MEMORY_SHARE),
    )


def _rule(caller: CallerRights, reader: Reader, at: int) -> Rule:
    if not (caller.uids or caller.users or caller.groups):
        reader.problem(("caller", at), "is about nobody: give it uids, users or groups")
    uids = set(caller.uids)
    for name in caller.users:
        try:
            uids.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            reader.problem(("caller", at, "users"), f"there is no user {name!r}")
    gids = {_gid(group, reader, ("caller", at, "groups")) for group in caller.groups}
    return Rule(frozenset(uids), frozenset(gids - {-1}), caller)


def _gid(group: str | int, reader: Reader, where: tuple[str | int, ...]) -> int:
    """The number of a group; -1, and a problem, when there is no such group."""
    if isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        reader.problem(where, f"there is no group {group!r}")
        return -1


def _mode(text: str, reader: Reader) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        reader.problem(("socket-mode",), f'{text!r} is no mode; write it like "0660"')
    return mode


def _socket_gid(group: str | None, reader: Reader, uid: int) -> int | None:
    if group is not None:
        if uid != 0:
            reader.problem(("socket-group",), "only root's daemon serves others")
        return _gid(group, reader, ("socket-group",))
    try:
        return grp.getgrnam(GROUP).gr_gid if uid == 0 else None
    except KeyError:
        return None


def _warnings(file: File, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Names of policies that are not there; they may come later, so it is no error."""
    known = policies.names(environ)
    named = [rights.policies for rights in (file.default, *file.caller)]
    missing = {
        name for names in named if names is not UNSET for name in names if name not in (ANY, *known)
    }
    return tuple(f"there is no policy {name!r}" for name in sorted(missing))


_BUILT_IN = Rights(
    policies=[ANY],
    runs=64,
    queued=256,
    memory=0,
    sees="own",
    kills="own",
    modules=256 * MIB,
    # Who asks for addresses has them as himself, by a process with his uid and no capability: he
    # gets where he can connect to anyway.  That holds where the daemon is in its callers' network;
    # wasisup.service has none at all until its administrator gives it one.
    net="any",
    serve=True,
)


def _merge(rights: Rights, default: Rights, scope: Scope, memory: int) -> Access:
    def pick(name: str) -> Any:
        layers = (rights, default, msgspec.structs.replace(_BUILT_IN, sees=scope, kills=scope))
        return next(v for v in (getattr(layer, name) for layer in layers) if v is not UNSET)

    ceilings = {}
    for field in msgspec.structs.fields(Ceilings):
        own = getattr(rights.ceilings, field.name)
        value = getattr(default.ceilings, field.name) if own is UNSET else own
        if value is not UNSET and value is not None:
            ceilings[field.encode_name] = value
    return Access(
        policies=tuple(pick("policies")),
        runs=pick("runs"),
        queued=pick("queued"),
        # Half by default, so that nobody can take it all.
        memory=pick("memory") or (memory if scope == "all" else memory // 2),
        sees=pick("sees"),
        kills=pick("kills"),
        modules=pick("modules"),
        net=pick("net"),
        serve=pick("serve"),
        ceilings=ceilings,
    )


def _without_scope(default: Rights) -> Rights:
    return msgspec.structs.replace(default, sees=UNSET, kills=UNSET)
