"""The table of attacks: what hostile native code tries, and what it must come to behind each wall.

Every attack runs in three settings.

    none   the shipped filters, no directory granted: the call is trapped, never carried out
    dirs   the shipped filters, two directories granted (<rw> writable, <ro> read-only)
    bare   filters that let everything through, the same directories: what seccomp would have
           stopped must still get nowhere against namespaces, the empty root, Landlock and rlimits

What an attack must come to is said in the words of shapes.py.  Whatever that is, the outside is
looked at after every attack (world.py): nothing there may have changed, nobody may have knocked,
and no secret may have come out.
"""

from __future__ import annotations

from . import files, kernel, memory, processes, sockets
from .shapes import Attack

ATTACKS: tuple[Attack, ...] = (
    *files.ATTACKS,
    *processes.ATTACKS,
    *sockets.ATTACKS,
    *memory.ATTACKS,
    *kernel.ATTACKS,
)
