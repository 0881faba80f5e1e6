"""Every system call, as every filter answers it."""

from __future__ import annotations

import os
from pathlib import Path

import pyseccomp
import pytest

from support import bpf
from wasisup.policies import syscalls
from wasisup.runtime import filters
from wasisup.runtime.cache import ArtifactCache
from wasisup.supervisor import launch
from wasisup.supervisor.cli import explain
from wasisup.supervisor.model import DirGrant, RunRequest, TmpfsGrant

PROFILES = [
    f"run-{engine}{grants}"
    for engine in ("cranelift", "pulley")
    for grants in ("", "-reading", "-directories", "-listeners", "-directories-listeners")
] + ["compile-cranelift", "compile-pulley"]
STAGES = [(profile, stage) for profile in PROFILES for stage in (1, 2)]
# Linux 6.x ends at 4xx; beyond the table there may be calls that nobody has heard of yet.
NUMBERS = range(700)
EVERYTHING = 0xFFFFFFFFFFFFFFFF


def number(name: str) -> int:
    return pyseccomp.resolve_syscall(pyseccomp.Arch.X86_64, name)


@pytest.fixture(scope="module")
def programs() -> dict[tuple[str, int], bytes]:
    return {(profile, stage): filters.build(profile, stage) for profile, stage in STAGES}


def answers(program: bytes, rule: syscalls.Rule) -> set[int]:
    """What the program says to arguments that satisfy the rule's conditions."""
    args = [0] * 6
    for index, _, value in rule.when:
        args[index] = value
    return {bpf.evaluate(program, number(rule.name), args)}


@pytest.mark.parametrize(("profile", "stage"), STAGES)
def test_every_rule_is_in_the_program(
    programs: dict[tuple[str, int], bytes], profile: str, stage: int
) -> None:
    """Arguments that a rule admits are admitted, or answered with the rule's error."""
    for rule in syscalls.rules(profile, stage):
        expected = bpf.ALLOW if rule.errno is None else bpf.ERRNO | rule.errno
        assert answers(programs[profile, stage], rule) == {expected}, rule.name


@pytest.mark.parametrize(("profile", "stage"), STAGES)
def test_whatever_no_rule_names_traps(
    programs: dict[tuple[str, int], bytes], profile: str, stage: int
) -> None:
    """No number outside the table is carried out, whatever its arguments."""
    named = {number(rule.name) for rule in syscalls.rules(profile, stage)}
    for call in NUMBERS:
        if call not in named:
            for args in ([0] * 6, [EVERYTHING] * 6):
                assert bpf.evaluate(programs[profile, stage], call, args) == bpf.TRAP, call


@pytest.mark.parametrize(("profile", "stage"), STAGES)
def test_conditions_are_conditions(
    programs: dict[tuple[str, int], bytes], profile: str, stage: int
) -> None:
    """A call all of whose rules have conditions traps when none of them holds."""
    rules = syscalls.rules(profile, stage)
    free = {rule.name for rule in rules if not rule.when}
    for name in {rule.name for rule in rules} - free:
        mine = [rule for rule in rules if rule.name == name]
        args = next(
            args
            for args in ([EVERYTHING] * 6, [0] * 6, [0xBAD] * 6)
            if not any(all(args[i] & m == v for i, m, v in rule.when) for rule in mine)
        )
        assert bpf.evaluate(programs[profile, stage], number(name), args) == bpf.TRAP, name


@pytest.mark.parametrize(("profile", "stage"), STAGES)
def test_other_architectures_are_killed(
    programs: dict[tuple[str, int], bytes], profile: str, stage: int
) -> None:
    """i386 and x32 system calls have other numbers: a filter that let them pass would be none."""
    program = programs[profile, stage]
    for call in NUMBERS:
        assert bpf.evaluate(program, call, arch=bpf.I386) == bpf.KILL_PROCESS
        answer = bpf.evaluate(program, call | bpf.X32_BIT)
        assert answer in (bpf.KILL_PROCESS, bpf.TRAP), call


@pytest.mark.parametrize("profile", [name for name in PROFILES if name.startswith("run")])
def test_nothing_becomes_executable_once_the_guest_runs(
    programs: dict[tuple[str, int], bytes], profile: str
) -> None:
    """PROT_EXEC traps in stage 2, with and without other bits, also beyond an int's 32 bits."""
    for name in ("mmap", "mprotect"):
        for protection in range(8):
            for high in (0, 1 << 32):
                answer = bpf.evaluate(
                    programs[profile, 2], number(name), [0, 4096, protection | high]
                )
                assert (answer == bpf.ALLOW) == (protection & syscalls.PROT_EXEC == 0)


