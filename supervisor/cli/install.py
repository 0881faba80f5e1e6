"""`wasisup install`: places the systemd units, for root or for one user.

Each file starts with a line that has the digest of the rest, so that a later version may replace
what nobody has changed, and nothing else.
"""

import hashlib
import os
import shlex
import stat
import sys
import sysconfig

from ..errors import UsageError
from .term import out, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MARK = "# Placed by `wasisup install`; SHA-256 of the rest: "
_COMMAND = "/usr/bin/wasisup"  # as the units have it
_MODE = 0o644
CONFIG = "etc/wasisup/wasisup.toml"

# Where each file goes, below the root or below the user's configuration directory.
_FOR_ROOT = {
    "wasisup.service": "etc/systemd/system/wasisup.service",
    "wasisup.socket": "etc/systemd/system/wasisup.socket",
    "wasisup.slice": "etc/systemd/system/wasisup.slice",
    "sysusers.d/wasisup.conf": "etc/sysusers.d/wasisup.conf",
    "tmpfiles.d/wasisup.conf": "etc/tmpfiles.d/wasisup.conf",
    "wasisup.toml": CONFIG,
}
_FOR_USER = {
    "user/wasisup.service": "systemd/user/wasisup.service",
    "user/wasisup.socket": "systemd/user/wasisup.socket",
    "wasisup.toml": "wasisup/wasisup.toml",
}

_NEXT_FOR_ROOT = (
    ("systemd-sysusers && systemd-tmpfiles --create", "make the group and the directories"),
    ("systemctl daemon-reload", "read the units"),
    ("systemctl enable --now wasisup.socket", "listen, now and after a boot"),
    ("usermod -aG wasisup USER", "let a user connect"),
)
_NEXT_FOR_USER = (
    ("systemctl --user daemon-reload", "read the units"),
    ("systemctl --user enable --now wasisup.socket", "listen, now and after a login"),
    ("loginctl enable-linger", "from the boot on, without a login"),
)


class _Target:
    """A file to place.  text: all of it, the first line included."""

    __slots__ = ("path", "text")

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text

    def state(self) -> str:
        """Of what is there: "absent", "same", "old" (ours, unchanged) or "changed"."""
        try:
            with open(self.path, encoding="utf-8", errors="replace") as file:
                there = file.read()
        except FileNotFoundError:
            return "absent"
        if there == self.text:
            return "same"
        first, _, rest = there.partition("\n")
        return "old" if first == _mark(rest) else "changed"

    def is_config(self) -> bool:
        return self.path.endswith(".toml")


def install(user: bool, root: str, dry_run: bool, uninstall: bool, force: bool) -> int:
    """Places the units, or removes them, and says what to do next.  Returns the exit status.

    user: for the calling user's own service manager and not the system's.  root: the directory that
    is meant by "/".  dry_run: only say what would be done.  force: also files that somebody has
    changed.

    Raises UsageError when a file was changed, or when it takes root.
    """
    command = find_command()
    targets = list(_targets(user, root, command))
    if uninstall:
        return _uninstall(targets, user, dry_run, force)
    changed = [one.path for one in targets if one.state() == "changed" and not one.is_config()]
    if changed and not force:
        raise UsageError(
            f"{', '.join(changed)}: changed since it was placed, or not wasisup's",
            "--force replaces it; a drop-in (systemctl edit wasisup) is not touched by either",
        )
    for target in targets:
        _place(target, dry_run)
    if not user:
        _warn_of_command(command)
    _say_next("then:", _NEXT_FOR_USER if user else _NEXT_FOR_ROOT)
    return 0


def find_command() -> str:
    """The absolute path of this installation's `wasisup`.  Raises UsageError."""
    beside = os.path.join(sysconfig.get_path("scripts"), "wasisup")
    for path in (beside, os.path.abspath(sys.argv[0])):
        if os.path.basename(path) == "wasisup" and os.access(path, os.X_OK):
            return path
    raise UsageError(
        f"there is no command {beside}", "the units start it: install wasisup with pip"
    )


