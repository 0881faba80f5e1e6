"""Who is calling, and what the configuration gives them.

A quota that somebody asked for and that is over their ceiling is refused; one that they only got by
default is lowered to it, so that a policy is of use to whoever has a lower ceiling.
"""

from collections.abc import Set as AbstractSet
from typing import Literal

from msgspec import Struct

from ...policies.units import format_duration, format_size
from ..errors import Denied
from ..model import Quotas, RunRequest

Scope = Literal["own", "all"]
# Who may say what a run reaches of the network: callers and policies, only policies, nobody.
NetRight = Literal["any", "policies", "none"]
ANY = "*"

STDIO = 3
_ASK_ADMIN = "the administrator of wasisup decides who has the network (`net` in wasisup.toml)"
_SHOW = {
    "memory": format_size,
    "cpu-time": format_duration,
    "timeout": format_duration,
    "file-size": format_size,
    "output": format_size,
    "tmpfs": format_size,
}


class Caller(Struct, frozen=True):
    """The peer of a connection, as the kernel says (SO_PEERCRED, SO_PEERGROUPS).

    groups: supplementary ones.  pid: as it was when they connected; it says nothing of who they
    are now.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    pid: int = 0


class Access(Struct, frozen=True):
    """What one caller may do.

    policies: names, or "*" for all.  runs, queued: how many of this caller's at once.  memory:
    bytes promised to them at once.  sees, kills: whose runs.  modules: bytes of uploaded modules
    that are kept for them.  net: who may grant their runs a network.  serve: whether they are
    served at all.  ceilings: by key of `policies.settings`, in bytes, ns, a count or processors;
    what is not in it has no ceiling.
    """

    policies: tuple[str, ...]
    runs: int
    queued: int
    memory: int
    sees: Scope
    kills: Scope
    modules: int
    serve: bool
    ceilings: dict[str, int | float]
    net: NetRight = "any"

    def allows_policy(self, name: str) -> bool:
        """Whether the caller may use the policy of that name."""
        return ANY in self.policies or name in self.policies


def clamp(
    request: RunRequest, explicit: AbstractSet[str], access: Access, *, own_tmpfs: int | None = None
) -> None:
    """Applies the ceilings of `access` to the request's quotas and scratch space, in place.

    explicit: keys of `policies.settings` that the caller gave a value for.  own_tmpfs: how many of
    the last scratch directories are the caller's own and not the policy's; without it all are when
    "tmpfs" is explicit.

    Raises Denied for an explicit value over its ceiling; no limit is over every ceiling.
    """
    for key, ceiling in access.ceilings.items():
        if key == "tmpfs":
            _clamp_tmpfs(request, int(ceiling), _own(request, explicit, own_tmpfs))
            continue
        name = key.replace("-", "_")
        value = getattr(request.quotas, name)
        if value is not None and value <= ceiling:
            continue
        if key in explicit:
            raise _denied(key, value, ceiling)
        setattr(request.quotas, name, ceiling)
    _check_room(request, access)


def check_net(request: RunRequest, access: Access, *, own: bool) -> None:
    """Raises Denied when the request's network is not the caller's to have.

    own: the caller asked for some of it, beside what the policy grants.  A socket that a caller
    opened and sends along is nobody else's business, and a policy's tcplisten is refused with the
    policy.
    """
    if own and access.net != "any":
        hint = "a policy that grants what you need may be used: `wasisup policy list`"
        raise Denied(
            "net: you may not ask for the network",
            hint if access.net == "policies" else _ASK_ADMIN,
        )
    if access.net == "none" and (request.net or request.net_host):
        raise Denied(f"net: policy {request.policy!r} grants it, and you may have none", _ASK_ADMIN)


def _own(request: RunRequest, explicit: AbstractSet[str], own_tmpfs: int | None) -> int:
    if own_tmpfs is not None:
        return own_tmpfs
    return len(request.tmpfs) if "tmpfs" in explicit else 0


def _clamp_tmpfs(request: RunRequest, ceiling: int, own: int) -> None:
    policys = len(request.tmpfs) - own
    for at, grant in enumerate(request.tmpfs):
        if grant.size <= ceiling:
            continue
        if at >= policys:
            raise _denied("tmpfs", grant.size, ceiling)
        grant.size = ceiling


def _check_room(request: RunRequest, access: Access) -> None:
    """Lowered, the descriptors may be too few for what is granted."""
    if "fds" not in access.ceilings:
        return
    quotas: Quotas = request.quotas
    needed = STDIO + len(request.dirs) + len(request.tmpfs) + len(request.listens)
    if quotas.fds < needed:
        raise Denied(
            f"fds: what is granted takes {needed} descriptors, your ceiling is {quotas.fds}",
            "grant fewer directories, or have the administrator raise it",
        )


def _denied(key: str, value: int | float | None, ceiling: int | float) -> Denied:
    show = _SHOW.get(key)
    most = str(ceiling) if show is None else show(int(ceiling))
    wanted = "no limit" if value is None else str(value) if show is None else show(int(value))
    return Denied(
        f"{key}: {wanted} is over your ceiling of {most}",
        f"ask for {most} or less; the administrator of wasisup sets the ceilings",
    )
