"""From a request on the wire to what can be launched: checked, opened, and owned by one object.

Nothing of a caller's is touched with the daemon's rights: paths are opened, and descriptors that
came along looked at, by a process that is the caller (opener.py).  Only what an administrator's
policy names is opened by the daemon itself.
"""

import asyncio
import fcntl
import os
import socket
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ...policies.build import build
from ...policies.policy import Policy
from .. import grants, reach, wire
from ..errors import InvalidModule, SetupError, UsageError
from ..launch import Opened
from ..model import DirGrant, ListenGrant, RunRequest
from ..sealed import sealed
from . import access as rights
from .access import Access, Caller
from .catalogue import Catalogue
from .closing import close_soon
from .failures import HttpError
from .modules import ModuleStore, Taken
from .opener import Opened as Found
from .opener import Openers
from .peers import Budget, Budgets
from .request import args_of, bound_output, flags_of

_O_PATH = os.O_PATH
_OVERLAYFS = 0x794C7630  # statfs(2)
_CHECK_SECONDS = 10.0
_CHECK_THREADS = 32  # each caller has one at the most


class Prepared:
    """A run that can be launched.  Owns its descriptors until `close`.

    request: with every default and ceiling applied.  stdio: descriptors, None where the daemon
    keeps the stream (stdout, stderr).  stdin_writer: the other end of an open stdin.
    """

    __slots__ = (
        "_budget",
        "_from_client",
        "_held",
        "_owned",
        "access",
        "caller",
        "module",
        "opened",
        "request",
        "spec",
        "stdin_writer",
        "stdio",
    )

    def __init__(
        self,
        caller: Caller,
        access: Access,
        spec: wire.RunRequest,
        request: RunRequest,
        budget: Budget,
    ) -> None:
        self._budget = budget
        self._held = 0
        self.caller = caller
        self.access = access
        self.spec = spec
        self.request = request
        self.module: Taken
        self.opened = Opened([], [])
        self.stdio: list[int | None] = [None, None, None]
        self.stdin_writer: int | None = None
        self._owned: list[int] = []
        self._from_client: list[int] = []

    def hold(self, size: int) -> None:
        """Charges its caller for bytes in memory.  Raises HttpError."""
        self._budget.take(size)
        self._held += size

    def own_from_client(self, fds: list[int]) -> None:
        """Takes ownership of descriptors that came with the request."""
        self._from_client += fds

    def own(self, fd: int) -> int:
        """Takes ownership of a descriptor, and returns it."""
        self._owned.append(fd)
        return fd

    def close_after_launch(self) -> None:
        """Closes what only a launch needs."""
        self._budget.left += self._held
        self._held = 0
        owned, self._owned = self._owned, []
        for fd in owned:
            os.close(fd)
        theirs, self._from_client = self._from_client, []
        for fd in theirs:
            close_soon(fd, self.caller.uid, lent=True)
        if hasattr(self, "module"):
            self.module.close()
        # The numbers are others' now.
        self.opened, self.stdio = Opened([], []), [None, None, None]

    def close(self) -> None:
        """Closes everything."""
        self.close_after_launch()
        self.close_stdin()

    def close_stdin(self) -> None:
        """Ends an open stdin; does nothing when it is not open."""
        if self.stdin_writer is not None:
            fd, self.stdin_writer = self.stdin_writer, None
            os.close(fd)