@pytest.mark.parametrize("profile", [name for name in PROFILES if name.startswith("run")])
def test_loading_never_makes_memory_writable_and_executable(
    programs: dict[tuple[str, int], bytes], profile: str
) -> None:
    """Cranelift's code is written, then made executable; Pulley's never is."""
    for protection in range(8):
        both = protection & (syscalls.PROT_EXEC | syscalls.PROT_WRITE)
        program = programs[profile, 1]
        mapped = bpf.evaluate(program, number("mmap"), [0, 4096, protection])
        assert (mapped == bpf.ALLOW) == (protection & syscalls.PROT_EXEC == 0)
        changed = bpf.evaluate(program, number("mprotect"), [0, 4096, protection])
        native = "cranelift" in profile and both == syscalls.PROT_EXEC
        assert (changed == bpf.ALLOW) == (protection & syscalls.PROT_EXEC == 0 or native)


@pytest.mark.parametrize("profile", PROFILES)
def test_first_stage_admits_the_second(
    programs: dict[tuple[str, int], bytes], profile: str
) -> None:
    """Filters stack: what the first refuses, the second cannot allow."""
    for rule in syscalls.rules(profile, 2):
        assert answers(programs[profile, 1], rule) == answers(programs[profile, 2], rule)


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
def test_counts_hold(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    """At most 16 calls without a directory, at most 40 with everything granted."""
    counts = {
        profile: syscalls.count_admitted(profile) for profile in PROFILES if engine in profile
    }
    with capsys.disabled():
        for profile, count in counts.items():
            print(f"\n  {profile}: {count} system calls admitted", end="")
    assert counts[f"run-{engine}"] <= 16
    assert max(counts.values()) <= 40


def test_no_directory_means_no_call_that_opens() -> None:
    """Without a grant the guest's filter knows no call that takes a path."""
    paths = {"open", "openat", "openat2", "creat", "execve", "execveat", "newfstatat", "statx"}
    assert not paths & set(syscalls.admitted("run-cranelift"))
    assert not paths & set(syscalls.admitted("run-cranelift-listeners"))


def test_what_writing_adds() -> None:
    """A run that may only read is admitted no call that changes a file system."""
    base = set(syscalls.admitted("run-cranelift"))
    reading = set(syscalls.admitted("run-cranelift-reading"))
    writing = set(syscalls.admitted("run-cranelift-directories"))
    assert reading - base == set(
        "openat2 close newfstatat preadv lseek getdents64 fadvise64 readlinkat fcntl".split()
    )
    assert writing - reading == set(
        "pwritev fsync fdatasync ftruncate fallocate utimensat linkat mkdirat unlinkat renameat2"
        " symlinkat".split()
    )
    assert base < reading < writing


@pytest.mark.parametrize(
    ("dirs", "tmpfs", "profile"),
    [
        ([], [], "run-pulley"),
        ([True], [], "run-pulley-reading"),
        ([True, False], [], "run-pulley-directories"),
        ([True], [TmpfsGrant("/t", 1)], "run-pulley-directories"),
    ],
)
def test_the_profile_of_a_request(dirs: list[bool], tmpfs: list[TmpfsGrant], profile: str) -> None:
    """By what is granted, and `--explain` lists the same calls."""
    request = RunRequest(
        module="m",
        engine="pulley",
        dirs=[DirGrant(".", f"/{at}", read_only) for at, read_only in enumerate(dirs)],
        tmpfs=tmpfs,
    )
    assert launch.profile_of(request) == profile
    assert explain.system_calls(request) == syscalls.admitted(profile)


def test_compiler_threads_are_threads(programs: dict[tuple[str, int], bytes]) -> None:
    """clone makes threads of this process, and neither processes nor namespaces."""
    program = programs["compile-cranelift", 1]
    assert bpf.evaluate(program, number("clone"), [0x3D0F00]) == bpf.ALLOW
    assert bpf.evaluate(program, number("clone"), [0x11]) == bpf.TRAP  # fork
    for namespace in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert bpf.evaluate(program, number("clone"), [0x3D0F00 | namespace]) == bpf.TRAP
    assert bpf.evaluate(program, number("clone3")) == bpf.ERRNO | syscalls.ENOSYS


def test_every_rule_has_a_reason() -> None:
    """The table says why; unknown profiles are refused."""
    for profile, stage in STAGES:
        assert all(rule.reason for rule in syscalls.rules(profile, stage))
    with pytest.raises(KeyError):
        syscalls.rules("run-cranelift-everything", 2)
    with pytest.raises(KeyError):
        syscalls.rules("walk-cranelift", 2)


def test_programs_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time nothing is built; a damaged file is built again."""
    with ArtifactCache(str(tmp_path / "cache")) as cache:
        first = filters.programs("run-pulley", cache)
        with monkeypatch.context() as patch:
            patch.setattr(filters, "build", lambda *_: pytest.fail("built again"))
            assert filters.programs("run-pulley", cache) == first
        (path,) = (tmp_path / "cache" / "filters").iterdir()
        os.chmod(path, 0o600)
        path.write_bytes(b"\xff\xff\xff\xffdamaged")
        assert filters.programs("run-pulley", cache) == first


def test_names_of_system_calls() -> None:
    """Numbers come out as names, and as numbers where there is none."""
    assert filters.name_of(257) == "openat"
    assert filters.name_of(9999) == "system call 9999"
