"""The compile cache: module -> digest -> native artifact, in files that only this user can write.

    modules/<stat key>             symlink to the module's SHA-256, so that a file that was seen
                                   before need not be read again
    artifacts/<engine key>/<digest>.cwasm   the compiled module, mode 0444
                           <digest>.ok      symlink: the artifact's stamp (stat fields and SHA-256)
                           <digest>.desc    its imports and exports (describe.py)
                           <digest>.lock    held while somebody compiles it
    filters/<key>.bpf              compiled seccomp filters (filters.py)

Loading an artifact is as good as running native code.  So the root has to be a directory of this
user that nobody else can write, no worker ever gets to write here, and an artifact whose stamp does
not agree with the file is hashed again before it is trusted.  Symlinks as values: reading one is a
single system call, and creating one is atomic.
"""

import errno
import os
import time

from ..supervisor.errors import CacheError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from .upkeep import Entry

# As git does for its index: a file that changes within the clock's grain may look the same.
RACY_NS = 2_000_000_000
# How stale the time of last use may become: a write a run is too much.
LAST_USED_GRAIN_SECONDS = 3600
_OF_ROOT = "/var/cache/wasisup"
# What a half-made entry is called; pruning removes those of processes that were killed.
TEMPORARY = "tmp-"
_EPHEMERAL = "wasisup-this-run-"
_DIGEST_LENGTH = 64
_REGULAR = 0o100000
_COPY_BYTES = 1 << 20


def default_root() -> str:
    """$WASISUP_CACHE_DIR, or /var/cache/wasisup for root, or the user's XDG cache directory."""
    chosen = os.environ.get("WASISUP_CACHE_DIR")
    if chosen:
        return chosen
    if os.geteuid() == 0:
        return _OF_ROOT
    return f"{_xdg_bases()[0]}/wasisup"


def known_roots() -> "list[str]":
    """Every place where a run of this user would look for a cache, there or not."""
    if os.geteuid() == 0:
        return [default_root(), _OF_ROOT]
    # With and without the variables: the next run may not have them.
    return [default_root(), *[f"{base}/wasisup" for base in _xdg_bases()]]


def _xdg_bases() -> "list[str]":
    """The user's cache directories, the one in force first."""
    home = os.path.expanduser("~/.cache")
    if not home.startswith("/"):
        home = "/nonexistent/.cache"  # nobody's home: such a run keeps nothing
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative ones ignored.
    return [base, home] if base.startswith("/") else [home]


