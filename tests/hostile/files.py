"""Attacks on files: outside the grant, in a read-only grant, and the mounts themselves."""

from __future__ import annotations

import os

from .shapes import FAILS, HARMLESS, Attack, NotTried, Trapped, attack, fails
from .steps import call, data, out, result, text, words, zeros

CWD = -100  # AT_FDCWD
EMPTY_PATH = 0x1000  # AT_EMPTY_PATH
O_PATH = 0o10000000
O_TMPFILE = 0o20200000
CREATE = os.O_CREAT | os.O_RDWR
HIDDEN = fails("ENOENT", "EACCES", "EBADF", "ENOTDIR", "EXDEV", "ELOOP")
REFUSED = fails("EROFS", "EACCES", "EPERM", "EXDEV", "ENOENT", "EBADF", "EINVAL")
READ_ONLY = fails("EROFS", "EACCES", "EXDEV")

MS_REMOUNT, MS_BIND = 32, 4096
OPEN_TREE_CLONE, MOUNT_ATTR_RDONLY = 1, 1


def openat2(at: int | str, path: str, flags: int = 0, mode: int = 0, resolve: int = 0) -> str:
    """openat2 with its struct open_how; nothing asks for RESOLVE_BENEATH unless told to."""
    return call("openat2", at, text(path), words(flags, mode, resolve), 24)


def read(step: int) -> str:
    """Reads what that step opened, to the output, where the outside looks for secrets."""
    return call("preadv", result(step), words(out(64), 64), 1, 0, 0)


def elsewhere(name: str, at: int | str, path: str, flags: int = 0) -> Attack:
    """A path that names something outside the grant: opened, it would be read."""
    return attack(f"open {name}", openat2(at, path, flags), read(0), dirs=HIDDEN, bare=HIDDEN)


def write_protected(name: str, *steps: str) -> Attack:
    """A change below the read-only grant: the mount itself refuses."""
    return attack(f"read-only: {name}", *steps, dirs=READ_ONLY, bare=READ_ONLY)


def mount_attack(name: str, *steps: str) -> Attack:
    """No shipped filter admits it, and it needs a capability that the worker has dropped."""
    return attack(
        f"mounts: {name}", *steps, bare=fails("EPERM", "EINVAL", "EBADF", "ENOENT", "EACCES")
    )


_OUTSIDE = (
    elsewhere("/etc/passwd", CWD, "/etc/passwd"),
    elsewhere("/etc/passwd from a grant", "<rw>", "/etc/passwd"),
    elsewhere("the secret by its path", CWD, "<secret>"),
    elsewhere("up from the working directory", CWD, "../../../../../../etc/passwd"),
    elsewhere("up from a grant", "<rw>", "../../../../../../etc/passwd"),
    elsewhere("the grant's neighbour", "<rw>", "../secret.txt"),
    elsewhere("up from the read-only grant", "<ro>", "../secret.txt"),
    elsewhere("a symlink to the neighbour", "<rw>", "link-neighbour"),
    elsewhere("an absolute symlink", "<rw>", "link-absolute"),
    elsewhere("through a symlink to the parent", "<rw>", "link-parent/secret.txt"),
    elsewhere("through a symlink to /proc", "<rw>", "link-proc/root/etc/passwd"),
    elsewhere("/proc/self/root", CWD, "/proc/self/root<secret>"),
    elsewhere("/proc/1/root", CWD, "/proc/1/root/etc/passwd"),
    elsewhere("/proc/self/exe", CWD, "/proc/self/exe"),
    elsewhere("/proc/self/fd/0", CWD, "/proc/self/fd/0"),
    elsewhere("the victim's memory", CWD, "/proc/<victim>/mem"),
    elsewhere("the supervisor's environment", CWD, "/proc/<supervisor>/environ"),
    elsewhere("/sys", CWD, "/sys/kernel/notes"),
    elsewhere("/dev/null", CWD, "/dev/null"),
    elsewhere("/dev/mem", CWD, "/dev/mem"),
    elsewhere("the terminal", CWD, "/dev/tty", os.O_RDWR),
    attack(
        "open a directory above, then down",
        openat2("<rw>", "..", os.O_DIRECTORY | O_PATH),
        openat2(result(0), "secret.txt"),
        read(1),
        dirs=HIDDEN,
        bare=HIDDEN,
    ),
    attack(
        "open the root, then down",
        openat2(CWD, "/", os.O_DIRECTORY | O_PATH),
        openat2(result(0), "etc/passwd"),
        read(1),
        dirs=HIDDEN,
        bare=HIDDEN,
    ),
    attack("open by openat", call("openat", CWD, text("/etc/passwd"), 0), bare=HIDDEN),
    attack(
        "open by openat from a grant", call("openat", "<rw>", text("../secret.txt"), 0), bare=HIDDEN
    ),
    attack("open by open", call("open", text("/etc/passwd"), 0), bare=HIDDEN),
    attack("create by creat", call("creat", text("/planted"), 0o644), bare=REFUSED),
    attack(
        "read a link outside",
        call("readlinkat", CWD, text("/proc/self/exe"), out(64), 64),
        dirs=FAILS,
    ),
    attack("stat outside", call("newfstatat", CWD, text("<secret>"), out(144), 0), dirs=FAILS),
    attack(
        "stat by statx", call("statx", CWD, text("/etc/passwd"), 0, 0xFFF, zeros(256)), bare=HIDDEN
    ),
    attack("access", call("access", text("/etc/passwd"), 0), bare=HIDDEN),
    attack("chdir up", call("chdir", text("..")), openat2(CWD, "etc/passwd"), bare=HIDDEN),
    attack("fchdir to a grant", call("fchdir", "<rw>"), openat2(CWD, "../secret.txt"), bare=HIDDEN),
    attack("the working directory's path", call("getcwd", zeros(4096), 4096), bare=HARMLESS),
    attack(
        "open by a handle made outside",
        call("open_by_handle_at", "<rw>", "@<handle>", 0),
        bare=fails("EPERM", "ESTALE", "EOPNOTSUPP", "EINVAL", "EBADF"),
    ),
    attack(
        "make a handle",
        call("name_to_handle_at", "<rw>", text("inside.txt"), "<room>", zeros(4), 0),
        bare=HARMLESS,
    ),
)