def sources() -> str:
    """The directory of the units as they were shipped, in a checkout or in an installation."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return os.path.join(package, "systemd")


def _targets(user: bool, root: str, command: str) -> "Iterator[_Target]":
    base = _user_directory() if user else "/"
    base = os.path.join(os.path.abspath(root), base.lstrip("/"))
    for source, place in (_FOR_USER if user else _FOR_ROOT).items():
        with open(os.path.join(sources(), source), encoding="utf-8") as file:
            text = file.read()
        if source.endswith(".service"):
            text = text.replace(f"={_COMMAND} ", f"={_quoted(command)} ")
        yield _Target(os.path.join(base, place), f"{_mark(text)}\n{text}")


def _mark(text: str) -> str:
    return _MARK + hashlib.sha256(text.encode()).hexdigest()


def _user_directory() -> str:
    config = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(config):
        config = os.path.join(os.path.expanduser("~"), ".config")
    if not os.path.isabs(config):
        raise UsageError("there is no home directory to place a user's units in", "set HOME")
    return config


def _quoted(command: str) -> str:
    """As a word of ExecStart= (systemd.service(5), "Command lines")."""
    text = command.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    return '"' + text.replace('"', '\\"') + '"' if shlex.quote(command) != command else text


def _place(target: _Target, dry_run: bool) -> None:
    state = target.state()
    if state == "same":
        _report("unchanged", target)
        return
    if state == "changed" and target.is_config():
        # Nobody's settings go with --force either.
        _report("kept", target)
        return
    if not dry_run:
        _touching(target.path, lambda: _write(target.path, target.text))
    _report("placed" if state == "absent" else "replaced", target, dry_run)


def _write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    draft = f"{path}.tmp{os.getpid()}"
    # Whole or not at all; O_EXCL: not through a link that somebody left there.
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, _MODE)  # whatever the umask is
            file.write(text)
        os.rename(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def _uninstall(targets: "list[_Target]", user: bool, dry_run: bool, force: bool) -> int:
    for target in targets:
        state = target.state()
        if state == "absent":
            continue
        if state == "changed" and (target.is_config() or not force):
            _report("kept", target)
            continue
        if not dry_run:
            _touching(target.path, lambda path=target.path: os.unlink(path))  # type: ignore[misc]
        _report("removed", target, dry_run)
    manager = "systemctl --user" if user else "systemctl"
    stop = (f"{manager} disable --now wasisup.socket wasisup.service", "stop what runs")
    _say_next("then:", (stop, (f"{manager} daemon-reload", "forget the units")))
    return 0


def _report(what: str, target: _Target, dry_run: bool = False) -> None:
    out(f"{'would be ' if dry_run else ''}{what.ljust(9)}  {target.path}")


def _touching(path: str, action: "Callable[[], object]") -> None:
    try:
        action()
    except PermissionError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}",
            "as root: sudo wasisup install; for yourself alone: wasisup install --user",
        ) from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def _warn_of_command(command: str) -> None:
    """root's service starts it: whoever can replace it has root's rights."""
    seen = os.path.realpath(command)
    while True:
        file = os.stat(seen)
        shared = file.st_mode & 0o022 and not file.st_mode & stat.S_ISVTX
        if file.st_uid != 0 or shared:
            say("warning", f"{seen} can be changed by others than root, and root's service runs it")
            say("hint", "install wasisup where only root writes, such as a venv below /opt")
            return
        if seen == "/":
            return
        seen = os.path.dirname(seen)


def _say_next(title: str, steps: "tuple[tuple[str, str], ...]") -> None:
    out(title)
    width = max(len(command) for command, _ in steps)
    for command, why in steps:
        out(f"  {command.ljust(width)}  # {why}")
