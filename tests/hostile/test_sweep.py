"""Every system call number, made once by hostile code: what is not trapped is in the table.

The table of policies/syscalls.py says what a policy admits; this asks the kernel.  A worker makes
one call and ends there, by the filter or by itself.
"""

from __future__ import annotations

import errno

import pytest

from wasisup.policies import syscalls

from .driver import Core, Grant, Setting
from .steps import call, names
from .world import World

# Beyond the last number of any kernel so far, and over the numbers that only x32 has (512 to 547).
EVERY_NUMBER = range(600)
# uretprobe and uprobe: no filter sees them (from 6.13 on), since the kernel itself puts them into
# probed programs.  Anywhere else they end in SIGILL or ENXIO.
PAST_EVERY_FILTER = {335, 336}
# Harmless for every call that a table may admit: no such descriptor, no such address, one length,
# no protection, no flags; and 3 is F_GETFL, the one condition on a second argument.
ARGUMENTS = (-1, 3, 0, 0, 0, 0)
# Those that the table only admits in one way: this one, and still without consequences.
NOWHERE = 1 << 62  # no address of a thread's own area: clone fails after every check
# Trapped as well; for a component the handler answers in the kernel's place, and the run goes on.
ANSWERED_BY_HANDLER = {"bind", "connect", "listen", "sendto", "socket"}
REFUSALS = {
    errno.EACCES,
    errno.EAFNOSUPPORT,
    errno.EBADF,
    errno.EFAULT,
    errno.EINVAL,
    errno.EOPNOTSUPP,
}
COMPONENT_ARGUMENTS = {
    "clone": (syscalls.THREAD, 0, 0, 0, NOWHERE, 0),
    "fcntl": (-1, syscalls.F_DUPFD_CLOEXEC, 0, 0, 0, 0),
    "openat": (-1, 0, syscalls.O_DIRECTORY, 0, 0, 0),
    "prctl": (syscalls.PR_SET_NAME, 0, 0, 0, 0, 0),
    "rt_sigaction": (syscalls.SIGSETXID, 0, 0, 0, 0, 0),
}
AT_MOST = {"no directory": 16, "directories": 40}

PROFILES = {
    "run-cranelift": "no directory",
    "run-pulley": "no directory",
    "run-cranelift-directories": "directories",
    "run-pulley-directories": "directories",
    "run-cranelift-directories-listeners": None,
    "run-cranelift-component": None,
    "run-pulley-component-reading": None,
    "run-cranelift-component-directories": None,
}


@pytest.mark.parametrize("profile", PROFILES)
def test_only_the_table_is_admitted(
    core: Core, pulley_core: Core, world: World, profile: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the filter lets through is what the table says, no number more and none less."""
    kind = profile.split("-")[1]
    grants = (Grant(world.writable),) if profile.endswith(("directories", "listeners")) else ()
    component = "component" in profile
    setting = Setting(profile, grants, engine=kind, component=component)
    arguments = COMPONENT_ARGUMENTS if component else {}
    running = pulley_core if kind == "pulley" else core
    passed = set()
    answered = {rule.name: rule.errno for rule in syscalls.rules(profile, 2) if rule.errno}
    for number in (n for n in EVERY_NUMBER if n not in PAST_EVERY_FILTER):
        name = names().get(number, str(number))
        result = running.run([call(number, *arguments.get(name, ARGUMENTS))], setting)
        if result.trapped == number:
            assert not result.steps, result
        elif component and name in ANSWERED_BY_HANDLER:  # there is no broker to carry it out
            assert result.steps[0].result == -1, result
            assert result.steps[0].errno in REFUSALS, result
        elif name in answered and name not in syscalls.admitted(profile):  # not carried out
            assert result.steps[0].errno == answered[name], result
        else:  # carried out, whatever came of it: rt_sigreturn without a frame is a crash
            passed.add(name)
    with capsys.disabled():
        print(f"\n{profile}: {len(passed)} system calls admitted")
    assert passed == set(syscalls.admitted(profile))
    limit = PROFILES[profile]
    assert limit is None or len(passed) <= AT_MOST[limit]
    assert not world.damage(b"")


@pytest.mark.parametrize("number", sorted(PAST_EVERY_FILTER))
def test_probe_calls_do_nothing(core: Core, number: int) -> None:
    """The two calls that no filter sees end the worker or fail."""
    result = core.run([call(number, *ARGUMENTS)], Setting())
    assert result.code != 0 or result.steps[0].errno, result
