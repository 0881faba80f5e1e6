"""From settings as text to a RunRequest: built-in defaults < policy < flags.

A scalar of a flag replaces the policy's; lists add up.  Every message starts with where the value
stands: the flag, or the file, line and key.
"""

import os

from ..supervisor.errors import PolicyError, UsageError
from ..supervisor.model import Quotas, RunRequest
from . import settings
from .settings import SETTINGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from ..supervisor.model import DirGrant
    from .policy import Policy

# Below this the timers (microseconds) and the scheduler are no longer a limit but noise.
MIN_TIME = 10**6
STDIO = 3
NET_HOST = "host"  # policies.network.HOST, which is too much to import for most runs


class Given:
    """A value as somebody wrote it, and where: `--memory`, or `x.toml: line 3: memory`.

    quantity: what a quota's text came to, once it has been read: (bytes, ns or a count, or None for
    no limit).  A daemon reads a policy's once, and not for every run.
    """

    __slots__ = ("from_policy", "quantity", "source", "text")

    def __init__(self, text: str, source: str, from_policy: bool = False) -> None:
        self.quantity: tuple[int | None] | None = None
        self.text = text
        self.source = source
        self.from_policy = from_policy

    def error(self, clause: object, hint: "str | None" = None) -> UsageError:
        """The error for this value: a PolicyError when a policy file said it."""
        kind = PolicyError if self.from_policy else UsageError
        return kind(f"{self.source}: {clause}", hint)


class Plan:
    """A request, and what a person may want to know of how it came about.

    missing_env: names that were asked for with `--env NAME` and that the caller does not have.
    forbidden: keys whose flags the policy refuses.
    """

    __slots__ = ("forbidden", "missing_env", "policy_path", "request")

    def __init__(
        self,
        request: RunRequest,
        missing_env: "list[str]",
        policy_path: "str | None",
        forbidden: "Iterable[str]" = (),
    ) -> None:
        self.forbidden = frozenset(forbidden)
        self.request = request
        self.missing_env = missing_env
        self.policy_path = policy_path


def build(
    module: str,
    args: "Sequence[bytes | str]",
    flags: "Mapping[str, Sequence[Given]]",
    policy: "Policy | None" = None,
    environ: "Mapping[str, str]" = os.environ,
    *,
    look: bool = True,
) -> Plan:
    """The request for a run of `module`.

    flags: by key of SETTINGS, as given.  policy: None stands for the built-in defaults.  environ:
    the caller's variables, for `--env NAME`.  look: whether to see that granted directories are
    there; a supervisor that acts for others has no business looking with its own rights.

    Raises UsageError (PolicyError for a policy's value) for what cannot be read or contradicts
    itself.
    """
    if policy is not None:
        _refuse_forbidden(flags, policy)
    values = _Values(flags, policy)
    env, missing_env = _environment(values, environ)
    net = values.all("net")
    request = RunRequest(
        module=module,
        args=args,
        env=env,
        dirs=_directories(values) if look else values.all("dir"),
        tmpfs=values.all("tmpfs"),
        listens=values.all("tcplisten"),
        net=[grant for grant in net if grant != NET_HOST],
        net_host=NET_HOST in net,
        quotas=_quotas(values),
        engine=_engine(values),
        invoke=values.text("invoke"),
        argv0=values.text("argv0"),
        clock_resolution=_quantity(values, "clock-resolution", settings.CLOCK_RESOLUTION, 1) or 0,
        allow_missing=[name for names in values.all("allow-missing") for name in names],
        policy="default" if policy is None else policy.name,
    )
    _check_guest_names(request)
    _check_room(request, values)
    if policy is None:
        return Plan(request, missing_env, None)
    return Plan(request, missing_env, policy.path, policy.forbidden)


