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
    for grants in (
        *("", "-reading", "-directories", "-listeners", "-directories-listeners"),
        *("-component", "-component-reading", "-component-directories"),
        *("-component-network", "-component-directories-network"),
    )
] + ["compile-cranelift", "compile-pulley", "broker-none"]
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
    loads = {rule.name for rule in syscalls.LOAD if rule.errno is None}
    for rule in syscalls.rules(profile, 2):
        if rule.errno and rule.name in loads:  # loading needs what the guest gets an error for
            continue
        assert answers(programs[profile, 1], rule) == answers(programs[profile, 2], rule)


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
def test_counts_hold(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    """At most 16 calls without a directory, at most 40 with everything granted; components more."""
    counts = {
        profile: syscalls.count_admitted(profile)
        for profile in PROFILES
        if engine in profile and "component" not in profile
    }
    with capsys.disabled():
        for profile, count in counts.items():
            print(f"\n  {profile}: {count} system calls admitted", end="")
    assert counts[f"run-{engine}"] <= 16
    assert max(counts.values()) <= 40


def test_no_directory_means_no_call_that_opens() -> None:
    """Without a grant the guest's filter knows no call that takes a path."""
    paths = {"open", "openat", "openat2", "creat", "execve", "execveat", "newfstatat", "statx"}
    assert not paths & set(syscalls.admitted("run-cranelift-component"))
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
    assert launch.profile_of(request, component=False) == profile
    assert explain.system_calls(request, component=False) == syscalls.admitted(profile)
    component = profile.replace("run-pulley", "run-pulley-component")
    assert launch.profile_of(request, component=True) == component
    assert explain.system_calls(request, component=True) == syscalls.admitted(component)


# Every system call that a component may make, with its grants: a change here is a change of the
# wall, and of the list in the documentation.
COMPONENT = set(
    "brk clock_getres clock_gettime clone close epoll_create1 epoll_ctl epoll_wait eventfd2 exit"
    " exit_group fcntl futex getrandom madvise mmap mprotect mremap munmap ppoll prctl read"
    " restart_syscall rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_yield set_robust_list"
    " sigaltstack write".split()
)
COMPONENT_READS = set(
    "fadvise64 getdents64 openat openat2 pread64 readlinkat statx".split()  # and fcntl's F_GETFL
)
COMPONENT_WRITES = set(
    "fdatasync fsync ftruncate linkat mkdirat pwrite64 pwritev2 renameat symlinkat unlinkat"
    " utimensat".split()
)


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
def test_what_components_are_admitted(engine: str) -> None:
    """Exactly this: 31 calls, 38 with a directory to read, 49 with one to write; no socket."""
    profile = f"run-{engine}-component"
    assert set(syscalls.admitted(profile)) == COMPONENT
    assert set(syscalls.admitted(f"{profile}-reading")) == COMPONENT | COMPONENT_READS
    everything = COMPONENT | COMPONENT_READS | COMPONENT_WRITES
    assert set(syscalls.admitted(f"{profile}-directories")) == everything
    assert (len(COMPONENT), len(COMPONENT | COMPONENT_READS), len(everything)) == (31, 38, 49)


def test_conditions_of_components(programs: dict[tuple[str, int], bytes]) -> None:
    """Of calls that could do more, only the one thing that the runtime needs."""
    program = programs["run-cranelift-component-reading", 2]

    def answer(name: str, *args: int) -> int:
        return bpf.evaluate(program, number(name), [*args, *[0] * (6 - len(args))])

    assert answer("rt_sigaction", 33) == bpf.ALLOW  # the C library's own
    for signal in (6, 11, 25, 27, 31):
        assert answer("rt_sigaction", signal) == bpf.TRAP
    assert answer("prctl", 15) == bpf.ALLOW
    assert answer("prctl", 4) == bpf.TRAP
    assert answer("ioctl", 0, 0x5401) == bpf.ERRNO | syscalls.ENOTTY
    assert answer("ioctl", 0, 0x5412) == bpf.TRAP  # TIOCSTI
    assert answer("openat", 3, 0, 0o200000) == bpf.ALLOW  # O_DIRECTORY
    for flags in (0, 1, 2, 0o101, 0o1001):
        assert answer("openat", 3, 0, flags) == bpf.ERRNO | syscalls.EACCES
    for flags in (0o200001, 0o200002, 0o200100, 0o201000):
        assert answer("openat", 3, 0, flags) == bpf.TRAP
    for command in (0, 1, 4, 5, 6, 8, 1031, 1033):
        assert answer("fcntl", 3, command) == bpf.TRAP


@pytest.mark.parametrize("profile", ["compile-cranelift", "run-pulley-component-directories"])
def test_threads_are_threads(programs: dict[tuple[str, int], bytes], profile: str) -> None:
    """clone makes threads of this process, and neither processes nor namespaces."""
    program = programs[profile, 1]
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
