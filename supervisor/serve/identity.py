"""Who serves: never root, unless it was asked to stay root.

A server's first business is to read what strangers send.  So a server that root started becomes an
ordinary user, for good, once it has what only root may open (a port below 1024, the module), and
before it has read a byte, started the core, or opened a directory that is granted.  What it is
then, the zygote and the workers are too: nothing of root is left in any of them.
"""

import ctypes
import grp
import os
import pwd

from ..errors import SetupError, UsageError

DEFAULT = "nobody"
_NOBODY = 65534
_LAST_ID = (1 << 32) - 2  # the next one means "leave it as it is" (setresuid(2))
_MOST_DIGITS = 10
_PR_SET_NO_NEW_PRIVS = 38
# Whose: the user's own places follow from HOME.
_OF_ROOT = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR",
            "WASISUP_CACHE_DIR")  # fmt: skip


class Identity:
    """A user to be.  groups: supplementary ones.  home: "/" for a user that has none."""

    __slots__ = ("gid", "groups", "home", "name", "uid")

    def __init__(self, uid: int, gid: int, groups: tuple[int, ...], name: str, home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.name = name
        self.home = home


def own() -> Identity:
    """Who this process is."""
    return Identity(os.geteuid(), os.getegid(), tuple(os.getgroups()), "", "/")


def find(text: str | None) -> Identity | None:
    """Whom the server becomes; None: it stays who it is.

    text: a user's name, or UID:GID; None for the default, which only root has need of.
    Raises UsageError.
    """
    if os.geteuid() != 0:
        if text is None or _lookup(text).uid == os.geteuid():
            return None
        raise UsageError(f"--user {text}: only root can become somebody else")
    wanted = _lookup(DEFAULT if text is None else text)
    if wanted.uid == 0 and wanted.gid != 0:
        raise UsageError(f"--user {text}: a root with other groups is still root", "--user root")
    return wanted if wanted.uid != 0 else None


def _lookup(text: str) -> Identity:
    uid, colon, gid = text.partition(":")
    if colon:
        if not (uid.isascii() and uid.isdigit() and gid.isascii() and gid.isdigit()):
            raise UsageError(f"--user: {text!r} is not UID:GID", "--user NAME or --user UID:GID")
        if max(len(uid), len(gid)) > _MOST_DIGITS or max(int(uid), int(gid)) > _LAST_ID:
            raise UsageError(f"--user: {text!r}: ids end at {_LAST_ID}")
        return Identity(int(uid), int(gid), (), text, "/")
    try:
        entry = pwd.getpwnam(text)
    except (KeyError, ValueError):
        if text == DEFAULT:
            return Identity(_NOBODY, _NOBODY, (), text, "/")
        raise UsageError(
            f"--user: there is no user {text!r}", "--user NAME or --user UID:GID"
        ) from None
    groups = os.getgrouplist(text, entry.pw_gid)
    return Identity(entry.pw_uid, entry.pw_gid, tuple(groups), text, entry.pw_dir)


def become(identity: Identity) -> None:
    """Becomes that user, with no way back.  Raises SetupError."""
    try:
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    except OSError as error:
        raise SetupError(
            f"--user {identity.name}: {error.strerror}", step="identity", errno=error.errno or 0
        ) from error
    # No set-user-ID program is a way back either.
    if ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise SetupError("no_new_privs cannot be set", step="identity")
    if os.getresuid() != (identity.uid,) * 3 or os.getresgid() != (identity.gid,) * 3:
        raise SetupError(f"--user {identity.name}: it did not take", step="identity")
    for name in _OF_ROOT:
        os.environ.pop(name, None)
    os.environ["HOME"] = identity.home
    os.environ["USER"] = os.environ["LOGNAME"] = identity.name


def group_names(identity: Identity) -> list[str]:
    """The names of its groups, for the log."""
    names = []
    for gid in sorted({identity.gid, *identity.groups}):
        try:
            names.append(grp.getgrgid(gid).gr_name)
        except KeyError:
            names.append(str(gid))
    return names
