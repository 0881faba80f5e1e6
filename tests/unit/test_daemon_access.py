"""Ceilings: what is over one is refused when it was asked for, and lowered when it was not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from wasisup.supervisor.daemon.access import Access, check_net, clamp
from wasisup.supervisor.errors import Denied
from wasisup.supervisor.model import DirGrant, NetGrant, Quotas, RunRequest, TmpfsGrant

MIB = 1 << 20
SECOND = 10**9


def access(**ceilings: float) -> Access:
    return Access(
        policies=("*",),
        runs=1,
        queued=1,
        memory=1 << 40,
        sees="own",
        kills="own",
        modules=0,
        serve=True,
        ceilings={key.replace("_", "-"): value for key, value in ceilings.items()},
    )


def request(*scratch: int, **quotas: float) -> RunRequest:
    return RunRequest(
        module="m.wasm",
        tmpfs=[TmpfsGrant(f"/{at}", size) for at, size in enumerate(scratch)],
        quotas=Quotas(**quotas),
    )


def test_within() -> None:
    """Nothing is changed, and a ceiling that is not set binds nobody."""
    asked = request(MIB, memory=MIB, cpus=0.5)
    clamp(asked, {"memory", "cpus", "tmpfs"}, access(memory=MIB, cpus=0.5, tmpfs=MIB))
    assert asked == request(MIB, memory=MIB, cpus=0.5)
    clamp(asked, {"memory"}, access())
    assert asked == request(MIB, memory=MIB, cpus=0.5)


@pytest.mark.parametrize(
    ("quotas", "ceilings", "words"),
    [
        ({"memory": 2 * MIB}, {"memory": MIB}, "memory: 2MiB is over your ceiling of 1MiB"),
        ({"memory": None}, {"memory": MIB}, "memory: no limit is over your ceiling of 1MiB"),
        ({"cpu_time": 3 * SECOND}, {"cpu_time": SECOND}, "cpu-time: 3s is over your ceiling of 1s"),
        ({"fds": 100}, {"fds": 64}, "fds: 100 is over your ceiling of 64"),
        ({"cpus": 1.5}, {"cpus": 1.0}, "cpus: 1.5 is over your ceiling of 1.0"),
    ],
)
def test_asked_for(quotas: dict[str, float], ceilings: dict[str, float], words: str) -> None:
    """Denied, in words that name quota, value and ceiling."""
    explicit = {key.replace("_", "-") for key in quotas}
    with pytest.raises(Denied, match=words) as caught:
        clamp(request(**quotas), explicit, access(**ceilings))
    assert (caught.value.reason, caught.value.exit_status) == ("denied", 125)


def test_by_default() -> None:
    """A policy's value, or no limit at all, is lowered without a word."""
    asked = request(4 * MIB, memory=None, timeout=9 * SECOND)
    clamp(asked, {"cpu-time"}, access(memory=MIB, timeout=SECOND, tmpfs=MIB, cpus=0.5))
    assert asked == request(MIB, memory=MIB, timeout=SECOND, cpus=0.5)


def test_scratch_space_of_ones_own() -> None:
    """Each directory for itself; the policy's come first, and are lowered."""
    asked = request(4 * MIB, MIB)
    clamp(asked, {"tmpfs"}, access(tmpfs=MIB), own_tmpfs=1)
    assert asked == request(MIB, MIB)
    with pytest.raises(Denied, match="tmpfs: 4MiB is over your ceiling of 1MiB"):
        clamp(request(MIB, 4 * MIB), {"tmpfs"}, access(tmpfs=MIB), own_tmpfs=1)
    with pytest.raises(Denied):
        clamp(request(4 * MIB, MIB), {"tmpfs"}, access(tmpfs=MIB))


def test_too_few_descriptors() -> None:
    """Lowered ones may not be enough for what is granted: said here, not by a failing launch."""
    asked = request(MIB, fds=64)
    asked.dirs = [DirGrant("/a", "/a")]
    clamp(asked, set(), access(fds=5))
    assert asked.quotas.fds == 5
    with pytest.raises(Denied, match="takes 5 descriptors, your ceiling is 4"):
        clamp(asked, set(), access(fds=4))


@pytest.mark.parametrize(
    ("right", "own", "policys", "words"),
    [
        ("any", True, True, None),
        ("policies", False, True, None),
        ("policies", True, False, "you may not ask for the network"),
        ("none", False, False, None),
        ("none", True, False, "you may not ask for the network"),
        ("none", False, True, "policy 'default' grants it, and you may have none"),
    ],
)
@pytest.mark.parametrize("host", [False, True])
def test_the_network(right: Any, own: bool, policys: bool, words: str | None, host: bool) -> None:
    """Whose word counts for it: anybody's, the policies', nobody's."""
    grants = [NetGrant("connect", "tcp", "x", 80, 80)] if own or policys else []
    asked = RunRequest(module="m.wasm", net=[] if host else grants, net_host=host and bool(grants))
    rights = msgspec.structs.replace(access(), net=right)
    if words is None:
        check_net(asked, rights, own=own)
    else:
        with pytest.raises(Denied, match=words):
            check_net(asked, rights, own=own)
