"""What is asked of a run and what came of it: plain shapes, without behaviour.

Plain classes with slots and not dataclasses: importing `dataclasses` costs more than all of this
module, and it is on the road to every run.  Times are nanoseconds and sizes bytes, as integers.
None in a quota stands for "no limit".
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

# In the order of the bits of `enum ws_wall` (runtime/core/base/record.h).
WALLS = (
    "namespaces",
    "network",
    "root",
    "identity",
    "rlimits",
    "landlock",
    "seccomp",
    "cgroup",
    "threads",
)

# What --allow-missing takes: walls that a run can do without, and "cache", that the compile cache
# is out of the guest's reach (supervisor/reach.py).
MAY_MISS = ("namespaces", "network", "landlock", "seccomp", "threads", "cache")

# How a run can end; the field `reason` of every report.
REASONS = (
    "exit",
    "trap",
    "timeout",
    "cpu_time",
    "memory",
    "output",
    "file_size",
    "fuel",
    "syscall",
    "killed",
    "setup",
    "invalid_module",
    "not_found",
    "denied",
)


class Shape:
    """Equality, repr and a plain dict for classes whose slots are their fields."""

    __slots__: tuple[str, ...] = ()

    def as_dict(self) -> "dict[str, Any]":
        """The fields by name, nested shapes as dicts too, ready for JSON."""
        return {name: _plain(getattr(self, name)) for name in self.__slots__}

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # the fields can be assigned to

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"


def _plain(value: "Any") -> "Any":
    if isinstance(value, Shape):
        return value.as_dict()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, bytes):
        # Not os.fsdecode: a file name in JSON has to be text that every reader accepts.
        return value.decode("utf-8", "backslashreplace")
    return value


class Quotas(Shape):
    """The limits of one run.

    memory: bytes of each linear memory.  cpu_time, timeout: ns.  fds: guest descriptors open at
    once, stdio and preopens included.  file_size: bytes of any one file.  output: bytes to stdout
    and stderr together.  fuel: the engine's units.  cpus: processors' worth of time per time, a
    control group's to keep.
    """

    __slots__ = ("memory", "cpu_time", "timeout", "fds", "file_size", "output", "fuel", "cpus")

    def __init__(
        self,
        *,
        memory: "int | None" = None,
        cpu_time: "int | None" = None,
        timeout: "int | None" = None,
        fds: int = 64,
        file_size: "int | None" = None,
        output: "int | None" = None,
        fuel: "int | None" = None,
        cpus: "float | None" = None,
    ) -> None:
        self.memory = memory
        self.cpu_time = cpu_time
        self.timeout = timeout
        self.fds = fds
        self.file_size = file_size
        self.output = output
        self.fuel = fuel
        self.cpus = cpus


class DirGrant(Shape):
    """A host directory that the guest finds under the name `guest`."""

    __slots__ = ("host", "guest", "read_only")

    def __init__(self, host: str, guest: str, read_only: bool = False) -> None:
        self.host = host
        self.guest = guest
        self.read_only = read_only


class TmpfsGrant(Shape):
    """Scratch space of `size` bytes under the name `guest`; it dies with the run."""

    __slots__ = ("guest", "size")

    def __init__(self, guest: str, size: int) -> None:
        self.guest = guest
        self.size = size


class ListenGrant(Shape):
    """A TCP socket that already listens on host:port; the guest may only accept."""

    __slots__ = ("host", "port")

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port


class NetGrant(Shape):
    """Whom the guest may connect to, or where it may listen, by itself.

    action: "connect" (for UDP: send) or "listen".  protocol: "tcp" or "udp".  host: for "connect" a
    name in small letters, an address or a CIDR; for "listen" an address, the unspecified one for
    all of its family.  Addresses as RFC 5952 writes them, without brackets.  low, high: ports, both
    included.  policies/network.py reads and writes it.
    """

    __slots__ = ("action", "protocol", "host", "low", "high")

    def __init__(self, action: str, protocol: str, host: str, low: int, high: int) -> None:
        self.action = action
        self.protocol = protocol
        self.host = host
        self.low = low
        self.high = high


class RunRequest(Shape):
    """One run, as the user asked for it, with every default filled in.

    module: path.  args: those after argv[0].  argv0: None for the module's base name.  engine:
    "cranelift" or "pulley".  invoke: an export to call in place of `_start`.  clock_resolution: ns,
    0 for as fine as the kernel's.  allow_missing: names of MAY_MISS.  policy: the
    policy's name, for the report.  net_host: the host's whole network, whatever `net` has.
    """

    __slots__ = (
        "module",
        "args",
        "env",
        "dirs",
        "tmpfs",
        "listens",
        "net",
        "net_host",
        "quotas",
        "engine",
        "invoke",
        "argv0",
        "clock_resolution",
        "allow_missing",
        "policy",
    )

    def __init__(
        self,
        *,
        module: str,
        args: "Sequence[bytes | str]" = (),
        env: "Sequence[tuple[str, str]]" = (),
        dirs: "Sequence[DirGrant]" = (),
        tmpfs: "Sequence[TmpfsGrant]" = (),
        listens: "Sequence[ListenGrant]" = (),
        net: "Sequence[NetGrant]" = (),
        net_host: bool = False,
        quotas: "Quotas | None" = None,
        engine: str = "cranelift",
        invoke: "str | None" = None,
        argv0: "str | None" = None,
        clock_resolution: int = 0,
        allow_missing: "Iterable[str]" = (),
        policy: str = "default",
    ) -> None:
        self.module = module
        self.args = list(args)
        self.env = list(env)
        self.dirs = list(dirs)
        self.tmpfs = list(tmpfs)
        self.listens = list(listens)
        self.net = list(net)
        self.net_host = net_host
        self.quotas = Quotas() if quotas is None else quotas
        self.engine = engine
        self.invoke = invoke
        self.argv0 = argv0
        self.clock_resolution = clock_resolution
        self.allow_missing = frozenset(allow_missing)
        self.policy = policy


class Denial(Shape):
    """Something the guest asked for and did not get.

    kind: a name of `enum ws_denial_kind`, lower case, e.g. "no_preopen"; or "no_room", for `count`
    others, when a worker was refused more different things than a record holds.  errno: the WASI
    errno the guest saw.  path: what it was about, made printable.
    """

    __slots__ = ("kind", "count", "errno", "path")

    def __init__(self, kind: str, count: int, errno: int, path: str) -> None:
        self.kind = kind
        self.count = count
        self.errno = errno
        self.path = path


class Usage(Shape):
    """What a run used up.

    Times in ns; max_rss: bytes, the whole process; memory: bytes of linear memory when the guest
    ended; output: bytes to stdout and stderr; fuel: units, 0 when it was not metered.
    """

    __slots__ = (
        "cpu_user_ns",
        "cpu_system_ns",
        "wall_ns",
        "max_rss",
        "memory",
        "output",
        "fuel",
        "minor_faults",
        "major_faults",
    )

    def __init__(
        self,
        *,
        cpu_user_ns: int = 0,
        cpu_system_ns: int = 0,
        wall_ns: int = 0,
        max_rss: int = 0,
        memory: int = 0,
        output: int = 0,
        fuel: int = 0,
        minor_faults: int = 0,
        major_faults: int = 0,
    ) -> None:
        self.cpu_user_ns = cpu_user_ns
        self.cpu_system_ns = cpu_system_ns
        self.wall_ns = wall_ns
        self.max_rss = max_rss
        self.memory = memory
        self.output = output
        self.fuel = fuel
        self.minor_faults = minor_faults
        self.major_faults = major_faults


class Outcome(Shape):
    """How a run ended.

    reason: one of REASONS.  status: what the command exits with.  exit_code: the guest's own, or
    None when it did not exit by itself.  signal: the Linux signal that ended it, or None.  trap:
    the trap's name ("unreachable"), or None.  message: for a person, made printable, may have
    lines.  walls: names of WALLS that stood.  syscall: the forbidden system call, or None.
    timings: ns, by the name of the stretch.  digest: SHA-256 of the module that ran, in hex, or
    None when it was not read.
    """

    __slots__ = (
        "reason",
        "status",
        "exit_code",
        "signal",
        "trap",
        "message",
        "usage",
        "denials",
        "walls",
        "syscall",
        "timings",
        "digest",
    )

    def __init__(
        self,
        *,
        reason: str,
        status: int,
        exit_code: "int | None" = None,
        signal: "int | None" = None,
        trap: "str | None" = None,
        message: str = "",
        usage: "Usage | None" = None,
        denials: "Sequence[Denial]" = (),
        walls: "Sequence[str]" = (),
        syscall: "str | None" = None,
        timings: "dict[str, int] | None" = None,
        digest: "str | None" = None,
    ) -> None:
        self.reason = reason
        self.status = status
        self.exit_code = exit_code
        self.signal = signal
        self.trap = trap
        self.message = message
        self.usage = Usage() if usage is None else usage
        self.denials = list(denials)
        self.walls = list(walls)
        self.syscall = syscall
        self.timings = {} if timings is None else timings
        self.digest = digest


class RunRecord(Shape):
    """What a worker wrote down about itself: untrusted, the kernel's wait status comes first.

    phase: how far it came, "none setup loading running done".  outcome: "none" or how it says it
    ended.  code: exit status, trap code, system call or signal, by outcome.  errno and step: of a
    failed set-up.  setup_ns to done_ns: CLOCK_MONOTONIC, 0 when that point was not reached.
    message and step have yet to be made printable.
    """

    __slots__ = (
        "phase",
        "outcome",
        "code",
        "errno",
        "walls",
        "landlock_abi",
        "output",
        "fuel",
        "memory",
        "setup_ns",
        "loading_ns",
        "running_ns",
        "done_ns",
        "step",
        "message",
        "denials",
    )

    def __init__(
        self,
        *,
        phase: str = "none",
        outcome: str = "none",
        code: int = 0,
        errno: int = 0,
        walls: "Sequence[str]" = (),
        landlock_abi: int = 0,
        output: int = 0,
        fuel: int = 0,
        memory: int = 0,
        setup_ns: int = 0,
        loading_ns: int = 0,
        running_ns: int = 0,
        done_ns: int = 0,
        step: str = "",
        message: str = "",
        denials: "Sequence[Denial]" = (),
    ) -> None:
        self.phase = phase
        self.outcome = outcome
        self.code = code
        self.errno = errno
        self.walls = list(walls)
        self.landlock_abi = landlock_abi
        self.output = output
        self.fuel = fuel
        self.memory = memory
        self.setup_ns = setup_ns
        self.loading_ns = loading_ns
        self.running_ns = running_ns
        self.done_ns = done_ns
        self.step = step
        self.message = message
        self.denials = list(denials)


def wall_names(bits: int) -> "list[str]":
    """The names for a set of `enum ws_wall` bits, in their order; unknown bits are left out."""
    return [name for bit, name in enumerate(WALLS) if bits >> bit & 1]


def wall_bits(names: "Iterable[str]") -> int:
    """The bits of those names that are of WALLS."""
    return sum(1 << WALLS.index(name) for name in set(names) if name in WALLS)


def printable(text: "str | bytes", keep: str = "") -> str:
    """`text` with everything a terminal could take for a command written as an escape.

    Control characters, text-direction marks and bytes that are not UTF-8 come out as \\x, \\u or
    \\U escapes.  Characters of `keep` (say, a newline) stay.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escape(ord(c)) for c in text)


def _escape(code: int) -> str:
    if code <= 0xFF:
        return f"\\x{code:02x}"
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, smuggled by surrogateescape
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
