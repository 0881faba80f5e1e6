"""How many workers at once, and who waits for a place."""

import asyncio
from collections import deque


class Full(Exception):
    """No place, and no room to wait for one."""


class Gate:
    """`places` at once; `waiting` more in a queue, first come, first served.

    places, waiting: counts, at least 1 and 0.
    """

    def __init__(self, places: int, waiting: int) -> None:
        self._free = places
        self._most_waiting = waiting
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._queue)

    def try_enter(self) -> bool:
        """Takes a place if one is free."""
        if self._free and not self._queue:
            self._free -= 1
            return True
        return False

    async def enter(self, seconds: float) -> None:
        """Waits for a place, at the longest so many seconds.  Raises Full.

        Cancelled, it holds none.
        """
        if self.try_enter():
            return
        if len(self._queue) >= self._most_waiting:
            raise Full
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave()  # the turn came in the same moment
            elif turn in self._queue:
                self._queue.remove(turn)
            if isinstance(error, TimeoutError):
                raise Full from None
            raise

    def leave(self) -> None:
        """Gives a place back: to whoever has waited longest."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
