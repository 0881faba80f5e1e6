"""Named policies: TOML files whose keys are the names of run's flags.

Besides the flags' keys there are `description` and `clock-resolution`.  A list (`dir`, `env`,
`tmpfs`, `tcplisten`, `allow-missing`) may also be `false`: then the flag is refused, too.  Relative
host directories are relative to where `wasisup` is called, as on the command line.

A run without a policy reads no file and has the built-in defaults: a `default.toml` of one's own
takes effect with `--policy default` only.

Whoever can write a policy file decides what is granted to the guests of whoever uses it.  So root
uses only files (in directories) that nobody else can write; everybody else is warned of a file that
others can write or own.
"""

import os

from ..supervisor.errors import PolicyError
from .build import Given
from .settings import SETTINGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SHIPPED = os.path.dirname(os.path.abspath(__file__))
SYSTEM = "/etc/wasisup/policies"
SUFFIX = ".toml"
# Room for thousands of lines; a larger file is not a policy.
MAX_BYTES = 1 << 20

_TYPES = {
    "size": 'a size such as "64MiB", or bytes as a number',
    "duration": 'a time such as "1.5s", or seconds as a number',
    "count": "a whole number",
    "cpus": "a number such as 0.5",
    "choice": 'a string such as "cranelift"',
    "text": "a string",
}


class Policy:
    """A policy as it was read; its values are still text and are checked by `build`.

    values: by key of SETTINGS.  forbidden: keys whose flags are refused.  warnings: sentences
    about the file, for stderr.
    """

    __slots__ = ("description", "forbidden", "name", "path", "values", "warnings")

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.path = path
        self.description = ""
        self.values: dict[str, list[Given]] = {}
        self.forbidden: list[str] = []
        self.warnings: list[str] = []

    @property
    def is_systems(self) -> bool:
        """Whether it is the administrator's or a shipped one, and no user's."""
        return os.path.dirname(self.path) in (SYSTEM, SHIPPED)


def directories(environ: "Mapping[str, str]" = os.environ) -> "list[str]":
    """Where named policies are looked for, first wins: the user's, the system's, the shipped."""
    config = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(config):  # the specification says to ignore a relative one
        config = os.path.join(os.path.expanduser("~"), ".config")
    user = os.path.join(config, "wasisup", "policies")
    # Without a home it would be "~" in the working directory, which anybody may have filled.
    return [user, SYSTEM, SHIPPED] if os.path.isabs(user) else [SYSTEM, SHIPPED]


def names(environ: "Mapping[str, str]" = os.environ) -> "dict[str, str]":
    """Every named policy and the file it would be read from, by name."""
    found: dict[str, str] = {}
    for directory in directories(environ):
        try:
            entries = sorted(os.listdir(directory))
        except OSError:
            continue
        for entry in entries:
            if entry.endswith(SUFFIX) and entry != SUFFIX:
                found.setdefault(entry.removesuffix(SUFFIX), os.path.join(directory, entry))
    return dict(sorted(found.items()))


def load(wanted: str, environ: "Mapping[str, str]" = os.environ) -> Policy:
    """The policy of a name, or of a file when `wanted` has a slash or ends in `.toml`.

    Raises PolicyError, naming the file and, where it can, the line and the key.
    """
    if "/" in wanted or wanted.endswith(SUFFIX):
        name = os.path.basename(wanted).removesuffix(SUFFIX)
        return _read(name, wanted)
    known = names(environ)
    if wanted not in known:
        raise PolicyError(
            f"there is no policy {wanted!r}",
            f"the policies are {', '.join(known)}; a file needs a slash: ./{wanted or 'FILE.toml'}",
        )
    return _read(wanted, known[wanted])


def _read(name: str, path: str) -> Policy:
    import tomllib

    policy = Policy(name, path)
    try:
        with open(path, "rb") as file:
            _check_owner(policy, file.fileno())
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PolicyError(f"cannot read the policy {path!r}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise PolicyError(f"{path}: more than {MAX_BYTES} bytes is no policy")
    try:
        text = data.decode()
        table = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path}: not UTF-8 at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"{path}: not TOML: {error}") from None
    for key, value in table.items():
        _take(policy, key, value, f"{path}: {_line(text, key)}{key}")
    return policy


def _take(policy: Policy, key: str, value: "Any", source: str) -> None:
    if key == "description":
        if not isinstance(value, str):
            raise PolicyError(f"{source}: must be a string")
        policy.description = value
        return
    setting = SETTINGS.get(key)
    if setting is None:
        raise PolicyError(f"{source}: there is no such key", _suggest(key))
    if setting.is_list and value is False:
        policy.forbidden.append(key)
    elif setting.is_list:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise PolicyError(f"{source}: must be a list of strings, or false to refuse any")
        policy.values[key] = [Given(item, source, from_policy=True) for item in value]
    else:
        number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        real = isinstance(value, float) and 0 <= value < 1e10
        seconds = real and setting.kind in ("duration", "cpus")
        if setting.kind in ("choice", "text"):
            number = False
        if not (isinstance(value, str) or number or seconds):
            raise PolicyError(f"{source}: must be {_TYPES[setting.kind]}")
        text = f"{value:.9f}" if isinstance(value, float) else str(value)
        policy.values[key] = [Given(text, source, from_policy=True)]


def _suggest(key: str) -> str:
    import difflib

    near = difflib.get_close_matches(key.lower().replace("_", "-"), [*SETTINGS, "description"], 1)
    if near:
        return f"did you mean {near[0]}?"
    return f"the keys are description, {', '.join(SETTINGS)}"


def _line(text: str, key: str) -> str:
    """`line N: ` of a top-level key, or nothing: tomllib does not say where a key stood."""
    for number, line in enumerate(text.splitlines(), 1):
        start = line.lstrip().removeprefix("[")
        for spelling in (key, f'"{key}"', f"'{key}'"):
            after = start.removeprefix(spelling).lstrip()[:1]
            if start.startswith(spelling) and after in ("=", ".", "]"):
                return f"line {number}: "
    return ""


def _check_owner(policy: Policy, fd: int) -> None:
    file = os.fstat(fd)
    if file.st_mode & 0o170000 != 0o100000:
        raise PolicyError(f"{policy.path} is not a regular file")
    if os.path.dirname(os.path.abspath(policy.path)) == SHIPPED:
        return  # who can write there can write wasisup itself
    me = os.geteuid()
    if me != 0:
        if file.st_mode & 0o002 or file.st_uid not in (0, me):
            policy.warnings.append(f"the policy {policy.path} can be changed by other users")
        return
    parent = os.stat(os.path.dirname(os.path.abspath(policy.path)))
    # In a sticky directory (/tmp) others cannot replace root's file.
    open_parent = parent.st_mode & 0o022 and not parent.st_mode & 0o1000
    if file.st_uid != 0 or file.st_mode & 0o022 or open_parent or parent.st_uid != 0:
        raise PolicyError(
            f"root does not use the policy {policy.path}: other users can change it",
            "the file and its directory must belong to root: chown root, chmod go-w",
        )
