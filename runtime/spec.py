"""Encoder of the launch spec: the one message that tells a worker everything.

The layout is that of core/spec/spec.h, which decodes it with bounds.  Integers are written with
int.to_bytes: importing `struct` would cost more than all the encoding.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Protocol

    class Rule(Protocol):
        """What a broker's rule is made of: supervisor/network.py's NetRule.

        actions and protocol: bits of enum ws_action and ws_protocol.  address: 16 bytes, an IPv4
        one in the first four.  low, high: ports, both included.
        """

        allow: bool
        actions: int
        protocol: int
        family: int
        prefix: int
        address: bytes
        low: int
        high: int


MAGIC = b"WSUPSPC1"
MAX_BYTES = 4 << 20
MAX_ARGS = 65536
MAX_PREOPENS = 128
MAX_GROUPS = 1024
MAX_FDS = 200
MAX_RULES = 8192
MAX_NAMES = 4096
MAX_HOST = 253  # RFC 1035 2.3.4, without the last dot
NO_FD = 0xFFFFFFFF
UNLIMITED = 0xFFFFFFFFFFFFFFFF

TAG_KIND = 1
TAG_ENGINE = 2
TAG_ARG = 3
TAG_ENV = 4
TAG_PREOPEN = 5
TAG_STDIO = 7
TAG_ARTIFACT = 8
TAG_FILTER = 9
TAG_LIMITS = 10
TAG_INVOKE = 11
TAG_IDENTITY = 12
TAG_ALLOW_MISSING = 13
TAG_UMASK = 14
TAG_CLOCK_RES = 15
TAG_MODULE = 16
TAG_OUTPUT = 17
TAG_THREADS = 18
TAG_FORM = 19
TAG_BROKER = 20
TAG_RESOLVER = 21
TAG_NAME = 22
TAG_RULE = 23

KIND_RUN = 0
KIND_COMPILE = 1
KIND_BROKER = 2
ENGINES = {"cranelift": 0, "pulley": 1}
FORM_MODULE = 0
FORM_COMPONENT = 1
SOURCE_DIR = 0
SOURCE_TMPFS = 1
SOURCE_LISTENER = 2
PREOPEN_READ_ONLY = 1

# Descriptors 0 and 1 of the message are the spec's own memfd and the run record's.
FIRST_FD_INDEX = 2


class SpecError(ValueError):
    """The request does not fit into a launch spec; the text says what is wrong with it."""


class SpecWriter:
    """Collects the fields of one spec and the descriptors that travel beside it.

    kind: KIND_RUN, KIND_COMPILE or KIND_BROKER; engine: a key of ENGINES.  Descriptors are
    borrowed: they stay the caller's and have to be open until the spec is sent.  Every method that
    takes text raises SpecError when it holds a NUL.
    """

    __slots__ = ("_arguments", "_fields", "_names", "_preopens", "_rules", "_size", "fds")

    def __init__(self, kind: int, engine: str) -> None:
        self._fields: list[bytes] = []
        self._size = 16
        self._arguments = 0
        self._preopens = 0
        self._names = 0
        self._rules = 0
        self.fds: list[int] = []
        self._numbers(TAG_KIND, kind)
        self._numbers(TAG_ENGINE, ENGINES[engine])

    def argument(self, value: "bytes | str") -> None:
        """Appends one word of the guest's argv; argv[0] comes first."""
        self._count_argument()
        self._field(TAG_ARG, _text(value, "an argument"))

    def variable(self, name: str, value: str) -> None:
        """Appends NAME=VALUE to the guest's environment."""
        self._count_argument()
        self._field(TAG_ENV, _text(f"{name}={value}", f"the variable {name!r}"))

    def directory(self, fd: int, guest: str, *, read_only: bool) -> int:
        """Grants the directory open at `fd`; returns its ordinal among the preopens."""
        return self._preopen(SOURCE_DIR, fd, PREOPEN_READ_ONLY if read_only else 0, 0, guest)

    def tmpfs(self, guest: str, size: int) -> int:
        """Grants scratch space of `size` bytes; returns its ordinal among the preopens."""
        return self._preopen(SOURCE_TMPFS, None, 0, size, guest)

    def listener(self, fd: int, name: str) -> int:
        """Grants the listening socket `fd`; returns its ordinal among the preopens."""
        return self._preopen(SOURCE_LISTENER, fd, 0, 0, name)

    def stdio(self, fds: "Sequence[int | None]") -> None:
        """Hands over stdin, stdout and stderr; None where it is closed."""
        self._numbers(TAG_STDIO, *[self._index(fd) for fd in fds])

    def artifact(self, fd: int) -> None:
        """Names the compiled module to run."""
        self._numbers(TAG_ARTIFACT, self._index(fd))

    def filter(self, stage: int, program: bytes) -> None:
        """Sets the seccomp program (struct sock_filter[]) of stage 1 or 2."""
        self._field(TAG_FILTER, _u32(stage) + program)

    def limits(
        self,
        *,
        memory: "int | None",
        cpu_ns: "int | None",
        fds: int,
        file_size: "int | None",
        output: "int | None",
        fuel: "int | None",
        table_elements: int,
        data_overhead: int,
    ) -> None:
        """Sets the quotas, in the order and units of struct ws_limits; None for no limit."""
        values = (memory, cpu_ns, fds, file_size, output, fuel, table_elements, data_overhead)
        every = [UNLIMITED if value is None else value for value in values]
        self._field(TAG_LIMITS, b"".join([_u64(value) for value in every]))

    def invoke(self, name: str) -> None:
        """Names the export to call in place of `_start`."""
        self._field(TAG_INVOKE, _text(name, "the name to invoke"))

    def identity(self, uid: int, gid: int, groups: "Sequence[int]") -> None:
        """Sets who the worker becomes."""
        if len(groups) > MAX_GROUPS:
            raise SpecError(f"more than {MAX_GROUPS} supplementary groups")
        self._numbers(TAG_IDENTITY, uid, gid, *groups)

    def allow_missing(self, walls: int) -> None:
        """Sets the walls (bits of enum ws_wall) that this run can do without."""
        self._numbers(TAG_ALLOW_MISSING, walls)

    def umask(self, mask: int) -> None:
        """Sets the file mode creation mask."""
        self._numbers(TAG_UMASK, mask)

    def clock_resolution(self, ns: int) -> None:
        """Sets what the guest's clocks are rounded down to."""
        self._field(TAG_CLOCK_RES, _u64(ns))

    def module(self, fd: int) -> None:
        """Names the module to compile."""
        self._numbers(TAG_MODULE, self._index(fd))

    def output(self, artifact: int, description: int) -> None:
        """Names where a compile worker writes the artifact and the description."""
        self._numbers(TAG_OUTPUT, self._index(artifact), self._index(description))

    def form(self, form: int) -> None:
        """Sets what the artifact is: FORM_MODULE or FORM_COMPONENT."""
        self._numbers(TAG_FORM, form)

    def threads(self, count: int) -> None:
        """Sets how many threads a worker may have; counts are clamped to 1 to 256.

        For a compile those that compile, for a component's run all of the process.
        """
        self._numbers(TAG_THREADS, min(max(count, 1), 256))

    def broker(self, fd: int) -> None:
        """Names the socket between a component's worker and its broker: each one's end of it."""
        self._numbers(TAG_BROKER, self._index(fd))

    def resolver(self, fd: int) -> None:
        """Names the socket on which a worker asks for the addresses of names."""
        self._numbers(TAG_RESOLVER, self._index(fd))

    def name(self, host: str, addresses: "Iterable[tuple[int, bytes]]") -> None:
        """Adds a host name that the worker knows: (4 or 6, 16 bytes) each, as a rule's address."""
        self._names += 1
        raw = host.encode("ascii", "strict") if host.isascii() else b""
        if not 1 <= len(raw) <= MAX_HOST or self._names > MAX_NAMES:
            raise SpecError(f"{host[:MAX_HOST]!r} is no host name, or one too many")
        listed = [_u32(family) + address for family, address in addresses]
        payload = [_u32(len(listed)), *listed, _text(raw, "a host name")]
        self._field(TAG_NAME, b"".join(payload))

    def rule(self, rule: "Rule") -> None:
        """Appends a rule of a broker; the first that matches counts."""
        self._rules += 1
        if self._rules > MAX_RULES:
            raise SpecError(f"more than {MAX_RULES} rules for the network")
        head = bytes([rule.allow, rule.actions, rule.protocol, rule.family, rule.prefix, 0, 0, 0])
        ports = rule.low.to_bytes(2, "little") + rule.high.to_bytes(2, "little")
        self._field(TAG_RULE, head + rule.address + ports + _u32(0))

    def encode(self) -> bytes:
        """The whole message.  Raises SpecError when it is larger than a worker accepts."""
        if self._size > MAX_BYTES:
            raise SpecError(
                f"the arguments and variables take {self._size} bytes, at most {MAX_BYTES} fit"
            )
        return b"".join([MAGIC, _u32(self._size), _u32(len(self._fields)), *self._fields])

    def _index(self, fd: "int | None") -> int:
        # One index a use, also when the same descriptor is given twice: each use owns its copy.
        if fd is None:
            return NO_FD
        self.fds.append(fd)
        if FIRST_FD_INDEX + len(self.fds) > MAX_FDS:
            raise SpecError(f"more than {MAX_FDS} descriptors to hand over")
        return FIRST_FD_INDEX - 1 + len(self.fds)

    def _preopen(self, source: int, fd: "int | None", flags: int, size: int, guest: str) -> int:
        ordinal = self._preopens
        if ordinal == MAX_PREOPENS:
            raise SpecError(f"more than {MAX_PREOPENS} directories and sockets granted")
        self._preopens += 1
        head = [_u32(source), _u32(self._index(fd)), _u32(flags), _u32(0), _u64(size)]
        self._field(TAG_PREOPEN, b"".join(head) + _text(guest, "the name of a grant"))
        return ordinal

    def _count_argument(self) -> None:
        self._arguments += 1
        if self._arguments > MAX_ARGS:
            raise SpecError(f"more than {MAX_ARGS} arguments and variables")

    def _numbers(self, tag: int, *values: int) -> None:
        self._field(tag, b"".join([value.to_bytes(4, "little") for value in values]))

    def _field(self, tag: int, payload: bytes) -> None:
        # Tag and length at once: a run has a dozen fields.
        field = (tag | len(payload) << 32).to_bytes(8, "little") + payload
        self._size += len(field)
        self._fields.append(field)


def decode_fields(message: bytes) -> "Iterable[tuple[int, bytes]]":
    """The (tag, payload) pairs of an encoded spec, in order: for tests and for looking at one.

    Raises SpecError when the frame is broken.
    """
    if message[:8] != MAGIC or int.from_bytes(message[8:12], "little") != len(message):
        raise SpecError("not a launch spec")
    at = 16
    for _ in range(int.from_bytes(message[12:16], "little")):
        tag = int.from_bytes(message[at : at + 4], "little")
        length = int.from_bytes(message[at + 4 : at + 8], "little")
        if at + 8 + length > len(message):
            raise SpecError("a field runs over the end")
        yield tag, message[at + 8 : at + 8 + length]
        at += 8 + length
    if at != len(message):
        raise SpecError("bytes after the last field")


def _text(value: "bytes | str", what: str) -> bytes:
    raw = value if isinstance(value, bytes) else os.fsencode(value)
    if b"\0" in raw:
        raise SpecError(f"{what} holds a NUL byte")
    return raw


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def _u64(value: int) -> bytes:
    # A size that no machine has is as good as no limit.
    return min(value, UNLIMITED).to_bytes(8, "little")
