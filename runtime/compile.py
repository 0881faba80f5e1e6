"""Compiling: one worker without a file system, a module in, an artifact and a description out.

What concerns the cache and the module is here.  Launching a worker and waiting for its end is the
supervisor's: it comes as a callable.
"""

import os
import time

from ..supervisor.errors import CacheError, InvalidModule, SetupError
from ..supervisor.model import printable
from ..supervisor.steps import failed_step
from . import spec as _spec
from .cache import ArtifactCache, Ephemeral
from .filters import name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..supervisor.model import RunRecord

    # (spec, timeout in ns, called once a second with the seconds so far) -> (wait status, record)
    Launch = Callable[[_spec.SpecWriter, int, Callable[[float], None]], tuple[int, RunRecord]]

# Quotas of the compiler itself: generous, for the largest programs people have, and finite.  The
# run's own quotas do not count here: the user chose them for what the module does.  The artifact is
# written to a memfd, so it is memory beside MEMORY_BYTES.
MEMORY_BYTES = 4 << 30
CPU_NS = 600 * 10**9
WALL_NS = 300 * 10**9
ARTIFACT_BYTES = 1 << 30
MODULE_BYTES = 1 << 30
FDS = 64

_MAGIC = b"\0asm"
_CORE_VERSION = b"\x01\0\0\0"
_COMPONENT_VERSION = b"\x0d\0\x01\0"
_COPY_BYTES = 1 << 20
_DESCRIPTION = 32 << 20
_LOCK_POLL_MS = 20
# Whoever compiles gives a sign every second.  One that has given none for so long has stopped.
PATIENCE_SECONDS = 10.0
_STORE_ATTEMPTS = 3
# What people give by mistake, by its first bytes.
_KNOWN = (
    (b"\x7fELF", "a native program (ELF)"),
    (b"MZ", "a Windows program"),
    (b"#!", "a script"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "gzip-compressed: decompress it first"),
    (b"!<arch>", "a static library"),
    (b"BC\xc0\xde", "LLVM bitcode"),
    (b"<!DOCTYPE", "an HTML page"),
    (b"<!doctype", "an HTML page"),
    (b"<html", "an HTML page"),
)


