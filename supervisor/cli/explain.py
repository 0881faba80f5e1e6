"""`run --explain`: what a run would be granted and what limits it, in plain words."""

import os

from ...policies.units import format_duration, format_size
from ..errors import InvalidModule, ModuleNotFound
from ..model import WALLS
from .term import BOLD, out, out_json, out_painted, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...policies.build import Plan
    from ..model import NetGrant, RunRequest
    from ..network import NetPlan

# What each wall is, in the words of the README.
WALL_WORDS = {
    "namespaces": "mounts, processes, IPC, host name and cgroups of its own",
    "network": "a network with nothing in it",
    "root": "an empty, read-only root that holds only the granted directories",
    "identity": "your user, no capabilities, nothing can be gained by exec",
    "rlimits": "the kernel's limits on memory, descriptors, file size and processes",
    "landlock": "a second check of every path and every socket",
    "seccomp": "only the system calls that the grants need",
    "cgroup": "memory of the whole process, where cgroup v2 is delegated to you",
    "threads": "a bound on the threads of a component's worker",
    "cache": "no directory that it may write holds compiled modules, which later runs trust",
}


def show(plan: "Plan", as_json: bool) -> None:
    """Prints what the run would be granted.  Raises ModuleNotFound, InvalidModule."""
    size = _module_size(plan.request.module)
    component = _is_component(plan.request.module)
    planned = _planned(plan.request, component)
    if as_json:
        out_json(_as_data(plan, component, planned))
    else:
        _as_words(plan, size, component, planned)


def _module_size(path: str) -> int:
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise ModuleNotFound(f"{path}: no such module") from None
        why = str(getattr(error, "strerror", None) or error)
        raise InvalidModule(f"{path}: {why[:1].lower()}{why[1:]}") from None
    if status.st_mode & 0o170000 == 0o040000:
        raise InvalidModule(f"{path}: is a directory")
    return status.st_size


def _is_component(path: str) -> bool:
    from .. import launch

    try:
        return launch.is_component_file(path)
    except OSError:
        return False  # it cannot be read: the run will say so


def system_calls(request: "RunRequest", *, component: bool) -> "list[str]":
    """The names of the system calls that the guest's filter would admit, sorted."""
    from ...policies import syscalls
    from .. import launch

    return syscalls.admitted(launch.profile_of(request, component=component))


def _planned(request: "RunRequest", component: bool) -> "NetPlan | None":
    """What the grants of the network come to now.  Raises what a run would, for a name."""
    if not request.net and not request.net_host:
        return None
    from .. import network

    if not component:
        network.give_module(request)
        return None
    return network.plan(request.net, request.net_host)


def _as_data(plan: "Plan", component: bool, planned: "NetPlan | None") -> "dict[str, Any]":
    from .report import SCHEMA, grants

    request = plan.request
    return {
        "schema": SCHEMA,
        "module": os.path.abspath(request.module),
        "form": "component" if component else "module",
        "argv": [_argv0(request), *(_text(arg) for arg in request.args)],
        "engine": request.engine,
        "invoke": request.invoke,
        "policy": request.policy,
        "policy_file": plan.policy_path,
        "quotas": request.quotas.as_dict(),
        "grants": grants(plan),
        "names": _names(planned),
        "missing_env": plan.missing_env,
        "walls": [wall for wall in _needed(component) if wall not in request.allow_missing],
        "allow_missing": sorted(request.allow_missing),
        "system_calls": system_calls(request, component=component),
    }


def _as_words(plan: "Plan", size: int, component: bool, planned: "NetPlan | None") -> None:
    request = plan.request
    where = f" ({plan.policy_path})" if plan.policy_path else ""
    engine = {
        "cranelift": "cranelift (compiled to machine code)",
        "pulley": "pulley (interpreted, no executable memory)",
    }[request.engine]
    for line in table(
        [
            ("module", f"{os.path.abspath(request.module)} ({format_size(size)})"),
            ("arguments", " ".join(_quoted(plan))),
            ("form", "component (WASI 0.2)" if component else "module (WASI preview 1)"),
            ("start", _start(request, component)),
            ("engine", engine),
            ("policy", request.policy + where),
        ]
    ):
        out(line)
    _section("Files", _files(request))
    _section("Variables", _variables(plan))
    _section("Network", _network(request, component, planned))
    _section("Clocks and randomness", _clocks(request))
    _section("Standard streams", _streams())
    _section("Quotas", table(_quotas(request, component)))
    _section("Walls", table(_walls(request, component)))
    calls = system_calls(request, component=component)
    _section(f"System calls admitted: {len(calls)}", _wrapped(calls))


def _start(request: "RunRequest", component: bool) -> str:
    if request.invoke:
        return f"its export {request.invoke!r}"
    return "run of wasi:cli/run" if component else "_start"


def _section(title: str, lines: "list[str]") -> None:
    out()
    out_painted(title, BOLD)
    for line in lines or ["none"]:
        out("  " + line)


def _files(request: "RunRequest") -> "list[str]":
    rows = [
        (grant.guest, "read only" if grant.read_only else "read and write", _real(grant.host))
        for grant in request.dirs
    ]
    rows += [
        (grant.guest, "read and write", f"empty scratch space of {format_size(grant.size)}")
        for grant in request.tmpfs
    ]
    return table(rows) if rows else ["none: the guest cannot open any file"]