_PLANT = (
    attack(
        "plant a file in the root",
        openat2(CWD, "/planted", CREATE, 0o644),
        dirs=REFUSED,
        bare=REFUSED,
    ),
    attack(
        "plant a nameless file in the root", openat2(CWD, "/", O_TMPFILE | 2, 0o600), dirs=REFUSED
    ),
    attack(
        "plant a directory",
        call("mkdirat", CWD, text("/planted"), 0o755),
        dirs=REFUSED,
        bare=REFUSED,
    ),
    attack(
        "plant beside the grant",
        call("mkdirat", "<rw>", text("../planted"), 0o755),
        dirs=HARMLESS,
        bare=HARMLESS,
    ),
    attack("plant a symlink", call("symlinkat", text("/etc"), CWD, text("/planted")), dirs=REFUSED),
    attack(
        "follow a symlink of one's own",
        call("symlinkat", text("<secret>"), "<rw>", text("mine")),
        openat2("<rw>", "mine"),
        read(1),
        dirs=HIDDEN,
        bare=HIDDEN,
    ),
    attack(
        "link the secret in",
        call("linkat", CWD, text("<secret>"), "<rw>", text("stolen"), 0),
        openat2("<rw>", "stolen"),
        read(1),
        dirs=FAILS,
    ),
    attack(
        "link the neighbour in",
        call("linkat", "<rw>", text("../secret.txt"), "<rw>", text("stolen"), 0),
        openat2("<rw>", "stolen"),
        read(1),
        dirs=FAILS,
    ),
    attack(
        "link stdin in", call("linkat", 0, text(""), "<rw>", text("stolen"), EMPTY_PATH), dirs=FAILS
    ),
    attack(
        "link out of the grant",
        call("linkat", "<rw>", text("inside.txt"), "<rw>", text("../leak"), 0),
        dirs=HARMLESS,
        bare=HARMLESS,
    ),
    attack(
        "link from read-only to writable",
        call("linkat", "<ro>", text("locked.txt"), "<rw>", text("unlocked.txt"), 0),
        dirs=READ_ONLY,
        bare=READ_ONLY,
    ),
    attack(
        "rename out of the grant",
        call("renameat2", "<rw>", text("inside.txt"), "<rw>", text("../leak"), 0),
        dirs=HARMLESS,
        bare=HARMLESS,
    ),
    attack(
        "rename into the root",
        call("renameat2", "<rw>", text("inside.txt"), CWD, text("/x"), 0),
        dirs=FAILS,
    ),
    attack("unlink outside", call("unlinkat", CWD, text("<secret>"), 0), dirs=FAILS),
    attack("unlink the neighbour", call("unlinkat", "<rw>", text("../secret.txt"), 0), dirs=FAILS),
    attack("touch outside", call("utimensat", CWD, text("<secret>"), 0, 0), dirs=FAILS),
    attack(
        "a device node",
        call("mknodat", "<rw>", text("null"), 0o20666, 0x103),
        bare=fails("EPERM", "EACCES"),
    ),
    attack("a fifo", call("mknodat", "<rw>", text("fifo"), 0o10666, 0), bare=HARMLESS),
    attack(
        "chmod to setuid",
        call("fchmodat", "<rw>", text("inside.txt"), 0o4755),
        bare=NotTried(
            "the file is the caller's own and the directory writable: only the filter says no"
        ),
    ),
    attack(
        "chown",
        call("fchownat", "<rw>", text("inside.txt"), 1, 1, 0),
        bare=fails("EPERM", "EINVAL"),
    ),
    attack("an extended attribute", call("setxattr", text("/x"), text("user.x"), text("x"), 1, 0)),
    attack(
        "a file capability",
        openat2("<rw>", "inside.txt", os.O_RDWR),
        call(
            "fsetxattr",
            result(0),
            text("security.capability"),
            data(b"\0\0\0\2" + bytes(16)),
            20,
            0,
        ),
        bare=fails("EPERM", "EINVAL", "EOPNOTSUPP"),
    ),
)