class Source:
    """A module's bytes, copied once, so that what was hashed is what gets compiled.

    fd: a memfd, owned by this object until `close`.  digest: SHA-256 in hex.  size: bytes.
    """

    __slots__ = ("digest", "fd", "size")

    def __init__(self, fd: int, digest: str, size: int) -> None:
        self.fd = fd
        self.digest = digest
        self.size = size

    def close(self) -> None:
        """Closes the memfd; does nothing the second time."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


def take(module: int, interrupted: "Callable[[], None]") -> Source:
    """Copies and hashes the module open at `module`, which stays the caller's.

    interrupted: called now and then; may raise.  Raises InvalidModule for what cannot be a module.
    """
    import hashlib

    digest = hashlib.sha256()
    fd = os.memfd_create("wasisup-module", os.MFD_CLOEXEC)
    try:
        size = 0
        while part := os.pread(module, _COPY_BYTES, size):
            if size == 0:
                check_head(part[:512])
            size += len(part)
            if size > MODULE_BYTES:
                raise InvalidModule(f"the module is larger than {MODULE_BYTES >> 20} MiB")
            digest.update(part)
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(fd, rest) :]
            interrupted()
        if size == 0:
            check_head(b"")
    except BaseException:
        os.close(fd)
        raise
    return Source(fd, digest.hexdigest(), size)


def check_head(head: bytes) -> None:
    """Raises InvalidModule unless a file that starts with `head` may be a module or a component.

    Text passes: the compile worker takes the text format as it is.
    """
    if head.startswith(_MAGIC):
        version = head[4:8]
        if version not in (_CORE_VERSION, _COMPONENT_VERSION):
            raise InvalidModule(f"WebAssembly of an unknown version ({version.hex(' ')})")
        return
    if not head:
        raise InvalidModule("the file is empty")
    for start, what in _KNOWN:
        if head.startswith(start):
            raise InvalidModule(f"not a WebAssembly module: it looks like {what}")
    if not _is_text(head):
        raise InvalidModule("not a WebAssembly module")


def is_component(head: bytes) -> bool:
    """Whether a file that starts with `head` is a component, in the binary or the text format.

    Text whose comments are longer than `head` counts as a module's.
    """
    if head.startswith(_MAGIC):
        return head[4:8] == _COMPONENT_VERSION
    return _first_words(head).startswith(b"(component")


def _first_words(text: bytes) -> bytes:
    """Text format without what may stand before its first word: white space and comments."""
    while True:
        text = text.lstrip(b" \t\r\n")
        if text.startswith(b";;"):
            text = text.partition(b"\n")[2]
        elif text.startswith(b"(;"):
            text = _after_comment(text)
        else:
            return text


def _after_comment(text: bytes) -> bytes:
    depth = at = 0
    while at < len(text):
        if text.startswith(b"(;", at):
            depth, at = depth + 1, at + 2
        elif text.startswith(b";)", at):
            depth, at = depth - 1, at + 2
            if depth == 0:
                break
        else:
            at += 1
    return text[at:]


class Compiler:
    """Gets artifacts that are not in the cache yet.

    launch: runs one worker to its end.  pause: waits for so many milliseconds; may raise, when a
    signal asks for the end.  progress: called with words and seconds when something takes long.
    """

    __slots__ = ("_launch", "_pause", "_progress", "cache")

    def __init__(
        self,
        cache: ArtifactCache,
        launch: "Launch",
        pause: "Callable[[int], None]",
        progress: "Callable[[str, float], None] | None",
    ) -> None:
        self.cache = cache
        self._launch = launch
        self._pause = pause
        self._progress = progress

    def artifact(
        self, module: int, name: str, engine: str, key: str, *, fuel: bool
    ) -> "tuple[int, str]":
        """The artifact of the module open at `module`: a descriptor, the caller's, and the digest.

        name: for the progress line.  key: of the engine.  Afterwards `cache` is where the artifact
        lies: another than before when that one could not be written.
        Raises InvalidModule, and SetupError when the compiler could not do its work.
        """
        before = os.fstat(module)
        source = take(module, lambda: self._pause(0))
        try:
            found = self.obtain(source, name, engine, key, fuel=fuel)
        finally:
            source.close()
        after = os.fstat(module)
        # A file that changed while it was read has no digest to remember.
        if (before.st_mtime_ns, before.st_ctime_ns, before.st_size) == (
            after.st_mtime_ns,
            after.st_ctime_ns,
            source.size,
        ):
            try:
                self.cache.remember(before, source.digest)
            except OSError:
                pass  # it is read again next time
        return found, source.digest

    def obtain(self, source: Source, name: str, engine: str, key: str, *, fuel: bool) -> int:
        """The artifact of a module that was copied already: a descriptor, the caller's.

        Compiles under the lock, or waits for whoever has it and takes what that one made.  One who
        gives no sign of life is not waited for: the lock spares work, and storing needs none.
        """
        began = seen = time.monotonic()
        sign: int | None = None
        while True:
            found = self.cache.open_artifact(key, source.digest)
            if found is not None:
                return found
            cache = self.cache
            try:
                lock = cache.try_lock(key, source.digest)
            except OSError as error:
                self._fall_back(error)
                continue
            if lock is not None:
                break
            last, sign = sign, cache.lock_sign(key, source.digest)
            if sign != last:
                seen = time.monotonic()
            elif time.monotonic() - seen > PATIENCE_SECONDS:
                return self._compile(source, name, engine, key, fuel, lock=None)
            self._pause(_LOCK_POLL_MS)
            self._tell(f"waiting for another wasisup to compile {name}", began)
        try:
            found = self.cache.open_artifact(key, source.digest)
            if found is not None:  # its maker finished between our look and our lock
                return found
            return self._compile(source, name, engine, key, fuel, lock=lock)
        finally:
            cache.unlock(key, source.digest, lock)

    def _compile(
        self, source: Source, name: str, engine: str, key: str, fuel: bool, *, lock: "int | None"
    ) -> int:
        def tick(_: float) -> None:
            if lock is not None:
                os.utime(lock)  # the sign of life
            self._tell(f"compiling {name}", began)

        artifact = os.memfd_create("wasisup-artifact", os.MFD_CLOEXEC)
        description = os.memfd_create("wasisup-description", os.MFD_CLOEXEC)
        began = time.monotonic()
        try:
            writer = _compile_spec(engine, source, artifact, description, fuel)
            status, record = self._launch(writer, WALL_NS, tick)
            if status != 0 or record.outcome != "compiled":
                raise _failure(status, record)
            return self._keep(key, source.digest, artifact, os.pread(description, _DESCRIPTION, 0))
        finally:
            os.close(artifact)
            os.close(description)

    def _keep(self, key: str, digest: str, artifact: int, description: bytes) -> int:
        for _ in range(_STORE_ATTEMPTS):
            try:
                self.cache.store(key, digest, artifact, description)
            except FileExistsError:
                pass  # another process has just stored the same
            except OSError as error:
                self._fall_back(error)
                continue
            found = self.cache.open_artifact(key, digest)
            if found is not None:
                return found
            # Pruned, or dropped by a run whose engine refused the one before.
        raise CacheError(f"the compile cache {self.cache.root} does not keep what is stored")

    def _fall_back(self, error: OSError) -> None:
        """Goes on in a cache of this run's own, where the usual one cannot be written."""
        if isinstance(self.cache, Ephemeral):
            raise CacheError(f"no room for the compiled module: {error.strerror}") from error
        if self._progress is not None:
            self._progress(
                f"the compile cache {self.cache.root} cannot be written ({error.strerror}): "
                "compiling for this run only",
                0.0,
            )
        self.cache = Ephemeral()

    def _tell(self, what: str, began: float) -> None:
        seconds = time.monotonic() - began
        if self._progress is not None and seconds >= 1:
            self._progress(what, seconds)