def _variables(plan: "Plan") -> "list[str]":
    lines = [f"{name}={value}" for name, value in plan.request.env]
    return lines + [f"{name} is not set here and is left out" for name in plan.missing_env]


def _names(planned: "NetPlan | None") -> "dict[str, list[str]]":
    if planned is None:
        return {}
    from ..network import described

    return described(planned)


def _network(request: "RunRequest", component: bool, planned: "NetPlan | None") -> "list[str]":
    lines = [f"accepts connections on {_address(grant)}" for grant in request.listens]
    if not component:
        if request.net or request.net_host:
            from ..network import useless

            texts = ", ".join(useless(request))
            lines.append(f"no use of --net {texts}: a module of WASI preview 1 cannot connect")
        return lines
    if request.net_host:
        return [*lines, "everything: the host's network as your user has it, private or not"]
    names = _names(planned)
    return lines + [_reached(grant, names) for grant in request.net]


def _reached(grant: "NetGrant", names: "dict[str, list[str]]") -> str:
    """A grant of the network, in words."""
    from ipaddress import ip_address, ip_network

    from ...policies.addresses import PUBLIC, kind_of
    from ...policies.network import format_net

    ports = format_net(grant).rpartition(":")[2]
    where = {"*": "every port"}.get(ports, f"port{'s' if '-' in ports else ''} {ports}")
    protocol = grant.protocol.upper()
    if grant.action == "listen":
        whose = "every address" if ip_address(grant.host).is_unspecified else grant.host
        family = "IPv6" if ":" in grant.host else "IPv4"
        of = f"{whose} ({family})" if whose != grant.host else whose
        return f"listens on {of}, {protocol} {where}"
    verb = "connects to" if grant.protocol == "tcp" else "sends to"
    if grant.host in names:
        return f"{verb} {grant.host} ({', '.join(names[grant.host])}), {protocol} {where}"
    network = ip_network(grant.host)
    what = kind_of(network)[1]
    if what != PUBLIC:
        return f"{verb} {grant.host} ({what}), {protocol} {where}"
    public = "" if network.prefixlen == network.max_prefixlen else " (what is public of it)"
    return f"{verb} {grant.host}{public}, {protocol} {where}"


def _clocks(request: "RunRequest") -> "list[str]":
    resolution = request.clock_resolution
    fine = f"no finer than {format_duration(resolution)}" if resolution else "as fine as the kernel"
    return [f"wall clock and monotonic clock, {fine}", "random bytes from the kernel"]


def _streams() -> "list[str]":
    return table(
        [(name, _stream(fd)) for fd, name in enumerate(("stdin", "stdout", "stderr"))],
    )


def _stream(fd: int) -> str:
    import stat

    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return "closed"
    if os.isatty(fd):
        return "the terminal, as it is"
    kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISREG, "a file"), (stat.S_ISSOCK, "a socket"))
    for is_kind, words in kinds:
        if is_kind(mode):
            return f"{words}, as it is"
    return "a device, as it is"


def _quotas(request: "RunRequest", component: bool) -> "list[tuple[str, str, str]]":
    quotas = request.quotas
    memory = "each linear memory" if component else "linear memory"
    if component:
        from ..launch import COMPONENT_THREADS

        threads = f"of at most {COMPONENT_THREADS} threads; it cannot make another"
    else:
        threads = "it cannot make another"
    fuel = "unlimited" if quotas.fuel is None else str(quotas.fuel)
    return [
        ("memory", format_size(quotas.memory), f"{memory}; growing beyond it fails"),
        ("cpu-time", format_duration(quotas.cpu_time), "on a processor, then it is killed"),
        ("timeout", format_duration(quotas.timeout), "on the clock, then it is killed"),
        ("fds", str(quotas.fds), "descriptors open at once, stdio and grants included"),
        ("file-size", format_size(quotas.file_size), "any one file"),
        ("output", format_size(quotas.output), "to stdout and stderr together"),
        ("fuel", fuel, "the engine's count of instructions"),
        ("processes", "1", threads),
    ]


def _needed(component: bool) -> "list[str]":
    return [wall for wall in WALLS if component or wall != "threads"]


def _walls(request: "RunRequest", component: bool) -> "list[tuple[str, str, str]]":
    rows = []
    for wall in _needed(component):
        need = "may be missing" if wall in request.allow_missing else "required"
        if wall == "cgroup":
            need = "if there is"
        rows.append((wall, need, WALL_WORDS[wall]))
    need = "may be reached" if "cache" in request.allow_missing else "required"
    return [*rows, ("cache", need, WALL_WORDS["cache"])]


def _quoted(plan: "Plan") -> "list[str]":
    from .hints import shell_word

    request = plan.request
    return [shell_word(word) for word in (_argv0(request), *map(_text, request.args))]


def _argv0(request: "RunRequest") -> str:
    return request.argv0 or os.path.basename(request.module)


def _address(grant: "Any") -> str:
    return f"[{grant.host}]:{grant.port}" if ":" in grant.host else f"{grant.host}:{grant.port}"


def _real(host: str) -> str:
    return os.path.realpath(host)


def _text(arg: "bytes | str") -> str:
    return os.fsdecode(arg)


def _wrapped(words: "list[str]") -> "list[str]":
    import textwrap

    return textwrap.wrap(" ".join(words), 78)