class ArtifactCache:
    """One cache directory.  It is opened at the first use, and closed by `close`.

    root: None for default_root().  Methods raise CacheError when the directory is not private to
    this user or cannot be made.
    """

    __slots__ = ("_fd", "root")

    def __init__(self, root: "str | None" = None) -> None:
        self.root = default_root() if root is None else root
        self._fd = -1

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the directory; does nothing the second time."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def fileno(self) -> int:
        """The root as an O_PATH descriptor; it stays the cache's."""
        if self._fd < 0:
            self._fd = _open_private(self.root)
        return self._fd

    # --- modules ---

    def digest_of(self, module: os.stat_result) -> "str | None":
        """The digest that was remembered for a module with this very stat, or None."""
        try:
            digest = os.readlink(f"modules/{_stat_key(module)}", dir_fd=self.fileno())
        except OSError:
            return None
        return digest if _is_digest(digest) else None

    def remember(self, module: os.stat_result, digest: str) -> None:
        """Remembers a module's digest, unless the file is too young for its stat to be trusted."""
        if time.time_ns() - max(module.st_mtime_ns, module.st_ctime_ns) < RACY_NS:
            return
        self._make("modules")
        self._set_link(f"modules/{_stat_key(module)}", digest)

    # --- artifacts ---

    def open_artifact(self, key: str, digest: str) -> "int | None":
        """A read-only descriptor of the artifact, the caller's; None when there is no good one.

        One that is not as it was written counts as none, and stays until `store` replaces it:
        another process may be between writing it and writing its stamp.
        """
        path = f"artifacts/{key}/{digest}"
        fd = self._open_own(f"{path}.cwasm")
        if fd is None:
            return None
        try:
            if self._agrees(fd, path):
                self._touch(f"{path}.ok")
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def store(self, key: str, digest: str, artifact: int, description: bytes) -> None:
        """Copies a finished artifact, read from the descriptor `artifact`, into the cache.

        The compiler never holds a descriptor of what lies here.  The caller holds `lock`.
        """
        folder = f"artifacts/{key}"
        self._make("artifacts")
        self._make(folder)
        self.drop(key, digest)
        self.write_file(f"{folder}/{digest}.desc", description)
        name = f"{folder}/{digest}.cwasm"
        fd, temporary = self._new_file(folder)
        try:
            written = _copy(artifact, fd)
            os.fsync(fd)
            self._publish(fd, temporary, name)
            self._set_link(f"{folder}/{digest}.ok", f"{_stamp(os.fstat(fd))}-{written}")
        except BaseException:
            if temporary:
                self._unlink(temporary)
            raise
        finally:
            os.close(fd)

    def drop(self, key: str, digest: str) -> None:
        """Removes an artifact and what belongs to it."""
        for ending in ("cwasm", "ok", "desc"):
            self._unlink(f"artifacts/{key}/{digest}.{ending}")

    def try_lock(self, key: str, digest: str) -> "int | None":
        """Takes the right to compile one artifact: a descriptor for `unlock`, None if it is taken.

        It ends with the process that holds it.
        """
        import fcntl

        self._make("artifacts")
        self._make(f"artifacts/{key}")
        path = f"artifacts/{key}/{digest}.lock"
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        while True:
            fd = os.open(path, flags, 0o600, dir_fd=self.fileno())
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_still(path, fd):
                    return fd
            except BlockingIOError:
                os.close(fd)
                return None
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # the last holder removed the name between our open and our lock

    def lock_sign(self, key: str, digest: str) -> "int | None":
        """A number that changes while the holder of the lock is alive, None when there is none."""
        path = f"artifacts/{key}/{digest}.lock"
        try:
            return os.stat(path, dir_fd=self.fileno(), follow_symlinks=False).st_mtime_ns
        except FileNotFoundError:
            return None

    def unlock(self, key: str, digest: str, lock: int) -> None:
        """Gives the right back and closes `lock`."""
        self._unlink(f"artifacts/{key}/{digest}.lock")
        os.close(lock)

    # --- small files ---

    def read_file(self, path: str) -> "bytes | None":
        """A whole file below the root, or None when it is not there or not private to this user."""
        fd = self._open_own(path)
        if fd is None:
            return None
        try:
            parts = []
            while part := os.read(fd, _COPY_BYTES):
                parts.append(part)
            return b"".join(parts)
        finally:
            os.close(fd)

    def write_file(self, path: str, content: bytes) -> None:
        """Puts a whole file below the root, mode 0444, at once or not at all."""
        folder = os.path.dirname(path)
        self._make(folder)
        fd, temporary = self._new_file(folder)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(fd, rest) :]
            self._unlink(path)
            self._publish(fd, temporary, path)
        except FileExistsError:
            pass  # another process has just written the same
        except BaseException:
            if temporary:
                self._unlink(temporary)
            raise
        finally:
            os.close(fd)

    # --- upkeep ---

    def prune(self, max_size: "int | None" = None) -> "list[Entry]":
        """Makes room and returns what was removed.

        max_size: bytes of artifacts to keep at most, the most recently used ones; None removes only
        what this engine or this processor cannot use any more.
        """
        from .upkeep import prune

        return prune(self, max_size)

    def list(self) -> "list[Entry]":
        """What is in the cache, the most recently used first."""
        from .upkeep import list_entries

        return list_entries(self)

    # --- inside ---

    def _agrees(self, fd: int, path: str) -> bool:
        """Whether the artifact is the one that was written: by its stamp, or else by its hash."""
        info = os.fstat(fd)
        try:
            stamp = os.readlink(f"{path}.ok", dir_fd=self.fileno())
        except OSError:
            return False
        expected, _, digest = stamp.rpartition("-")
        if expected == _stamp(info):
            return True
        if info.st_size == 0 or _hash(fd) != digest:
            return False
        self._set_link(f"{path}.ok", f"{_stamp(info)}-{digest}")
        return True

    def _touch(self, link: str) -> None:
        # The symlink's time and not the artifact's: setting that would change its ctime, and with
        # it the stamp.
        try:
            info = os.stat(link, dir_fd=self.fileno(), follow_symlinks=False)
            if time.time() - info.st_mtime > LAST_USED_GRAIN_SECONDS:
                os.utime(link, dir_fd=self.fileno(), follow_symlinks=False)
        except OSError:
            pass  # a read-only cache: then the time of last use is not known

    def _open_own(self, path: str) -> "int | None":
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            fd = os.open(path, flags, dir_fd=self.fileno())
        except OSError:
            return None
        info = os.fstat(fd)
        if info.st_mode & 0o170022 == _REGULAR and info.st_uid == os.geteuid():
            return fd
        os.close(fd)
        self._unlink(path)
        return None

    def _new_file(self, folder: str) -> "tuple[int, str]":
        """A new file in `folder`, and its temporary name, "" when the file system needs none."""
        root = self.fileno()
        flags = os.O_WRONLY | os.O_CLOEXEC
        try:
            return os.open(folder, flags | os.O_TMPFILE, 0o444, dir_fd=root), ""
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
                raise
        name = f"{folder}/{TEMPORARY}{os.getpid()}-{os.urandom(8).hex()}"
        return os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o444, dir_fd=root), name

    def _publish(self, fd: int, temporary: str, name: str) -> None:
        root = self.fileno()
        os.fchmod(fd, 0o444)  # whatever the umask was
        if temporary:
            os.rename(temporary, name, src_dir_fd=root, dst_dir_fd=root)
        else:
            os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=root, follow_symlinks=True)

    def _set_link(self, path: str, value: str) -> None:
        root = self.fileno()
        folder = os.path.dirname(path)
        temporary = f"{folder}/{TEMPORARY}{os.getpid()}-{os.urandom(8).hex()}"
        os.symlink(value, temporary, dir_fd=root)
        try:
            os.rename(temporary, path, src_dir_fd=root, dst_dir_fd=root)
        except BaseException:
            self._unlink(temporary)
            raise

    def _make(self, folder: str) -> None:
        try:
            os.mkdir(folder, 0o700, dir_fd=self.fileno())
        except FileExistsError:
            pass

    def _unlink(self, path: str) -> None:
        try:
            os.unlink(path, dir_fd=self.fileno())
        except OSError:
            pass

    def _is_still(self, path: str, fd: int) -> bool:
        try:
            named = os.stat(path, dir_fd=self.fileno(), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(fd))


