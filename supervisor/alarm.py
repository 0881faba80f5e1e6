"""A timer that is moved with every request and hardly ever rings."""

import asyncio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Alarm:
    """Calls `ring` once, so many seconds after the last `set`, unless it is cleared before.

    A loop's timer is made, put into a heap and looked at again for each time that it is moved; here
    moving it to a later time changes a number, and the timer that is there looks at that.  For one
    event loop's thread.  `close` it in the end: until then the loop may keep it.
    """

    __slots__ = ("_due", "_loop", "_ring", "_timer")

    def __init__(self, ring: "Callable[[], None]") -> None:
        self._loop = asyncio.get_running_loop()
        self._ring = ring
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_set(self) -> bool:
        """Whether it is going to ring."""
        return self._due is not None

    def set(self, seconds: float) -> None:
        """Rings so many seconds from now, and not when it was to ring before."""
        self._due = due = self._loop.time() + seconds
        timer = self._timer
        if timer is not None and due < timer.when():
            timer.cancel()
            timer = None
        if timer is None:
            self._timer = self._loop.call_at(due, self._look)

    def clear(self) -> None:
        """Does not ring, until it is set again."""
        self._due = None

    def close(self) -> None:
        """Does not ring, and leaves nothing with the loop."""
        self._due = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        due = self._due
        if due is None:
            return
        if due > self._loop.time():
            self._timer = self._loop.call_at(due, self._look)
        else:
            self._due = None
            self._ring()
