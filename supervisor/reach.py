"""Is the compile cache out of a guest's reach?

What lies in the cache is run as native code by later runs, so a guest that could write there would
leave the sandbox with the next one.  Covering the cache would not do: a guest that may write above
it can rename what leads there.  So a writable grant above a cache is refused.

Every cache counts that a run of this user would come to trust: the one in use and the places where
one is by default, there or not, since the guest could make it.
"""

import os

from .errors import UsageError, WallMissing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model import DirGrant

_MOUNTINFO = "/proc/self/mountinfo"
_MAX_LINKS = 40  # path_resolution(7)


class _Mount:
    """A line of mountinfo (proc(5)): the part `root` of the file system `device` at `point`."""

    __slots__ = ("device", "point", "root")

    def __init__(self, line: str) -> None:
        fields = line.split(" ")
        self.device = fields[2]
        self.root = _unescape(fields[3])
        self.point = _unescape(fields[4])


def check(
    grants: "Sequence[tuple[DirGrant, int]]", caches: "Sequence[str]", *, accept: bool
) -> None:
    """Raises UsageError for a grant inside a cache, WallMissing for a writable one above a cache.

    grants: with an open descriptor of each directory.  accept: the user took the second by name.
    """
    if not grants:
        return
    mounts = _mounts()
    for grant, fd in grants:
        host = os.path.realpath(f"/proc/self/fd/{fd}")
        for place in caches:
            if _is_below(host, os.path.realpath(place)):
                raise UsageError(
                    f"--dir {grant.host}: the compile cache {place} is granted to nobody",
                    "what lies there is run as native code; WASISUP_CACHE_DIR moves it",
                )
            if not grant.read_only and not accept and _reaches(mounts, host, fd, place):
                raise WallMissing(
                    f"--dir {grant.host}: the guest could write to the compile cache {place},"
                    " and what it left there would later run as native code",
                    f"grant a directory further down, or {grant.host}::ro;"
                    " --allow-missing=cache takes the risk",
                    wall="cache",
                    step="cache",
                )


def _reaches(mounts: "list[_Mount]", host: str, fd: int, cache: str) -> bool:
    """Whether who may write to the directory `host` can decide what is found at `cache`.

    By path, by inode, or through another mount of the same place.
    """
    wanted = os.fstat(fd)
    parts = [_locate(mounts, host)]
    parts += [(one.device, one.root) for one in mounts if _is_below(one.point, host)]
    for directory in _trail(cache):
        try:
            if os.path.samestat(os.stat(directory), wanted):
                return True
        except OSError:
            continue  # not made yet: what counts is the directory that it would be made in
        device, path = _locate(mounts, directory)
        if any(one == device and _is_below(path, root) for one, root in parts):
            return True
    # What is granted may also be a part of the cache, by another name.
    device, path = _locate(mounts, os.path.realpath(cache))
    return any(one == device and _is_below(root, path) for one, root in parts)


def _trail(path: str) -> "list[str]":
    """Every directory in which the kernel looks something up on the way to `path`, and the last.

    Those before a symbolic link count as well: there the link could be replaced.
    """
    trail = []
    pending = os.path.abspath(path).split("/")
    here = "/"
    links = 0
    while pending:
        name = pending.pop(0)
        if name in ("", "."):
            continue
        if name == "..":
            here = os.path.dirname(here)
            continue
        trail.append(here)
        step = os.path.join(here, name)
        try:
            target = os.readlink(step)
        except OSError:
            here = step  # no link, or nothing there yet
            continue
        links += 1
        if links > _MAX_LINKS:
            break  # the kernel gives up, too: no cache can be opened there
        here = "/" if target.startswith("/") else here
        pending = target.split("/") + pending
    return [*trail, here]


def _locate(mounts: "list[_Mount]", path: str) -> "tuple[str, str]":
    """The file system that `path` is on, and its path in there."""
    best = None
    for mount in mounts:  # a later line of the same mount point lies on top
        if _is_below(path, mount.point) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    if best is None:
        return "", path
    rest = path[len(best.point) :].lstrip("/")
    return best.device, os.path.join(best.root, rest) if rest else best.root


def _is_below(path: str, above: str) -> bool:
    return path == above or path.startswith(above.rstrip("/") + "/")


def _mounts() -> "list[_Mount]":
    with open(_MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
        return [_Mount(line) for line in file]


def _unescape(text: str) -> str:
    """Spaces and the like are written in octal there."""
    if "\\" not in text:
        return text
    head, *rest = text.split("\\")
    return head + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)
