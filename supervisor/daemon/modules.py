"""The modules that callers may run: by path, by descriptor, by bytes, or by digest.

A digest stands for bytes that somebody has seen, so a caller may name only those that they have
added or run themselves.  Which file has which digest is remembered for each user apart: on a file
system of their own they could make any file look like another.
"""

import asyncio
import errno
import fcntl
import hashlib
import os
import time
from collections import Counter, OrderedDict
from typing import Any

from .. import wire
from ..core import MODULE_BYTES, RACY_NS, Source, check_head
from ..errors import InvalidModule, ModuleNotFound, SetupError
from .access import Access, Caller
from .admission import Admission, Full
from .closing import close_soon
from .failures import HttpError
from .opener import Opened, Openers
from .peers import Budget, Budgets
from .records import Records

_INLINE_BYTES = 1 << 20  # hashing so much takes half a millisecond
_CHUNK = 1 << 20
_MOST_KNOWN = 8192
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class Taken:
    """A module that was named, and how to get at its bytes if it has to be compiled.

    fd: of its bytes, owned; None for one by digest.  budget: of its caller, where the bytes are a
    copy in memory; raises HttpError when there is not enough left for it.
    """

    __slots__ = ("_budget", "caller", "digest", "fd", "name", "size")

    def __init__(
        self,
        caller: Caller,
        name: str,
        digest: str,
        fd: int | None,
        size: int,
        *,
        budget: Budget | None = None,
    ) -> None:
        if budget is not None:
            budget.take(size)
        self._budget = budget
        self.caller = caller
        self.name = name
        self.digest = digest
        self.fd = fd
        self.size = size

    @property
    def copied(self) -> bool:
        """Whether the bytes are a copy of the daemon's own."""
        return self._budget is not None

    def close(self) -> None:
        """Closes the bytes; does nothing the second time."""
        if self.fd is not None:
            fd, self.fd = self.fd, None
            close_soon(fd, self.caller.uid)
            if self._budget is not None:
                self._budget.left += self.size