class Ephemeral(ArtifactCache):
    """A cache for one run, in a temporary directory that `close` removes.

    A lock on the directory says that its run lives; the next one removes what killed runs left.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        import tempfile

        _remove_abandoned(tempfile.gettempdir())
        while True:
            root = tempfile.mkdtemp(prefix=_EPHEMERAL)
            lock = _lock_directory(root)
            if lock is not None:
                break  # else another run has taken it for abandoned, and removes it
        super().__init__(root)
        self._lock = lock

    def close(self) -> None:
        import shutil

        super().close()
        if self._lock >= 0:
            shutil.rmtree(self.root, ignore_errors=True)
            lock, self._lock = self._lock, -1
            os.close(lock)


def _lock_directory(path: str) -> "int | None":
    """A descriptor that holds the lock of a directory of this user; None when it cannot be had."""
    import fcntl

    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_uid == os.geteuid() and os.path.samestat(os.stat(path), os.fstat(fd)):
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


def _remove_abandoned(folder: str) -> None:
    import shutil

    try:
        names = os.listdir(folder)
    except OSError:
        return  # one may be allowed to write into a directory without reading it
    for name in names:
        if name.startswith(_EPHEMERAL):
            path = os.path.join(folder, name)
            lock = _lock_directory(path)
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)


def _open_private(root: str) -> int:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        try:
            fd = os.open(root, flags)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(root) or ".", 0o700, exist_ok=True)
            try:
                os.mkdir(root, 0o700)
            except FileExistsError:
                pass
            fd = os.open(root, flags)
    except OSError as error:
        raise CacheError(
            f"the compile cache {root} cannot be used: {error.strerror}",
            "WASISUP_CACHE_DIR names another directory",
        ) from error
    info = os.fstat(fd)
    if info.st_uid != os.geteuid() or info.st_mode & 0o022:
        os.close(fd)
        raise CacheError(
            f"the compile cache {root} has to belong to you, and to be writable by nobody else",
            f"chown and chmod 700 {root}, or set WASISUP_CACHE_DIR",
        )
    return fd


def _stat_key(info: os.stat_result) -> str:
    return "-".join(
        [
            f"{info.st_dev:x}",
            f"{info.st_ino:x}",
            f"{info.st_size:x}",
            f"{info.st_mtime_ns:x}",
            f"{info.st_ctime_ns:x}",
        ]
    )


def _stamp(info: os.stat_result) -> str:
    return f"{info.st_ino:x}-{info.st_size:x}-{info.st_mtime_ns:x}-{info.st_ctime_ns:x}"


def _is_digest(text: str) -> bool:
    return len(text) == _DIGEST_LENGTH and not text.strip("0123456789abcdef")


def _hash(fd: int) -> str:
    import hashlib

    digest = hashlib.sha256()
    at = 0
    while part := os.pread(fd, _COPY_BYTES, at):
        digest.update(part)
        at += len(part)
    return digest.hexdigest()


def _copy(source: int, target: int) -> str:
    """Copies all of `source`; returns the SHA-256 of what was written."""
    import hashlib

    digest = hashlib.sha256()
    at = 0
    while part := os.pread(source, _COPY_BYTES, at):
        digest.update(part)
        at += len(part)
        rest = memoryview(part)
        while rest:
            rest = rest[os.write(target, rest) :]
    return digest.hexdigest()