class _Values:
    """The values of one run: the policy's first, then the flags'."""

    __slots__ = ("flags", "policy")

    def __init__(self, flags: "Mapping[str, Sequence[Given]]", policy: "Policy | None") -> None:
        self.flags = flags
        self.policy = policy.values if policy is not None else {}

    def scalar(self, key: str) -> "Given | None":
        given = self.flags.get(key) or self.policy.get(key)
        return given[-1] if given else None

    def text(self, key: str) -> "str | None":
        given = self.scalar(key)
        if given is not None and (not given.text or "\0" in given.text):
            raise given.error("it is empty" if not given.text else "there is a NUL byte in it")
        return None if given is None else given.text

    def all(
        self,
        key: str,
        check: "Callable[[Any, Given], object] | None" = None,
    ) -> "list[Any]":
        """What `grants` makes of each value of a list; `check` may refuse one."""
        all_given = (*self.policy.get(key, ()), *self.flags.get(key, ()))
        if not all_given:
            return []
        # Not at the top: a run that is granted nothing needs no parser, and importing costs.
        from . import grants

        parse = grants.PARSERS[SETTINGS[key].kind]
        found = []
        for given in all_given:
            try:
                value = parse(given.text)
            except grants.GrantError as error:
                raise given.error(error) from None
            if check is not None:
                check(value, given)
            found.append(value)
        return found


def _refuse_forbidden(flags: "Mapping[str, Sequence[Given]]", policy: "Policy") -> None:
    for key in policy.forbidden:
        for given in _of_kind(key, flags):
            raise given.error(
                f"policy {policy.name!r} allows none ({key} = false in {policy.path})",
                f"leave out {given.source}, or choose another policy",
            )


def _of_kind(key: str, flags: "Mapping[str, Sequence[Given]]") -> "Iterator[Given]":
    """The flags that `key = false` refuses.

    A socket that listens is one, by whichever of two flags it is asked for: no network means none
    of `tcplisten` either, and who grants no listening socket grants none by `net`.
    """
    yield from flags.get(key, ())
    if key == "net":
        yield from flags.get("tcplisten", ())
    elif key == "tcplisten":
        for given in flags.get("net", ()):
            if given.text == NET_HOST or given.text.startswith("listen:tcp:"):
                yield given


def _directories(values: _Values) -> "list[DirGrant]":
    def check(grant: "DirGrant", given: Given) -> None:
        try:
            is_dir = os.stat(grant.host).st_mode & 0o170000 == 0o040000
        except FileNotFoundError:
            raise given.error(
                f"there is no directory {grant.host!r}", _two_colons(grant.host, given.text)
            ) from None
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise given.error(f"cannot open {grant.host!r}: {why}") from None
        if not is_dir:
            parent = os.path.dirname(grant.host) or "."
            raise given.error(
                f"{grant.host!r} is not a directory",
                f"only directories are granted; for the one it is in: --dir {parent}",
            )
        if not os.access(grant.host, os.X_OK):
            raise given.error(f"you may not enter {grant.host!r}: permission denied")

    return values.all("dir", check)


def _two_colons(host: str, text: str) -> "str | None":
    """The hint for a directory written as other programs want it: `HOST:GUEST:ro`."""
    before, colon, _ = host.partition(":")
    if not colon or not os.path.isdir(before):
        return None
    return f"two colons stand between the parts: {text.replace('::', ':').replace(':', '::')}"


def _environment(
    values: _Values, environ: "Mapping[str, str]"
) -> "tuple[list[tuple[str, str]], list[str]]":
    # As with `docker run --env`, a name the caller does not have is left out and is no error:
    # `--env LANG` in a script has to work for whoever has no LANG.  `--explain` shows it.
    env: dict[str, str] = {}
    missing = []
    for name, given in values.all("env"):
        value = environ.get(name) if given is None else given
        if value is not None:
            env[name] = value
        else:
            missing.append(name)
    return list(env.items()), missing


def _engine(values: _Values) -> str:
    given = values.scalar("engine")
    if given is None:
        return settings.ENGINE
    if given.text not in settings.ENGINES:
        raise given.error(f"{given.text!r} is not an engine; it is cranelift or pulley")
    return given.text


