"""What `doctor` says about the bound on a component's threads."""

import os

import pytest

from wasisup.supervisor import cgroups
from wasisup.supervisor.cli import probes


@pytest.mark.parametrize(
    ("uid", "group", "release", "state", "words"),
    [
        (1000, None, "5.15.0", probes.OK, "user namespace"),
        (0, "/sys/fs/cgroup/x", "5.15.0", probes.OK, "control group"),
        (0, None, "6.14.0-rc1", probes.OK, "PID namespace"),
        (0, None, "7.0", probes.OK, "PID namespace"),
        (0, None, "6.13.9", probes.LIMITED, "modules only"),
    ],
)
def test_what_bounds_threads(
    monkeypatch: pytest.MonkeyPatch,
    uid: int,
    group: str | None,
    release: str,
    state: str,
    words: str,
) -> None:
    """By who asks, by what is delegated, and by the kernel."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(cgroups, "delegated", lambda: group)
    monkeypatch.setattr(
        os, "uname", lambda: os.uname_result(("Linux", "host", release, "1", "x86_64"))
    )
    check = probes.threads()
    assert check.state == state
    assert words in check.detail
