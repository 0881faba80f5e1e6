"""Carries out the operations of `http` with blocking sockets."""

import _socket
import sys
import time

from .http import READ_BYTES, Connect, Receive, Send, Sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TypeVar

    from .http import Flow, Operation

    T = TypeVar("T")


class Driver:
    """Runs one generator at a time in each thread; methods for a subclass to do differently."""

    __slots__ = ()

    def drive(self, flow: "Flow[T]") -> "T":
        """Runs it to its end and returns its result."""
        result: Any = None
        failed: BaseException | None = None
        while True:
            try:
                operation = flow.send(result) if failed is None else flow.throw(failed)
            except StopIteration as end:
                value: T = end.value
                return value
            result = failed = None
            try:
                result = self._perform(operation)
            except BaseException as error:  # it closes what is open, and raises again
                failed = error

    def _perform(self, operation: "Operation | Sleep") -> "bytes | None":
        if isinstance(operation, Receive):
            return self.receive(operation)
        if isinstance(operation, Send):
            self.send(operation)
        elif isinstance(operation, Connect):
            self.connect(operation)
        elif isinstance(operation, Sleep):
            self.sleep(operation.seconds)
        return None

    def connect(self, operation: Connect) -> None:
        """Carries out `Connect`."""
        operation.link.socket = connection = _socket.socket(
            _socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC
        )
        connection.settimeout(operation.timeout)
        connection.connect(operation.path)

    def send(self, operation: Send) -> None:
        """Carries out `Send`."""
        connection = operation.link.socket
        connection.settimeout(operation.timeout)
        sent = connection.sendmsg(*message(operation.data, operation.fds))
        connection.sendall(memoryview(operation.data)[sent:])

    def receive(self, operation: Receive) -> bytes:
        """Carries out `Receive`."""
        connection = operation.link.socket
        connection.settimeout(operation.timeout)
        data: bytes = connection.recv(READ_BYTES)
        return data

    def sleep(self, seconds: float) -> None:
        """Carries out `Sleep`."""
        time.sleep(seconds)


def message(
    data: "bytes | memoryview", fds: "Sequence[int]"
) -> "tuple[list[bytes | memoryview], list[tuple[int, int, bytes]]]":
    """The arguments of sendmsg for bytes with descriptors."""
    if not fds:
        return [data], []
    numbers = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
    return [data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)]
