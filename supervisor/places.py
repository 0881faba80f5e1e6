"""Where a daemon's files are when nobody says where: for the daemon, and for those who look for it.

The user's own places are those of the XDG base directory specification.
"""

import os

from .errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def default_path(uid: int, environ: "Mapping[str, str]" = os.environ) -> str:
    """Where the configuration is looked for when nobody says where."""
    if uid == 0:
        return "/etc/wasisup/wasisup.toml"
    return os.path.join(_base(environ, "XDG_CONFIG_HOME", ".config", uid), "wasisup/wasisup.toml")


def default_socket(uid: int, environ: "Mapping[str, str]" = os.environ) -> str:
    """Where the socket is when nobody says where."""
    if uid == 0:
        return "/run/wasisup/wasisup.sock"
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if not os.path.isabs(runtime):
        runtime = f"/run/user/{uid}"
    if os.path.isdir(runtime):
        return os.path.join(runtime, "wasisup/wasisup.sock")
    return os.path.join(default_state(uid, environ), "wasisup.sock")  # no session, no such place


def default_state(uid: int, environ: "Mapping[str, str]" = os.environ) -> str:
    """Where records and logs are kept when nobody says where."""
    if uid == 0:
        return "/var/lib/wasisup"
    return os.path.join(_base(environ, "XDG_STATE_HOME", ".local/state", uid), "wasisup")


def _base(environ: "Mapping[str, str]", variable: str, below_home: str, uid: int) -> str:
    base = environ.get(variable, "")
    if os.path.isabs(base):  # the XDG specification has relative ones ignored
        return base
    home = environ.get("HOME", "")
    if not os.path.isabs(home):
        import pwd

        try:
            home = pwd.getpwuid(uid).pw_dir
        except KeyError:
            raise ConfigError(
                f"user {uid} has no home, and neither HOME nor {variable} says where to look",
                f"set {variable}",
            ) from None
    return os.path.join(home, below_home)
