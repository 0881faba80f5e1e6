"""Preview 1, function by function, beside the wasmtime CLI.

The guests print one line an observation ("seek end: SUCCESS 6").  Each case runs under wasmtime and
under wasisup in equal fresh trees; line by line the two must agree, but for the differences that
are listed in support/preview1.py with the reason why wasisup answers otherwise.
"""

from __future__ import annotations

import re

import pytest

from support.command import wasmtime
from support.preview1 import CASES, DIFFERENCES, compare, tree


@pytest.mark.parametrize(
    ("guest", "case"),
    [pytest.param(g, c, id=f"{g}-{'-'.join(c)}") for g, cases in CASES.items() for c in cases],
)
def test_as_wasmtime(wasisup, guests, room, guest, case):
    """Every observation is wasmtime's, but for the documented differences."""
    compare(wasisup, guests.c(f"preview1/{guest}"), guest, case, room)


@pytest.mark.parametrize(
    "difference", DIFFERENCES, ids=lambda d: f"{d.guest}-{d.case}{'-old' * d.old}"
)
def test_every_difference_is_still_one(guests, room, difference):
    """A documented difference changes lines that wasmtime does print."""
    inside = tree(room)
    module = guests.c(f"preview1/{difference.guest}", *(["-DUNSTABLE"] if difference.old else []))
    lines = wasmtime(f"--dir={inside}::.", module, difference.case).text.splitlines()
    assert set(difference.changes) <= set(lines)
    assert difference.reason


FAULTS = [
    "random_get",
    "clock_time_get",
    "fd_write",
    "fd_write list",
    "args_get",
    "path_open",
    "poll_oneoff",
    "huge count",
]


@pytest.mark.parametrize("function", FAULTS)
def test_pointers_outside_the_memory(wasisup, guests, room, function):
    """A pointer outside the guest's memory is EFAULT or a trap, and never a crash of the host."""
    inside = tree(room)
    result = wasisup.run(f"--dir={inside}::.", guests.c("preview1/process"), "fault", function)
    if result.status == 134:
        assert result.report["reason"] == "trap"
    else:
        assert result.ok().text in (
            f"{function}: FAULT\n",
            f"{function}: INVAL\n",
            f"{function}: OVERFLOW\n",
        )


INVALID = [
    "whence",
    "fdflags",
    "advice",
    "fstflags",
    "oflags",
    "lookupflags",
    "clock id",
    "NUL in a path",
]


@pytest.mark.parametrize("which", INVALID)
def test_values_outside_an_enumeration(wasisup, guests, room, which):
    """A value that the specification does not know is EINVAL; wasmtime ends the program instead."""
    inside = tree(room)
    result = wasisup.run(f"--dir={inside}::.", guests.c("preview1/descriptors"), "invalid", which)
    assert result.ok().text in (f"{which}: INVAL\n", f"{which}: ILSEQ\n")


@pytest.mark.parametrize(("number", "status"), [(6, 134), (9, 137), (15, 143)])
def test_proc_raise_ends_the_program(wasisup, guests, room, number, status):
    """proc_raise ends the run as the signal would, and the report says which one."""
    result = wasisup.run(guests.c("preview1/process"), "raise", str(number))
    assert result.status == status
    assert result.report["signal"] == number


def test_proc_raise_refuses_nonsense(wasisup, guests):
    """A signal that does not exist is an error for the guest, and the guest goes on."""
    result = wasisup.run(guests.c("preview1/process"), "raise", "99").ok()
    assert re.fullmatch(r"proc_raise: (INVAL|NOTSUP)\n", result.text)


def test_poll_on_the_process_clock(wasisup, guests):
    """A subscription to a process clock is answered or refused, but does not hang the program."""
    result = wasisup.run(guests.c("preview1/process"), "poll-cpu-clock", "2").ok()
    assert "poll process clock: " in result.text


def test_every_function_is_exercised(guests):
    """The guests together import every function of preview 1."""
    import wasmtime as engine

    imported = set()
    for guest in CASES:
        module = engine.Module.from_file(engine.Engine(), str(guests.c(f"preview1/{guest}")))
        imported |= {i.name for i in module.imports}
    assert imported >= set(ALL), sorted(set(ALL) - imported)


ALL = """
args_get args_sizes_get environ_get environ_sizes_get clock_res_get clock_time_get fd_advise
fd_allocate fd_close fd_datasync fd_fdstat_get fd_fdstat_set_flags fd_fdstat_set_rights
fd_filestat_get fd_filestat_set_size fd_filestat_set_times fd_pread fd_prestat_get
fd_prestat_dir_name fd_pwrite fd_read fd_readdir fd_renumber fd_seek fd_sync fd_tell fd_write
path_create_directory path_filestat_get path_filestat_set_times path_link path_open path_readlink
path_remove_directory path_rename path_symlink path_unlink_file poll_oneoff proc_exit proc_raise
random_get sched_yield sock_accept sock_recv sock_send sock_shutdown
""".split()
