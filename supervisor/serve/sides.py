"""What a connection asks of the two that it works with; `server` and `exchange` are those."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .http import Connection
    from .messages import Refused, Request


class Answerer(Protocol):
    """What answers a request; see `exchange.Exchange`."""

    def start(self) -> None:
        """Begins."""

    def body_came(self) -> None:
        """There is more in the request's buffer, or it is complete."""

    def writable(self) -> None:
        """The client takes more."""

    def fail(self, refused: "Refused") -> None:
        """The request turned out to be a bad one."""

    def gone(self) -> None:
        """The client is not there any more."""


class Server(Protocol):
    """What a connection needs of its server."""

    max_header: int
    max_headers: int
    max_body: int
    stopping: bool
    connections: "set[Connection]"

    def answerer(self, connection: "Connection", request: "Request") -> Answerer:
        """Who answers `request`."""

    def is_full(self) -> bool:
        """Whether a new request would be turned away."""

    def has_room(self) -> bool:
        """Whether one more connection is taken."""

    def finished(self) -> None:
        """A connection is over."""