def _compile_spec(
    engine: str, source: Source, artifact: int, description: int, fuel: bool
) -> _spec.SpecWriter:
    """The launch spec of a compile worker, still without its filter."""
    writer = _spec.SpecWriter(_spec.KIND_COMPILE, engine)
    writer.limits(
        memory=MEMORY_BYTES,
        cpu_ns=CPU_NS,
        fds=FDS,
        file_size=ARTIFACT_BYTES,
        output=None,
        fuel=0 if fuel else None,
        table_elements=0,
        data_overhead=0,
    )
    writer.module(source.fd)
    writer.output(artifact, description)
    writer.threads(len(os.sched_getaffinity(0)))
    return writer


def _failure(status: int, record: "RunRecord") -> "InvalidModule | SetupError":
    """Why there is no artifact, from the compile worker's wait status and record."""
    if status == 0 or os.WIFEXITED(status):
        if record.outcome == "invalid":
            return InvalidModule(printable(record.message, keep="\n\t") or "not a valid module")
        if record.outcome == "setup":
            return failed_step(record.errno, record.step, record.message)
        what = {
            "memory": f"it needs more than {MEMORY_BYTES >> 30} GiB of memory",
            "cpu_time": f"it needs more than {CPU_NS // 10**9} s of processor time",
            "file_size": f"its code is larger than {ARTIFACT_BYTES >> 30} GiB",
            "syscall": f"the compiler tried the system call {name_of(record.code)}",
        }.get(record.outcome, f"the compiler left with status {os.waitstatus_to_exitcode(status)}")
    else:
        what = f"the compiler was killed by signal {status & 0x7F}"
    return SetupError(f"the module could not be compiled: {what}", step="compile")


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The cut after so many bytes may go through a character.
        return error.start >= len(head) - 3 and error.start > 0
    return True
