"""Listing and pruning the compile cache: what `wasisup cache` does, off the road to a run."""

import os
import time

from ..supervisor.model import Shape
from .cache import TEMPORARY, ArtifactCache
from .engine import engine_key

# A compile is long over by then; what is left of one that was killed may go.
_ABANDONED_SECONDS = 3600


class Entry(Shape):
    """One artifact.

    digest: SHA-256 of the module.  engine: release.  target: "cranelift" or "pulley", and "+fuel"
    when it counts fuel.  size: bytes.  created, last_used: seconds since the epoch.  path: the
    file's, absolute.  usable: whether this release on this processor would load it.
    """

    __slots__ = ("digest", "engine", "target", "size", "created", "last_used", "path", "usable")

    def __init__(
        self,
        *,
        digest: str,
        engine: str,
        target: str,
        size: int,
        created: float,
        last_used: float,
        path: str,
        usable: bool,
    ) -> None:
        self.digest = digest
        self.engine = engine
        self.target = target
        self.size = size
        self.created = created
        self.last_used = last_used
        self.path = path
        self.usable = usable


def list_entries(cache: ArtifactCache) -> "list[Entry]":
    """Every artifact, the most recently used first.  Raises CacheError."""
    found = []
    for key in _names(cache, "artifacts"):
        for name in _names(cache, f"artifacts/{key}"):
            if name.endswith(".cwasm"):
                entry = _entry(cache, key, name[: -len(".cwasm")])
                if entry is not None:
                    found.append(entry)
    return sorted(found, key=lambda entry: entry.last_used, reverse=True)


def prune(cache: ArtifactCache, max_size: "int | None") -> "list[Entry]":
    """See ArtifactCache.prune."""
    removed = []
    total = 0
    for entry in list_entries(cache):
        total += entry.size
        if entry.usable if max_size is None else total <= max_size:
            continue
        cache.drop(os.path.basename(os.path.dirname(entry.path)), entry.digest)
        total -= entry.size
        removed.append(entry)
    _sweep(cache)
    return removed


def _entry(cache: ArtifactCache, key: str, digest: str) -> "Entry | None":
    path = f"artifacts/{key}/{digest}"
    try:
        info = os.stat(f"{path}.cwasm", dir_fd=cache.fileno(), follow_symlinks=False)
        try:
            used = os.stat(f"{path}.ok", dir_fd=cache.fileno(), follow_symlinks=False).st_mtime
        except FileNotFoundError:
            used = info.st_mtime
    except OSError:
        return None  # gone since it was listed
    release, _, rest = key.partition("_")
    target = rest.partition("_")[0]
    return Entry(
        digest=digest,
        engine=release,
        target=target,
        size=info.st_size,
        created=info.st_mtime,
        last_used=used,
        path=os.path.abspath(f"{cache.root}/{path}.cwasm"),
        usable=key in _usable_keys(),
    )


def _usable_keys() -> "set[str]":
    engines = ("cranelift", "pulley")
    return {engine_key(engine, fuel=fuel) for engine in engines for fuel in (True, False)}


def _sweep(cache: ArtifactCache) -> None:
    """Removes what belongs to nothing: half-written files, and digests of dropped artifacts."""
    kept = {entry.digest for entry in list_entries(cache)}
    root = cache.fileno()
    for name in _names(cache, "modules"):
        path = f"modules/{name}"
        try:
            if os.readlink(path, dir_fd=root) not in kept:
                os.unlink(path, dir_fd=root)
        except OSError:
            continue
    for name in _names(cache, "filters"):  # made again in a millisecond
        _unlink(f"filters/{name}", root)
    for key in _names(cache, "artifacts"):
        folder = f"artifacts/{key}"
        for name in _names(cache, folder):
            if name.startswith(TEMPORARY):
                _unlink_old(f"{folder}/{name}", root)
            elif name.endswith(".lock"):
                _unlink_free(f"{folder}/{name}", root)
        try:
            os.rmdir(folder, dir_fd=root)
        except OSError:
            continue  # not empty


def _unlink_free(path: str, root: int) -> None:
    """Removes a lock that nobody holds: its compile was killed."""
    import fcntl

    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=root)
    except OSError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        named = os.stat(path, dir_fd=root, follow_symlinks=False)
        if os.path.samestat(named, os.fstat(fd)):
            os.unlink(path, dir_fd=root)
    except OSError:
        pass
    finally:
        os.close(fd)


def _unlink(path: str, root: int) -> None:
    try:
        os.unlink(path, dir_fd=root)
    except FileNotFoundError:
        pass  # another prune was faster


def _unlink_old(path: str, root: int) -> None:
    try:
        info = os.stat(path, dir_fd=root, follow_symlinks=False)
        if time.time() - info.st_ctime > _ABANDONED_SECONDS:
            os.unlink(path, dir_fd=root)
    except OSError:
        pass


def _names(cache: ArtifactCache, folder: str) -> "list[str]":
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=cache.fileno())
    except OSError:
        return []
    try:
        return sorted(os.listdir(fd))
    finally:
        os.close(fd)
