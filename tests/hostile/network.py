"""The table of attacks on the network wall: native code in place of a component's guest.

Every attack runs in three settings.

    closed  the shipped filters of a component without --net: no broker
    net     the shipped filters with one rule, tcp:127.0.0.1:PORT, and the broker as descriptor 3
    bare    filters that let everything through, with the same broker: the empty network namespace,
            the empty root and Landlock have to do alone

In `bare` two things are held by no other wall than the filter, and so are not tried: virtio
sockets, which older kernels do not namespace, and sending from a datagram socket of the broker's
to an address of one's own, which Landlock knows nothing of.  TCP is Landlock's as well (from its
ABI 4).
"""

from __future__ import annotations

from . import network_broker, network_connecting, network_sending
from .network_shapes import Attack

ATTACKS: tuple[Attack, ...] = (
    *network_connecting.ATTACKS,
    *network_sending.ATTACKS,
    *network_broker.ATTACKS,
)
