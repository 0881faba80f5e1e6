"""Preview 1 beside the wasmtime CLI: the cases, the comparison, and where the two may differ."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from .command import Command, wasmtime

CASES = {
    "process": [
        ["args", "one", "", "two words", "\u00e9"],
        ["environ"],
        ["clocks"],
        ["random"],
        ["yield"],
        ["exit", "0"],
        ["exit", "7"],
        ["exit", "125"],
        ["poll-clock"],
    ],
    "descriptors": [
        ["stdio"],
        ["preopens"],
        ["readwrite"],
        ["append"],
        ["sizes"],
        ["times"],
        ["closing"],
        ["renumbering"],
        ["rights"],
        ["poll-files"],
    ],
    "paths": [
        ["opens"],
        ["creates"],
        ["through-dangling"],
        ["stats"],
        ["directories"],
        ["unlinks"],
        ["renames"],
        ["links"],
        ["symlinks"],
        ["times"],
        ["names"],
        ["wrong-descriptor"],
    ],
    "readdir": [["everything"], ["buffers"], ["cookies"]],
    "sockets": [["types"]],
}


class Difference(NamedTuple):
    """Lines that wasisup answers otherwise on purpose.

    changes: wasmtime's line -> wasisup's lines.  files: whether what is left in the tree differs
    with it.  old: for wasi_unstable only.
    """

    guest: str
    case: str
    changes: dict[str, str]
    reason: str
    files: bool = False
    old: bool = False


_NOT_A_DIRECTORY = ("stat", "mkdir", "rmdir", "unlink", "readlink", "symlink", "rename from",
                    "rename to", "link to", "set_times", "readdir")  # fmt: skip

DIFFERENCES = [
    Difference(
        "process",
        "clocks",
        {
            f"clock_{call}_get {clock}: BADF": f"clock_{call}_get {clock}: SUCCESS {word}"
            for clock in (2, 3)
            for call, word in (("res", "positive"), ("time", "not backwards"))
        },
        "the process's and the thread's CPU clocks are part of preview 1",
    ),
    Difference(
        "process",
        "poll-clock",
        {"poll bad clock: INVAL": "poll bad clock: SUCCESS 1\n  event 4: INVAL type 0"},
        "a subscription that fails is an event of its own, as the specification has it",
    ),
    Difference(
        "process",
        "poll-clock",
        {
            "poll two, the nearer: BADF": (
                "poll two, the nearer: SUCCESS 1\n  event 2: SUCCESS type 0"
            )
        },
        "wasmtime mistakes the second of two subscriptions, which are longer in wasi_unstable",
        old=True,
    ),
    Difference(
        "descriptors",
        "readwrite",
        {
            "pread: SUCCESS 3 [123][]": "pread: SUCCESS 7 [123][4567]",
            "pwrite: SUCCESS 2": "pwrite: SUCCESS 5",
            "whole: SUCCESS [01234567AB..........hole]": (
                "whole: SUCCESS [01234567ABCDE.......hole]"
            ),
        },
        "every vector of a call is served; wasmtime stops after the first",
        files=True,
    ),
    Difference(
        "descriptors",
        "sizes",
        {
            "allocate: NOTSUP": "allocate: SUCCESS",
            "filestat after allocate: SUCCESS size 3": "filestat after allocate: SUCCESS size 100",
            "allocate nothing: NOTSUP": "allocate nothing: INVAL",
            "sync a directory: BADF": "sync a directory: SUCCESS",
            "datasync a directory: BADF": "datasync a directory: SUCCESS",
        },
        "fd_allocate is there, and a directory can be synced: databases ask for both",
        files=True,
    ),
    Difference(
        "descriptors",
        "times",
        {"set_times of a directory: BADF": "set_times of a directory: SUCCESS"},
        "a directory has time stamps, and futimens works on one",
    ),
    Difference(
        "descriptors",
        "closing",
        {"reused: 4": "reused: 0"},
        "the lowest free number is the next one, as in POSIX",
    ),
    Difference(
        "descriptors",
        "rights",
        {
            "write to 4: BADF": "write to 4: NOTCAPABLE",
            "set_size: INVAL": "set_size: NOTCAPABLE",
            "allocate: NOTSUP": "allocate: NOTCAPABLE",
            "set_rights to more: NOTSUP": "set_rights to more: NOTCAPABLE",
            "set_rights to less: NOTSUP": "set_rights to less: SUCCESS",
            "read from 5: BADF": "read from 5: NOTCAPABLE",
        },
        "rights are kept, and a missing one is ENOTCAPABLE, as the specification has it",
    ),
    Difference(
        "descriptors",
        "poll-files",
        {
            "  1 SUCCESS type 1 nbytes 1": "  1 SUCCESS type 1 nbytes 8",
            "poll a closed descriptor: BADF": (
                "poll a closed descriptor: SUCCESS 1\n  1 BADF type 1"
            ),
        },
        "an event tells how much can be read, and a subscription that fails is an event",
    ),
    Difference(
        "paths",
        "opens",
        {
            f"open [{name}] follow 0 oflags 2: LOOP": f"open [{name}] follow 0 oflags 2: NOTDIR"
            for name in ("link", "dirlink", "dangling", "loop", "out", "abs")
        },
        "O_DIRECTORY on a symlink that is not followed is ENOTDIR on Linux",
    ),
    Difference(
        "paths",
        "stats",
        {
            "stat [file/] follow 0: SUCCESS type 4 size 4 nlink 1": "stat [file/] follow 0: NOTDIR",
            "stat [link/] follow 0: SUCCESS type 7 size -1 nlink -1": (
                "stat [link/] follow 0: NOTDIR"
            ),
            "stat [dirlink/] follow 0: SUCCESS type 7 size -1 nlink -1": (
                "stat [dirlink/] follow 0: SUCCESS type 3 size -1 nlink -1"
            ),
        },
        "a trailing slash asks for a directory, as in POSIX",
    ),
    Difference(
        "paths",
        "directories",
        {
            "rmdir [d1/d6/]: INVAL": "rmdir [d1/d6/]: SUCCESS",
            "rmdir [d1/]: INVAL": "rmdir [d1/]: SUCCESS",
            "rmdir [d2/]: INVAL": "rmdir [d2/]: SUCCESS",
            "rmdir [dirlink/]: INVAL": "rmdir [dirlink/]: NOTDIR",
        },
        "a trailing slash is no reason not to remove a directory",
        files=True,
    ),
    Difference(
        "paths",
        "unlinks",
        {"unlink [dirlink/]: ISDIR": "unlink [dirlink/]: NOTDIR"},
        "unlink does not follow: what the name stands for is no directory",
    ),
    Difference(
        "paths",
        "symlinks",
        {"readlink [abs]: PERM": "readlink [abs]: SUCCESS 11 [/etc/passwd]"},
        "the text of a symlink is data of the granted directory; it cannot be followed",
    ),
    Difference(
        "paths",
        "wrong-descriptor",
        {f"file: {call}: BADF": f"file: {call}: NOTDIR" for call in _NOT_A_DIRECTORY},
        "a descriptor that is no directory is ENOTDIR",
    ),
]


def tree(root: Path) -> Path:
    """A fresh directory for preopen 3, as guests/preview1/paths.c expects it, and its neighbour."""
    (root / "outside").mkdir(parents=True)
    (root / "outside" / "secret").write_text("secret")
    inside = root / "t"
    (inside / "dir").mkdir(parents=True)
    (inside / "empty").mkdir()
    (inside / "file").write_text("text")
    (inside / "dir" / "inner").write_text("in")
    for name, target in {
        "link": "file",
        "dirlink": "dir",
        "dangling": "nowhere",
        "loop": "loop",
        "out": "../outside",
        "abs": "/etc/passwd",
    }.items():
        (inside / name).symlink_to(target)
    return inside


def snapshot(folder: Path) -> list[tuple[str, str, bytes]]:
    """What the guest left behind: names, kinds and contents."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found.append((name, "link", os.readlink(path).encode()))
        elif path.is_dir():
            found.append((name, "dir", b""))
        else:
            found.append((name, "file", path.read_bytes()))
    return found


def differences(guest: str, case: str, old: bool) -> list[Difference]:
    return [d for d in DIFFERENCES if (d.guest, d.case) == (guest, case) and d.old <= old]


def compare(
    wasisup: Command, module: Path, guest: str, case: list[str], room: Path, *, old: bool = False
) -> None:
    """Runs the case under both and asserts that lines, status and what is left behind agree."""
    options = ["--env", "A=1", "--env", "B=two"]
    theirs_dir, ours_dir = tree(room / "theirs"), tree(room / "ours")
    theirs = wasmtime(f"--dir={theirs_dir}::.", *options, module, *case)
    ours = wasisup.run(f"--dir={ours_dir}::.", *options, module, *case)
    intended = differences(guest, case[0], old)
    changes = {line: lines for difference in intended for line, lines in difference.changes.items()}
    want = "\n".join(changes.get(line, line) for line in theirs.text.split("\n"))
    assert ours.text.splitlines() == want.splitlines()
    assert ours.status == theirs.status, ours.errors
    if not any(difference.files for difference in intended):
        assert snapshot(room / "ours") == snapshot(room / "theirs")