class ModuleStore:
    """Modules, their digests, and their compiling.

    folder: where added modules are kept, this user's alone.  compiles: how many at once.
    """

    def __init__(
        self,
        records: Records,
        core: Any,
        openers: Openers,
        budgets: Budgets,
        *,
        folder: str,
        compiles: int,
    ) -> None:
        self._budgets = budgets
        self._records = records
        self._core = core
        self._openers = openers
        self._folder = folder
        self._slots = Admission(compiles, 4096, 1 << 62)
        self._share = max(1, compiles - 1)
        self._digests: OrderedDict[tuple[int, ...], str] = OrderedDict()
        self._known: OrderedDict[tuple[int, str], None] = OrderedDict()
        self._reserved: Counter[int] = Counter()
        self._storing: set[asyncio.Task[None]] = set()
        os.makedirs(folder, 0o700, exist_ok=True)

    def reconfigure(self, compiles: int) -> None:
        """Takes another number of compiles at once."""
        self._share = max(1, compiles - 1)
        self._slots.reconfigure(compiles, 4096, 1 << 62)

    def remove_strays(self) -> None:
        """At the start: a kill between two steps leaves bytes that no record has."""
        kept = {f"{digest}.wasm" for digest in self._records.stored_modules()}
        for name in os.listdir(self._folder):
            if name not in kept:
                os.unlink(f"{self._folder}/{name}")

    # --- naming one ---

    async def by_path(self, caller: Caller, path: str, name: str | None) -> Taken:
        """The module at an absolute path, opened as the caller."""
        try:
            found = await self._openers.module(caller, path)
        except OSError as error:
            raise _unreadable(error, path) from None
        return await self._by_file(caller, found, found.fd, name or path)

    async def by_descriptor(self, caller: Caller, fd: int, name: str) -> Taken:
        """The module open at `fd`, which stays the caller's of this method."""
        try:
            found = await self._openers.look(caller, fd)
        except OSError as error:
            raise _unreadable(error, name) from None
        if found.stat.mode & 0o170000 != 0o100000:
            raise InvalidModule(f"{name}: not a regular file")
        if found.open_flags & os.O_PATH or found.open_flags & os.O_ACCMODE == os.O_WRONLY:
            raise InvalidModule(f"{name}: the descriptor cannot be read")
        return await self._by_file(caller, found, os.dup(fd), name)

    async def by_bytes(self, caller: Caller, data: bytes, name: str) -> Taken:
        """A module whose bytes came with the request."""
        fd = os.memfd_create("wasisup-module", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]
            return await self._by_copy(caller, fd, name)
        except BaseException:
            os.close(fd)
            raise

    def by_digest(self, caller: Caller, digest: str, name: str | None) -> Taken:
        """A module that this caller has added or run before.  Raises ModuleNotFound."""
        if (caller.uid, digest) not in self._known:
            info = self._records.module(caller.uid, digest)
            if info is None:
                raise ModuleNotFound(
                    f"you have no module {digest}", "POST /v1/modules adds one (wasisup module add)"
                )
            self._know(caller.uid, digest)
        return Taken(caller, name or digest[:12], digest, None, 0)

    # --- compiling ---

    async def ensure_compiled(self, module: Taken, engine: str, *, fuel: bool) -> None:
        """Compiles it unless it is compiled; waits for a turn.

        Raises InvalidModule, ModuleNotFound (named by a digest whose bytes are not kept) and
        SetupError.
        """
        if self._core.compiled(module.digest, engine, fuel=fuel):
            return
        ticket, turn = None, asyncio.get_running_loop().create_future()
        try:
            ticket = self._slots.enqueue(
                module.caller.uid, 0, self._share, 1024, lambda: _settle(turn)
            )
            await turn
            if self._core.compiled(module.digest, engine, fuel=fuel):
                return
            source = await self._source(module)
            try:
                await self._core.compile(source, module.name, engine, module.caller, fuel=fuel)
            finally:
                source.close()
        except Full as full:
            raise SetupError(
                "too many modules wait to be compiled", "try again later", step="compile"
            ) from full
        finally:
            if ticket is not None:
                # Not by `turn`: one who is cancelled may be given the place in the same moment.
                if ticket.state == "running":
                    self._slots.finished(ticket)
                else:
                    self._slots.cancel(ticket)

    async def _source(self, module: Taken) -> Source:
        if module.fd is None:
            try:
                fd = os.open(self._path(module.digest), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise ModuleNotFound(
                    f"the bytes of module {module.digest} are not kept, and it is not compiled",
                    "add it, or name it by path",
                ) from None
            return Source(fd, module.digest, os.fstat(fd).st_size)
        if module.copied:
            return Source(os.dup(module.fd), module.digest, module.size)
        copy = await self._copy(module.caller, module.fd, module.name)
        if copy.digest != module.digest:
            copy.close()
            raise InvalidModule(f"{module.name}: it has changed while it was started")
        return copy

    # --- adding ---

    async def add(
        self, caller: Caller, access: Access, sink: int, name: str | None
    ) -> wire.ModuleInfo:
        """Compiles and keeps the module in the memfd `sink`, which is taken over."""
        taken = None
        try:
            taken = await self._by_copy(caller, sink, name or "module")
            await self.ensure_compiled(taken, "cranelift", fuel=False)
            info = self._records.module(caller.uid, taken.digest)
            if info is None or not info.stored:
                self._check_room(caller.uid, taken.size, access.modules)
                assert taken.fd is not None
                storing = asyncio.create_task(self._store(taken, os.dup(taken.fd), name))
                self._reserved[caller.uid] += taken.size
                self._storing.add(storing)
                storing.add_done_callback(self._stored)
                # To its end even when the client goes away: bytes without an owner would stay.
                await asyncio.shield(storing)
            else:
                now = time.time_ns()
                self._records.remember_module(caller.uid, taken.digest, name, taken.size, True, now)
            return self.info(caller.uid, taken.digest)
        finally:
            if taken is None:
                os.close(sink)
            else:
                taken.close()

    def _check_room(self, uid: int, size: int, most: int) -> None:
        """Raises HttpError when there is none beside what is stored, or is about to be."""
        total = self._records.module_bytes(uid) + self._reserved[uid] + size
        if total > most:
            raise HttpError(
                507,
                f"your modules would take {total} bytes, of {most}",
                "remove some: DELETE /v1/modules/{digest} (wasisup module rm)",
            )

    async def _store(self, taken: Taken, fd: int, name: str | None) -> None:
        """`fd`: of the module's bytes, taken over."""
        uid, digest, size = taken.caller.uid, taken.digest, taken.size
        try:
            await asyncio.to_thread(self._keep, digest, fd, size)
            self._records.remember_module(uid, digest, name, size, True, time.time_ns())
        finally:
            os.close(fd)
            self._reserved[uid] -= size

    def _stored(self, storing: "asyncio.Task[None]") -> None:
        self._storing.discard(storing)
        if not storing.cancelled():
            storing.exception()  # who waited for it may have gone

    def list(self, uid: int) -> "list[wire.ModuleInfo]":
        """The modules of a user."""
        return [self._with_engines(info) for info in self._records.modules(uid)]

    def info(self, uid: int, digest: str) -> wire.ModuleInfo:
        """One module of a user.  Raises ModuleNotFound."""
        info = self._records.module(uid, digest)
        if info is None:
            raise ModuleNotFound(f"you have no module {digest}")
        return self._with_engines(info)

    def remove(self, uid: int, digest: str) -> None:
        """Forgets a module of a user's, and its bytes with its last user's."""
        self.info(uid, digest)
        self._known.pop((uid, digest), None)
        if self._records.forget_module(uid, digest) == 0:
            try:
                os.unlink(self._path(digest))
            except FileNotFoundError:
                pass  # it was never added, only run

    def _with_engines(self, info: wire.ModuleInfo) -> wire.ModuleInfo:
        info.compiled = [
            engine
            for engine in ("cranelift", "pulley")
            if self._core.compiled(info.digest, engine, fuel=False)
        ]
        return info

    def _keep(self, digest: str, fd: int, size: int) -> None:
        temporary = f"{self._folder}/.{os.urandom(8).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        target = os.open(temporary, flags, 0o600)
        try:
            at = 0
            while at < size:
                at += os.sendfile(target, fd, at, size - at)
            os.fsync(target)
            os.rename(temporary, self._path(digest))
        except BaseException:
            os.unlink(temporary)
            raise
        finally:
            os.close(target)

    def _path(self, digest: str) -> str:
        return f"{self._folder}/{digest}.wasm"

    # --- digests ---

    async def _by_file(self, caller: Caller, found: Opened, fd: int, name: str) -> Taken:
        """`fd` is taken over: of a file that looks like `found`."""
        seen = found.stat
        key = (caller.uid, seen.dev, seen.ino, seen.size, seen.mtime_ns, seen.ctime_ns)
        digest = self._digests.get(key)
        if digest is not None:
            self._digests.move_to_end(key)
            self._remember(caller.uid, digest, name, seen.size)
            return Taken(caller, name, digest, fd, seen.size)
        try:
            copy = await self._copy(caller, fd, name)
        finally:
            close_soon(fd, caller.uid)
        try:
            if copy.steady and time.time_ns() - max(seen.mtime_ns, seen.ctime_ns) > RACY_NS:
                self._digests[key] = copy.digest
                _bound(self._digests)
            self._remember(caller.uid, copy.digest, name, copy.size)
            budget = self._budgets.of(caller.uid)
            return Taken(caller, name, copy.digest, copy.fd, copy.size, budget=budget)
        except BaseException:
            copy.close()
            raise

    async def _copy(self, caller: Caller, fd: int, name: str) -> "_Copy":
        left = self._budgets.of(caller.uid).left
        try:
            copy = await self._openers.copy(caller, fd, min(MODULE_BYTES, left))
        except OSError as error:
            if error.errno == errno.EFBIG and left < MODULE_BYTES:
                raise HttpError(
                    429, f"{name}: your runs hold too much at once", "try again", retry_after=1
                ) from None
            if error.errno == errno.EFBIG:
                raise InvalidModule(
                    f"{name}: the module is larger than {MODULE_BYTES >> 20} MiB"
                ) from None
            raise _unreadable(error, name) from None
        try:
            digest = await _digest(copy.fd, copy.size, name)
        except BaseException:
            os.close(copy.fd)
            raise
        return _Copy(copy.fd, digest, copy.size, not copy.changed)

    async def _by_copy(self, caller: Caller, fd: int, name: str) -> Taken:
        """`fd`: a memfd of the daemon's own, taken over if nothing is raised."""
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        size = os.fstat(fd).st_size
        digest = await _digest(fd, size, name)
        self._remember(caller.uid, digest, name, size)
        return Taken(caller, name, digest, fd, size, budget=self._budgets.of(caller.uid))

    def _remember(self, uid: int, digest: str, name: str, size: int) -> None:
        if (uid, digest) not in self._known:
            # From another thread's or an earlier life's point of view it may be known already.
            self._records.remember_module(uid, digest, name, size, False, time.time_ns())
            self._know(uid, digest)

    def _know(self, uid: int, digest: str) -> None:
        self._known[uid, digest] = None
        _bound(self._known)


class _Copy(Source):
    """A copy, and whether the file stayed as it was meanwhile."""

    __slots__ = ("steady",)

    def __init__(self, fd: int, digest: str, size: int, steady: bool) -> None:
        super().__init__(fd, digest, size)
        self.steady = steady


async def _digest(fd: int, size: int, name: str) -> str:
    try:
        check_head(os.pread(fd, 512, 0))
    except InvalidModule as error:
        error.message = f"{name}: {error.message}"
        raise
    if size <= _INLINE_BYTES:
        return hashlib.sha256(os.pread(fd, size, 0)).hexdigest()
    return await asyncio.to_thread(_hash, fd)


def _hash(fd: int) -> str:
    digest, at = hashlib.sha256(), 0
    while part := os.pread(fd, _CHUNK, at):
        digest.update(part)
        at += len(part)
    return digest.hexdigest()


def _unreadable(error: OSError, name: str) -> Exception:
    reason = error.strerror or str(error)
    text = f"{name}: {reason[:1].lower()}{reason[1:]}"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return ModuleNotFound(f"{name}: no such module")
    if error.errno in (errno.EACCES, errno.EPERM):
        return HttpError(403, text, "it is opened with your rights, not with the daemon's")
    return InvalidModule(text)


def _bound(remembered: "OrderedDict[Any, Any]") -> None:
    while len(remembered) > _MOST_KNOWN:
        remembered.popitem(last=False)


def _settle(turn: "asyncio.Future[None]") -> None:
    if not turn.done():
        turn.set_result(None)