# A setuid file with a body of the guest's choosing would be the caller's power for whoever runs it.
# Each way of giving it a body takes the bit away, but for a shared mapping: that one is refused.
_SETUID = (
    attack(
        "setuid, then written",
        openat2("<rw>", "tool", CREATE, 0o6755),
        call("pwritev", result(0), words(text("#!/bin/sh"), 9), 1, 0, 0),
        dirs=HARMLESS,
        bare=HARMLESS,
    ),
    attack(
        "setuid, then grown",
        openat2("<rw>", "tool", CREATE, 0o6755),
        call("ftruncate", result(0), 4096),
        dirs=HARMLESS,
        bare=HARMLESS,
    ),
    attack(
        "setuid, then mapped",
        openat2("<rw>", "tool", CREATE, 0o6755),
        call("fallocate", result(0), 0, 0, 4096),
        call("mmap", 0, 4096, 3, 1, result(0), 0),
        dirs=Trapped("mmap"),
        bare=NotTried("only the filter stands between"),
    ),
)

_READ_ONLY = (
    write_protected("create", openat2("<ro>", "new", CREATE, 0o644)),
    write_protected("open for writing", openat2("<ro>", "locked.txt", os.O_RDWR)),
    write_protected("truncate while reading", openat2("<ro>", "locked.txt", os.O_TRUNC)),
    write_protected("append", openat2("<ro>", "locked.txt", os.O_WRONLY | os.O_APPEND)),
    write_protected("a nameless file", openat2("<ro>", ".", O_TMPFILE | os.O_RDWR, 0o600)),
    write_protected("unlink", call("unlinkat", "<ro>", text("locked.txt"), 0)),
    write_protected("mkdir", call("mkdirat", "<ro>", text("new"), 0o755)),
    write_protected("rename", call("renameat2", "<ro>", text("locked.txt"), "<ro>", text("x"), 0)),
    write_protected(
        "rename into", call("renameat2", "<rw>", text("inside.txt"), "<ro>", text("x"), 0)
    ),
    write_protected("symlink", call("symlinkat", text("x"), "<ro>", text("new"))),
    write_protected("link", call("linkat", "<ro>", text("locked.txt"), "<ro>", text("new"), 0)),
    write_protected("times", call("utimensat", "<ro>", text("locked.txt"), 0, 0)),
    attack(
        "read-only: write through a reading descriptor",
        openat2("<ro>", "locked.txt"),
        call("pwritev", result(0), words(text("gone"), 4), 1, 0, 0),
        dirs=fails("EBADF"),
        bare=fails("EBADF"),
    ),
    attack(
        "read-only: truncate a reading descriptor",
        openat2("<ro>", "locked.txt"),
        call("ftruncate", result(0), 0),
        dirs=fails("EINVAL", "EBADF"),
        bare=fails("EINVAL", "EBADF"),
    ),
    attack(
        "read-only: a shared writable mapping",
        openat2("<ro>", "locked.txt"),
        call("mmap", 0, 4096, 3, 1, result(0), 0),
        dirs=Trapped("mmap"),
        bare=fails("EACCES"),
    ),
)

_MOUNTS = (
    mount_attack("mount", call("mount", text("none"), text("/"), text("tmpfs"), 0, 0)),
    mount_attack("remount", call("mount", 0, text("/"), 0, MS_REMOUNT | MS_BIND, 0)),
    mount_attack("umount2", call("umount2", text("/"), 2)),
    mount_attack("fsopen", call("fsopen", text("proc"), 0)),
    mount_attack("open_tree", call("open_tree", "<rw>", text(""), OPEN_TREE_CLONE | EMPTY_PATH)),
    mount_attack("move_mount", call("move_mount", "<rw>", text(""), CWD, text("/"), 4)),
    mount_attack(
        "writable again",
        call("mount_setattr", "<ro>", text(""), EMPTY_PATH, words(0, MOUNT_ATTR_RDONLY, 0, 0), 32),
    ),
    mount_attack("pivot_root", call("pivot_root", text("/"), text("/"))),
    mount_attack("chroot", call("chroot", text("/"))),
    attack("mounts: listing", call("statmount", zeros(64), zeros(512), 512, 0)),
)

ATTACKS = (*_OUTSIDE, *_PLANT, *_SETUID, *_READ_ONLY, *_MOUNTS)
