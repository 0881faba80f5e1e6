"""The decision whether a control group is ours, on a directory tree that stands in for cgroupfs.

What the kernel does with the limits needs a delegated cgroup v2 and is tested where there is one.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from wasisup.supervisor import cgroups


class Tree:
    """A cgroup directory with the files that matter, and whether it counts as delegated."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base = base
        self.monkeypatch = monkeypatch
        base.mkdir()
        self.put("cgroup.controllers", "cpu memory pids")
        self.put("cgroup.procs", f"{os.getpid()}\n")
        self.put("cgroup.subtree_control", "")
        monkeypatch.setattr(cgroups, "ROOT", str(base.parent))
        monkeypatch.setattr(cgroups, "_is_ours", lambda _: True)
        self.membership(f"1:name=systemd:/x\n0::/{base.name}\n")

    def put(self, name: str, text: str) -> None:
        (self.base / name).write_text(text)

    def membership(self, text: str) -> None:
        real = cgroups._read
        self.monkeypatch.setattr(
            cgroups, "_read", lambda path: text if path == "/proc/self/cgroup" else real(path)
        )


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    return Tree(tmp_path / "own.scope", monkeypatch)


def test_alone_in_a_delegated_group(tree: Tree) -> None:
    """The directory is found."""
    assert cgroups.delegated() == str(tree.base)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cgroup.controllers", "cpu pids"),
        ("cgroup.controllers", ""),
        ("cgroup.procs", f"1\n{os.getpid()}\n"),
        ("cgroup.procs", ""),
    ],
)
def test_not_manageable(tree: Tree, name: str, text: str) -> None:
    """A controller is missing, or somebody else (the shell, say) is in there too."""
    tree.put(name, text)
    assert cgroups.delegated() is None
    assert cgroups.enter() is None


@pytest.mark.parametrize("text", ["", "4:memory:/x\n", "0::/gone\n"])
def test_no_cgroup_v2(tree: Tree, text: str) -> None:
    """Version 1 only, or a directory that cannot be seen from here."""
    tree.membership(text)
    assert cgroups.delegated() is None


def test_not_delegated(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that somebody else manages is left alone, by root as well."""
    monkeypatch.undo()
    assert cgroups._is_ours("/") is False


def test_what_cannot_be_entered_is_left_as_it_was(tree: Tree) -> None:
    """The kernel refuses the move (here: no such file): nothing stays behind."""
    before = sorted(path.name for path in tree.base.iterdir())
    assert cgroups.enter() is None
    assert sorted(path.name for path in tree.base.iterdir()) == before
    assert (tree.base / "cgroup.procs").read_text() == f"{os.getpid()}\n"


def test_limits_and_events(tree: Tree) -> None:
    """What is written where, and how a kill for want of memory is seen."""
    run = tree.base / "run"
    run.mkdir()
    for name in ("memory.max", "pids.max", "memory.swap.max"):
        (run / name).write_text("")
    group = cgroups.RunGroup(str(run), -1, [])
    group.limit(memory=1 << 20, processes=1)
    assert (run / "memory.max").read_text() == "1048576"
    assert (run / "pids.max").read_text() == "1"
    assert (run / "memory.swap.max").read_text() == "0"
    (run / "memory.swap.max").unlink()
    (run / "memory.max").write_text("")
    group.limit(memory=None, processes=1)
    assert (run / "memory.max").read_text() == "max"
    assert group.oom_kills() == 0
    (run / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert group.oom_kills() == 2


def test_what_killed_supervisors_left(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their leaf is used again, and their empty groups are removed; others' stay."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    for name in (f"wasisup-run-{gone.pid}", f"wasisup-run-{os.getppid()}", "wasisup-run-x"):
        (tree.base / name).mkdir()
    leaf = tree.base / "wasisup-supervisor"
    leaf.mkdir()
    (leaf / "cgroup.procs").write_text("")
    group = cgroups.enter()
    assert group is not None
    assert (leaf / "cgroup.procs").read_text() == str(os.getpid())
    group.close()
    left = sorted(path.name for path in tree.base.glob("wasisup-run-*"))
    assert left == sorted([f"wasisup-run-{os.getppid()}", "wasisup-run-x"])


@pytest.mark.parametrize("then", ["make", "leave"])
def test_a_group_that_is_not_empty_yet_goes_later(tree: Tree, then: str) -> None:
    """A launch that was given up may have left a process there: it is killed, the group removed."""
    leaf = tree.base / "leaf"
    leaf.mkdir()
    delegation = cgroups.Delegation(str(tree.base), str(leaf), frozenset())
    group = delegation.make("one")
    run = tree.base / "wasisup-run-one"
    kill = run / "cgroup.kill"
    kill.write_text("")  # a file, which holds the directory as a process would
    group.close()
    assert kill.read_text() == "1"
    kill.unlink()
    if then == "make":
        delegation.make("two").close()
    else:
        delegation.leave()
    assert not run.exists()
