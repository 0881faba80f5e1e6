"""Where a daemon's socket is."""

import os

from ..errors import ConfigError
from ..places import default_socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "WASISUP_SOCKET"
SYSTEM = "/run/wasisup/wasisup.sock"


def default(environ: "Mapping[str, str]" = os.environ) -> str:
    """$WASISUP_SOCKET, or the user's own daemon's socket if it is there, or the system's."""
    if environ.get(VARIABLE):
        return environ[VARIABLE]
    try:
        own = default_socket(os.geteuid(), environ)
    except ConfigError:
        return SYSTEM  # nobody without a home has a daemon
    return own if os.path.exists(own) else SYSTEM
