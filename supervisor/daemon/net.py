"""Grants of the network, as far as a daemon has a say in them before a run is launched."""

import asyncio
import socket
from errno import EAFNOSUPPORT

from ...policies.network import HOST, format_net
from .. import grants, network
from ..errors import SetupError
from .intake import Prepared

NO_NETWORK = "wasisup.service keeps the daemon off the network, and says how to let it there"


async def prepare(prepared: Prepared, *, component: bool) -> None:
    """Does what a run's network grants need before its launch; a second time it does nothing.

    A component's are its broker's to carry out, if this daemon has a network.  A module has sockets
    that listen already: the daemon opens those that an administrator's policy names, and none for a
    caller, who would get them with the daemon's rights.  Raises SetupError, UsageError.
    """
    request = prepared.request
    if component:
        check_there_is_one()
        return
    own = sum(text != HOST for text in prepared.spec.net)
    for grant in request.net[len(request.net) - own :]:
        if network.as_listener(grant) is not None:
            raise SetupError(
                f"net: {format_net(grant)}: a module of WASI preview 1 cannot listen by itself",
                "open the socket, and send it with the request: listens",
                step="listen",
            )
    known = len(request.listens)
    network.give_module(request)
    grants.check_names(request)
    listeners = [*prepared.opened.listeners]
    for listen in request.listens[known:]:
        opened = await asyncio.to_thread(grants.open_listener, listen)
        listeners.append((prepared.own(opened.detach()), f"{listen.host}:{listen.port}"))
    prepared.opened.listeners = listeners


def check_there_is_one() -> None:
    """Raises SetupError when this process may not make sockets of either family."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.socket(family, socket.SOCK_STREAM).close()
        except OSError as error:
            if error.errno != EAFNOSUPPORT:
                raise SetupError(
                    f"net: no socket can be made: {error.strerror}",
                    step="network",
                    errno=error.errno or 0,
                ) from error
        else:
            return
    raise SetupError(
        "net: this daemon has no network", NO_NETWORK, step="network", errno=EAFNOSUPPORT
    )
