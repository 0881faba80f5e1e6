"""What a run is given, in Python's words, and the request and descriptors that it makes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Self, Unpack

import msgspec

from .. import wire
from ..errors import InvalidModule, ModuleNotFound, SetupError, UsageError
from ..model import DirGrant
from ..shapes import RunOptions, StrPath

PIPE = -1  # subprocess.PIPE: stdin that is written later
DIGEST = "sha256:"
# What fits a pipe at once travels in the request; more is a file in memory, handed over.
_INLINE = 64 << 10


class OpenModule:
    """A module that is opened once for many runs; `close` when they are over.

    Raises ModuleNotFound, InvalidModule.
    """

    def __init__(self, source: StrPath | bytes) -> None:
        if isinstance(source, bytes):
            self.name = "module.wasm"
            self.fd = _in_memory("module", source)
        else:
            self.name = os.path.abspath(source)
            self.fd = _open_module(os.fspath(source))

    def close(self) -> None:
        """Closes it."""
        os.close(self.fd)


ModuleSource = StrPath | bytes | wire.ModuleInfo | OpenModule
_encode = msgspec.json.Encoder().encode


class ClientOptions(RunOptions, total=False):
    """What only a daemon's runs may be given, too.

    labels: for `runs(label=...)`.  stdout, stderr: what has a descriptor, for the guest to write
    straight into; kept by the daemon if left out.  listens: listening TCP sockets, by name, that
    the guest may accept from.
    """

    labels: Mapping[str, str]
    stdout: object
    stderr: object
    listens: Mapping[str, socket.socket]


class Prepared:
    """A request for a run, and the descriptors that go with it until the `with` ends.

    Raises ModuleNotFound, InvalidModule, SetupError for what cannot be opened, UsageError for what
    cannot be said.
    """

    def __init__(
        self,
        module: ModuleSource,
        args: Iterable[str | bytes] = (),
        *,
        wait: bool = False,
        **options: Unpack[ClientOptions],
    ) -> None:
        self.fds: list[int] = []
        self._owned = ExitStack()
        try:
            request = self._request(module, args, dict(options))
            request.wait = wait
            self.body = _encode(request)
        except UnicodeEncodeError as error:
            self._owned.close()
            raise UsageError(f"{error.object!r} cannot be sent: it is not UTF-8") from None
        except BaseException:
            self._owned.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._owned.close()

    def _request(
        self, module: ModuleSource, args: Iterable[str | bytes], options: dict[str, Any]
    ) -> wire.RunRequest:
        quotas = wire.Quotas(
            **{name: options.pop(name) for name in wire.Quotas.__struct_fields__ if name in options}
        )
        request = wire.RunRequest(
            module=self._module(module),
            args=[_text(arg) for arg in args],
            env={name: _text(value) for name, value in options.pop("env", {}).items()},
            dirs=[self._directory(grant) for grant in options.pop("dirs", ())],
            tmpfs=[
                wire.Tmpfs(guest=guest, size=size)
                for guest, size in options.pop("tmpfs", {}).items()
            ],
            listens=[
                wire.Listen(fd=self._lend(connection), name=name)
                for name, connection in options.pop("listens", {}).items()
            ],
            net=_listed(options.pop("net", ())),
            quotas=quotas,
            stdin=self._stdin(options.pop("stdin", None)),
            labels=dict(options.pop("labels", {})),
            allow_missing=list(options.pop("allow_missing", ())),
        )
        for stream in ("stdout", "stderr"):
            if options.get(stream) is not None:
                options[stream] = wire.Descriptor(fd=self._lend(options[stream]))
        for name, value in options.items():
            if name not in _PLAIN:
                raise TypeError(f"a run has no option {name!r}")
            setattr(request, name, value)
        return request

    def _lend(self, source: Any) -> int:
        """The place of a caller's descriptor among those that are sent."""
        fd = source if isinstance(source, int) else source.fileno()
        self.fds.append(fd)
        return len(self.fds) - 1

    def _own(self, fd: int) -> int:
        self._owned.callback(os.close, fd)
        return self._lend(fd)

    def _module(self, source: ModuleSource) -> wire.Module:
        if isinstance(source, wire.ModuleInfo):
            return wire.Module(digest=source.digest, name=source.name)
        if isinstance(source, OpenModule):
            return wire.Module(fd=self._lend(source.fd), name=source.name)
        if not isinstance(source, bytes) and is_digest(source):
            return wire.Module(digest=os.fspath(source).removeprefix(DIGEST))
        module = OpenModule(source)
        return wire.Module(fd=self._own(module.fd), name=module.name)

    def _directory(self, grant: DirGrant | StrPath) -> wire.Dir:
        if not isinstance(grant, DirGrant):
            grant = DirGrant(os.fspath(grant), os.fspath(grant))
        try:
            fd = os.open(grant.host, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SetupError(
                f"cannot grant {grant.host!r}: {error.strerror}",
                step="open a directory",
                errno=error.errno or 0,
            ) from error
        return wire.Dir(
            guest=grant.guest,
            fd=self._own(fd),
            read_only=grant.read_only,
            host=os.path.realpath(grant.host),
        )

    def _stdin(self, source: Any) -> str | wire.Stdin | None:
        if source is None:
            return None
        if isinstance(source, str):
            source = source.encode()
        if isinstance(source, bytes):
            if len(source) > _INLINE:
                return wire.Stdin(fd=self._own(_in_memory("stdin", source)))
            text = _text(source)
            return text if isinstance(text, str) else wire.Stdin(base64=text.base64)
        if isinstance(source, int) and source == PIPE:
            return wire.Stdin(open=True)
        return wire.Stdin(fd=self._lend(source))


# Options that go into the request as they are.
_PLAIN = ("argv0", "policy", "engine", "invoke", "clock_resolution", "stdout", "stderr")


@contextmanager
def opened(source: ModuleSource) -> Iterator[ModuleSource]:
    """The module, opened once for many runs if it is a path or bytes."""
    if isinstance(source, wire.ModuleInfo | OpenModule) or (
        not isinstance(source, bytes) and is_digest(source)
    ):
        yield source
        return
    module = OpenModule(source)
    try:
        yield module
    finally:
        module.close()


def is_digest(source: StrPath) -> bool:
    """Whether it is "sha256:..." and no path."""
    return isinstance(source, str) and source.startswith(DIGEST)


def _in_memory(name: str, data: bytes) -> int:
    """A new file in memory with these bytes, the caller's, at its start."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_module(path: str) -> int:
    try:
        # Non-blocking: a FIFO would wait for a writer before it could be refused.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModuleNotFound(f"{path}: no such module") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidModule(f"{path}: {reason[:1].lower()}{reason[1:]}") from error


def _listed(net: Iterable[str]) -> list[str]:
    if isinstance(net, str):
        raise TypeError(f"net is a list of grants, such as [{net!r}]")
    return list(net)


def _text(value: str | bytes) -> str | wire.Bytes:
    """As text where that says it, else as base64."""
    data = os.fsencode(value)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return wire.Bytes(base64=data)
