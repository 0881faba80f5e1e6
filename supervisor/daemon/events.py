"""What happens in the daemon, for everybody who listens: GET /v1/events.

For one event loop's thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from .. import wire

BUFFER = 1024  # events that one subscriber may lag behind


class Hub:
    """Hands every event to all subscribers that want it, and waits for none of them."""

    def __init__(self) -> None:
        self._subscriptions: dict[Subscription, None] = {}  # as a set, but in order
        self._closed = False

    @property
    def heard(self) -> bool:
        """Whether anybody listens: if not, an event need not even be made."""
        return bool(self._subscriptions)

    def subscribe(
        self, wanted: Callable[[wire.Event], bool] | None = None, *, buffer: int = BUFFER
    ) -> Subscription:
        """The events from now on for which `wanted` is true; None: all.

        `wanted` must be quick and never raise.  The caller closes the subscription.
        """
        subscription = Subscription(self, wanted, buffer)
        if self._closed:
            subscription._end()
        else:
            self._subscriptions[subscription] = None
        return subscription

    def publish(self, event: wire.Event) -> None:
        """Returns at once.  The event is shared: nobody changes it afterwards."""
        for subscription in self._subscriptions:
            subscription._offer(event)

    def close(self) -> None:
        """Ends all subscriptions, once they have delivered what they hold.  Idempotent."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription._end()
        self._subscriptions.clear()

    def _leave(self, subscription: Subscription) -> None:
        self._subscriptions.pop(subscription, None)


class Subscription:
    """An asynchronous iterator over events, for one reader; a context manager that closes it.

    Of a reader that lags behind by more than the buffer, events are dropped, and one event of type
    "lost" with their `count` stands in their place.
    """

    def __init__(self, hub: Hub, wanted: Callable[[wire.Event], bool] | None, buffer: int) -> None:
        self._hub = hub
        self._wanted = wanted
        self._buffer = buffer
        self._events: deque[wire.Event] = deque()
        self._lost: wire.Event | None = None  # the last of _events, while events are being dropped
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> wire.Event:
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        event = self._events.popleft()
        if event is self._lost:
            self._lost = None
        return event

    def close(self) -> None:
        """Ends it, without what has not been read.  Idempotent."""
        self._events.clear()
        self._lost = None
        self._end()
        self._hub._leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _offer(self, event: wire.Event) -> None:
        if self._wanted is not None and not self._wanted(event):
            return
        if len(self._events) < self._buffer:
            self._lost = None
            self._events.append(event)
        elif self._lost is None:
            self._lost = wire.Event(time=event.time, type="lost", count=1)
            self._events.append(self._lost)
        else:
            self._lost.count = (self._lost.count or 0) + 1
        self._wake()

    def _end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