def _quotas(values: _Values) -> Quotas:
    fds = _quantity(values, "fds", settings.FDS, STDIO, settings.MAX_FDS)
    return Quotas(
        memory=_quantity(values, "memory", settings.MEMORY, settings.MIN_MEMORY),
        cpu_time=_quantity(values, "cpu-time", settings.CPU_TIME, MIN_TIME),
        timeout=_quantity(values, "timeout", settings.TIMEOUT, MIN_TIME),
        fds=settings.FDS if fds is None else fds,
        file_size=_quantity(values, "file-size", settings.FILE_SIZE, 1),
        output=_quantity(values, "output", settings.OUTPUT, 1),
        fuel=_quantity(values, "fuel", None, 1),
        cpus=_cpus(values),
    )


def _cpus(values: _Values) -> "float | None":
    given = values.scalar("cpus")
    if given is None:
        return None
    from . import units

    if units.is_unlimited(given.text):
        return None
    try:
        return units.parse_cpus(given.text)
    except units.UnitError as error:
        raise given.error(error) from None


def _quantity(
    values: _Values, key: str, default: "int | None", least: int, most: "int | None" = None
) -> "int | None":
    """The quota `key`: bytes, ns or a count; None for no limit."""
    given = values.scalar(key)
    if given is None:
        return default
    if given.quantity is None:
        given.quantity = (_read_quantity(given, key, least, most),)
    return given.quantity[0]


def _read_quantity(given: Given, key: str, least: int, most: "int | None") -> "int | None":
    # Not at the top: most runs give no quota and need no parser.
    from . import units

    setting = SETTINGS[key]
    read: dict[str, Any] = {
        "size": (units.parse_size, units.format_size),
        "duration": (units.parse_duration, units.format_duration),
        "count": (units.parse_count, str),
    }
    parse, show = read[setting.kind]
    if units.is_unlimited(given.text):
        if setting.unlimited:
            return None
        raise given.error(f"there is always a limit; the largest is {show(most)}")
    try:
        value: int = parse(given.text)
    except units.UnitError as error:
        unlimited = "; 'none' takes the limit away" if setting.unlimited else ""
        zero = unlimited if _is_zero(given.text) else ""
        raise given.error(f"{error}{zero}") from None
    if value < least:
        raise given.error(f"{given.text!r} is too small: {_WHY_LEAST[key].format(show(least))}")
    if most is not None and value > most:
        raise given.error(f"{given.text!r} is too large: the most is {show(most)}")
    return value


_WHY_LEAST = {
    "memory": "one page of WebAssembly memory is {}",
    "cpu-time": "the least that can be measured is {}",
    "timeout": "the least that can be measured is {}",
    "fds": "stdin, stdout and stderr are {}",
}


def _is_zero(text: str) -> bool:
    return any(c == "0" for c in text) and not any(c in "123456789" for c in text)


def _check_guest_names(request: RunRequest) -> None:
    """Two directories under one guest name: the guest would see only the first."""
    if len(request.dirs) + len(request.tmpfs) < 2:
        return
    from .grants import guest_key

    seen: dict[str, str] = {}
    named = [(grant.guest, f"--dir {grant.host}") for grant in request.dirs]
    named += [(grant.guest, "--tmpfs") for grant in request.tmpfs]
    for guest, source in named:
        key = guest_key(guest)
        if key in seen:
            raise UsageError(
                f"two directories would have the name {guest!r} in the guest:"
                f" {seen[key]} and {source}",
                "give one of them another name: --dir HOST::GUEST",
            )
        seen[key] = source


def _check_room(request: RunRequest, values: _Values) -> None:
    needed = STDIO + len(request.dirs) + len(request.tmpfs) + len(request.listens)
    given = values.scalar("fds")
    if request.quotas.fds < needed:
        message = f"{request.quotas.fds} descriptors are too few: what is granted takes {needed}"
        if given is not None:
            raise given.error(message)
        raise UsageError(f"--fds: {message}")