class Intake:
    """Prepares runs.  cache_roots: where compiled modules lie, which no guest may write."""

    def __init__(
        self,
        openers: Openers,
        modules: ModuleStore,
        catalogue: Catalogue,
        *,
        budgets: Budgets,
        kept_output: int,
        cache_roots: Sequence[str],
    ) -> None:
        self._openers = openers
        self._modules = modules
        self._catalogue = catalogue
        self._cache_roots = list(cache_roots)
        self._budgets = budgets
        self._checking: dict[int, asyncio.Lock] = {}
        self._threads = ThreadPoolExecutor(_CHECK_THREADS, "reach")
        self._nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.kept_output = kept_output

    async def prepare(
        self, caller: Caller, access: Access, spec: wire.RunRequest, fds: list[int]
    ) -> Prepared:
        """What the request asks for, or HttpError or WasisupError.  `fds` is taken over."""
        prepared = None
        try:
            request, policy_dirs = self._request(access, spec)
            prepared = Prepared(caller, access, spec, request, self._budgets.of(caller.uid))
            descriptors, fds = fds, []
            prepared.own_from_client(descriptors[:])
            await self._look_at_all(caller, descriptors)
            self._take_streams(prepared, descriptors)
            await self._open_directories(prepared, descriptors, policy_dirs)
            await self._open_listeners(prepared, descriptors)
            prepared.module = await self._open_module(prepared, descriptors)
            request.module = prepared.module.name
            # Large, and of no more use.
            spec.module.base64 = spec.stdin = None
            grants.check_names(request)
            bound_output(request, spec)
        except BaseException:
            for fd in fds:
                close_soon(fd, caller.uid, lent=True)
            if prepared is not None:
                prepared.close()
            raise
        return prepared

    # --- what is asked for ---

    def _request(self, access: Access, spec: wire.RunRequest) -> tuple[RunRequest, int]:
        """The request with the policy, and how many directories of it are the policy's."""
        policy = self._policy(access, spec.policy)
        flags = flags_of(spec)
        plan = build(spec.module.name or "module", args_of(spec), flags, policy, {}, look=False)
        request = plan.request
        policy_dirs = len(request.dirs)
        if spec.dirs and "dir" in plan.forbidden:
            raise UsageError(f"policy {spec.policy!r} allows no directory", "choose another policy")
        if spec.listens and not plan.forbidden.isdisjoint(("net", "tcplisten")):
            raise UsageError(f"policy {spec.policy!r} allows no socket", "choose another policy")
        rights.check_net(request, access, own=bool(spec.net))
        rights.clamp(request, flags.keys(), access, own_tmpfs=len(spec.tmpfs))
        if spec.stdout is None or spec.stderr is None:
            most = min(self.kept_output, wire.MAX_WAIT_BYTES) if spec.wait else self.kept_output
            output = request.quotas.output
            request.quotas.output = most if output is None else min(output, most)
        return request, policy_dirs

    def _policy(self, access: Access, name: str) -> Policy | None:
        if not access.allows_policy(name):
            raise HttpError(
                403,
                f"you may not use the policy {name!r}",
                f"you may use {', '.join(access.policies) or 'none'}",
            )
        policy = self._catalogue.get(name)
        if policy is None and name != "default":
            raise HttpError(
                422,
                f"there is no policy {name!r}",
                f"the policies are {', '.join(self._catalogue.names())}",
            )
        return policy

    def close(self) -> None:
        """Closes the empty stdin that runs share."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        os.close(self._nothing)

    # --- streams ---

    async def _look_at_all(self, caller: Caller, fds: list[int]) -> None:
        """Refuses files on FUSE: to close one, each of its holders waits for the client's server.

        The zygote would be among them.
        """
        # One after the other, as the opener does it: none is still asked about after a refusal,
        # when its number may be another client's.
        for at, fd in enumerate(fds):
            found = await self._look(caller, fd, f"descriptor {at}")
            if found.close_may_hang or _is_of_a_foreign_overlay(found):
                raise HttpError(
                    422,
                    f"descriptor {at} is a file on FUSE, or may be; that may hang whoever holds it",
                    "send it through a pipe; a directory may be opened with O_PATH",
                )

    def _take_streams(self, prepared: Prepared, fds: list[int]) -> None:
        spec = prepared.spec
        source = wire.Stdin() if spec.stdin is None else spec.stdin
        if isinstance(source, str):
            source = wire.Stdin(base64=source.encode())
        if (source.base64 is not None) + (source.fd is not None) + source.open > 1:
            raise HttpError(422, "stdin: only one of base64, fd and open")
        if source.fd is not None:
            prepared.stdio[0] = _stream(fds, source.fd, "stdin")
        elif source.open:
            reader, prepared.stdin_writer = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(prepared.stdin_writer, False)
            prepared.stdio[0] = prepared.own(reader)
        elif source.base64:
            prepared.hold(len(source.base64))
            prepared.stdio[0] = prepared.own(sealed("wasisup-stdin", source.base64))
        else:
            prepared.stdio[0] = self._nothing
        for number, name in ((1, "stdout"), (2, "stderr")):
            given = getattr(spec, name)
            if given is not None:
                prepared.stdio[number] = _stream(fds, given.fd, name)

    # --- directories ---

    async def _open_directories(self, prepared: Prepared, fds: list[int], policy_dirs: int) -> None:
        request = prepared.request
        directories: list[tuple[DirGrant, int]] = []
        for grant in request.dirs[:policy_dirs]:
            directories.append((grant, prepared.own(grants.open_directory(grant))))
        for at, wanted in enumerate(prepared.spec.dirs):
            found = await self._open_directory(prepared, wanted, fds, f"dirs[{at}]")
            request.dirs.append(found[0])
            directories.append(found)
        prepared.opened.directories = directories
        if any(not grant.read_only for grant, _ in directories):
            await self._check_reach(prepared, directories)

    async def _open_directory(
        self, prepared: Prepared, wanted: wire.Dir, fds: list[int], where: str
    ) -> tuple[DirGrant, int]:
        caller = prepared.caller
        if (wanted.path is None) == (wanted.fd is None):
            raise HttpError(422, f"{where}: either path or fd")
        if "\0" in wanted.guest:
            raise HttpError(422, f"{where}.guest: there is a NUL byte in it")
        if wanted.path is not None:
            _absolute(wanted.path, where)
            try:
                found = await self._openers.directory(caller, wanted.path)
            except OSError as error:
                raise _refused(error, f"{where}: {wanted.path}") from None
            fd = prepared.own(found.fd)
        else:
            assert wanted.fd is not None
            fd = _descriptor(fds, wanted.fd, where)
            found = await self._look(caller, fd, where)
            if not stat.S_ISDIR(found.stat.mode):
                raise HttpError(422, f"{where}: descriptor {wanted.fd} is not a directory")
        # A directory that the caller has from a read-only mount is not theirs to write by another.
        read_only = wanted.read_only or found.read_only
        host = wanted.host if wanted.host and wanted.fd is not None else found.path
        return DirGrant(host, wanted.guest, read_only), fd

    async def _look(self, caller: Caller, fd: int, where: str) -> Found:
        try:
            return await self._openers.look(caller, fd)
        except OSError as error:
            raise _refused(error, where) from None

    async def _check_reach(
        self, prepared: Prepared, directories: list[tuple[DirGrant, int]]
    ) -> None:
        """Whether a guest could write what later runs trust: the daemon's cache, or its caller's.

        In a thread: it looks at paths, and a path may lead to a file system that does not answer.
        One at a time for each caller, so that none can take all the threads.
        """
        uid = prepared.caller.uid
        roots = [*self._cache_roots, *_caches_of(uid)]
        accept = "cache" in prepared.request.allow_missing
        lock = self._checking.setdefault(uid, asyncio.Lock())
        no_answer = HttpError(504, "a granted directory's file system does not answer")
        try:
            await asyncio.wait_for(lock.acquire(), _CHECK_SECONDS)
        except TimeoutError:
            raise no_answer from None
        check = asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: reach.check(directories, roots, accept=accept)
        )

        def let_go(done: "asyncio.Future[None]") -> None:
            # Not before the thread is back: one that hangs is the only one of its caller's.
            lock.release()
            if not lock.locked():
                self._checking.pop(uid, None)
            if not done.cancelled():
                done.exception()

        check.add_done_callback(let_go)
        try:
            await asyncio.wait_for(asyncio.shield(check), _CHECK_SECONDS)
        except TimeoutError:
            raise no_answer from None
        except SetupError as error:
            raise HttpError(422, error.message, error.hint) from None
        except OSError as error:
            raise _refused(error, "a granted directory") from None

    # --- sockets ---

    async def _open_listeners(self, prepared: Prepared, fds: list[int]) -> None:
        request = prepared.request
        listeners: list[tuple[int, str]] = []
        for grant in request.listens:
            opened = await asyncio.to_thread(grants.open_listener, grant)
            listeners.append((prepared.own(opened.detach()), f"{grant.host}:{grant.port}"))
        for at, wanted in enumerate(prepared.spec.listens):
            where = f"listens[{at}]"
            fd = _descriptor(fds, wanted.fd, where)
            host, port = _listening(fd, where)
            request.listens.append(ListenGrant(host, port))
            listeners.append((fd, wanted.name))
        prepared.opened.listeners = listeners

    # --- the module ---

    async def _open_module(self, prepared: Prepared, fds: list[int]) -> Taken:
        wanted, caller = prepared.spec.module, prepared.caller
        given = [wanted.path, wanted.digest, wanted.base64, wanted.fd]
        if sum(one is not None for one in given) != 1:
            raise HttpError(422, "module: exactly one of path, digest, base64 and fd")
        if wanted.path is not None:
            _absolute(wanted.path, "module.path")
            return await self._modules.by_path(caller, wanted.path, wanted.name)
        if wanted.fd is not None:
            fd = _descriptor(fds, wanted.fd, "module.fd")
            return await self._modules.by_descriptor(caller, fd, wanted.name or "module")
        if wanted.base64 is not None:
            if not wanted.base64:
                raise InvalidModule("module: it is empty")
            return await self._modules.by_bytes(caller, wanted.base64, wanted.name or "module")
        assert wanted.digest is not None
        return self._modules.by_digest(caller, wanted.digest, wanted.name)


def _descriptor(fds: list[int], index: int, where: str) -> int:
    if index >= len(fds):
        came = f"{len(fds)} came" if fds else "none came"
        raise HttpError(
            422,
            f"{where}: there is no descriptor {index}; {came} with the request",
            "they are sent with its first bytes (SCM_RIGHTS)",
        )
    return fds[index]


def _stream(fds: list[int], index: int, where: str) -> int:
    fd = _descriptor(fds, index, where)
    # Asks nobody but this process's own table: it cannot hang.
    if fcntl.fcntl(fd, fcntl.F_GETFL) & _O_PATH:
        raise HttpError(
            422, f"{where}: descriptor {index} can be neither read nor written (O_PATH)"
        )
    return fd


def _listening(fd: int, where: str) -> tuple[str, int]:
    own = os.dup(fd)
    try:
        sock = socket.socket(fileno=own)
    except OSError:
        os.close(own)
        raise HttpError(422, f"{where}: not a socket") from None
    with sock:
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            raise HttpError(422, f"{where}: not a TCP socket")
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise HttpError(422, f"{where}: the socket does not listen")
        name = sock.getsockname()
    return str(name[0]), int(name[1])


def _is_of_a_foreign_overlay(found: Found) -> bool:
    """An overlay that is not mounted here was made by the caller, perhaps over FUSE."""
    if found.fs_type != _OVERLAYFS or not stat.S_ISREG(found.stat.mode):
        return False
    device = f"{os.major(found.stat.dev)}:{os.minor(found.stat.dev)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return all(line.split(" ")[2] != device for line in file)


def _absolute(path: str, where: str) -> None:
    if not path.startswith("/"):
        raise HttpError(422, f"{where}: {path!r} is relative, and the daemon is nowhere")
    if "\0" in path:
        raise HttpError(422, f"{where}: there is a NUL byte in it")


def _refused(error: OSError, what: str) -> HttpError:
    status = 403 if isinstance(error, PermissionError) else 422
    reason = error.strerror or str(error)
    return HttpError(status, f"{what}: {reason[:1].lower()}{reason[1:]}")


def _caches_of(uid: int) -> list[str]:
    """Where the caller's own `wasisup run` looks for compiled modules by default."""
    import pwd

    try:
        home = pwd.getpwuid(uid).pw_dir
    except KeyError:
        return []
    return [f"{home}/.cache/wasisup"] if home.startswith("/") else []
