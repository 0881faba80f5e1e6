"""The API's shapes, version 1: what requests and answers look like on the wire, as JSON.

The daemon validates requests with these types, the client decodes answers with them, and the
OpenAPI document is generated from them: there is no second description.  Unknown fields are
refused, which bounds the depth of a request by the depth of its type.  Times of day are RFC 3339 in
UTC; stretches of time are nanoseconds and sizes bytes, as integers, unless a person writes them
(`quotas`), who may use the units of the command line.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

VERSION = 1

# --- bounds, in force for every request ---

MAX_HEADER_BYTES = 32 << 10  # request line and all headers together
MAX_HEADERS = 100
MAX_TARGET_BYTES = 8 << 10
MAX_JSON_BYTES = 16 << 20  # modules as bytes and stdin travel in it, as base64
MAX_MODULE_BYTES = 256 << 20  # POST /v1/modules
MAX_STDIN_BYTES = 16 << 20  # one POST .../stdin
MAX_WAIT_BYTES = 16 << 20  # stdout and stderr in the answer to a request with `wait`
MAX_FDS = 128  # descriptors with one request
MAX_ARGS = 4096
MAX_TEXT_BYTES = 1 << 20  # all arguments and variables together; the kernel's own bound is 2 MiB
MAX_DIRS = 64
MAX_NET = 256
MAX_LABELS = 32
MAX_LIMIT = 1000  # rows of one answer

NetText = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=512,
        description="tcp:HOST:PORT, udp:HOST:PORT, listen:tcp:ADDRESS:PORT or host; as run's --net",
    ),
]
Label = Annotated[str, Meta(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
LabelName = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$", description="SHA-256 in hex")]
FdIndex = Annotated[
    int,
    Meta(ge=0, lt=MAX_FDS, description="place among the descriptors sent with the request"),
]
# As on the command line and in a policy: "64MiB", "1.5s", "none", or a number.
Size = Annotated[str, Meta(max_length=64)] | Annotated[int, Meta(ge=0)]
Duration = (
    Annotated[str, Meta(max_length=64)] | Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0)]
)
Count = Annotated[str, Meta(max_length=64)] | Annotated[int, Meta(ge=0)]
State = Literal["queued", "starting", "running", "ended"]
StreamName = Literal["stdout", "stderr"]
Signal = Literal["HUP", "INT", "QUIT", "TERM", "KILL", "STOP", "TSTP", "TTIN", "TTOU", "CONT"]


class _Request(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a client sends."""


class _Answer(Struct, kw_only=True):
    """What the daemon sends; clients ignore fields that they do not know."""


# --- POST /v1/runs ---


class Bytes(_Request):
    """Bytes that need not be UTF-8."""

    base64: bytes


class Descriptor(_Request):
    """A descriptor that came with the request (SCM_RIGHTS)."""

    fd: FdIndex


class Stdin(_Request):
    """Where stdin comes from, in exactly one way.

    base64: bytes.  fd: a descriptor that came with the request.  open: what is written later, with
    POST /v1/runs/{id}/stdin, until it is closed there.
    """

    base64: bytes | None = None
    fd: FdIndex | None = None
    open: bool = False


class Module(_Request):
    """The module, named in exactly one way.

    path: absolute, opened with the caller's rights.  digest: of a module that this caller has
    added or run before.  base64: its bytes.  fd: a descriptor that came with the request.  name:
    what it is called in the record and, without argv0, in argv[0]; by default the path's last part.
    """

    path: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    digest: Digest | None = None
    base64: bytes | None = None
    fd: FdIndex | None = None
    name: Annotated[str, Meta(max_length=4096)] | None = None


class Dir(_Request):
    """A directory for the guest, under the name `guest`; by `path` or `fd`, exactly one.

    path: absolute, opened with the caller's rights.  host: what to call a descriptor's directory
    in the record; by default what the kernel calls it.
    """

    guest: Annotated[str, Meta(min_length=1, max_length=4096)]
    path: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    fd: FdIndex | None = None
    read_only: bool = False
    host: Annotated[str, Meta(max_length=4096)] | None = None


class Tmpfs(_Request):
    """Scratch space under the name `guest` that dies with the run."""

    guest: Annotated[str, Meta(min_length=1, max_length=4096)]
    size: Size = "64MiB"


class Listen(_Request):
    """A listening TCP socket that came with the request; the guest may only accept."""

    fd: FdIndex
    name: Annotated[str, Meta(min_length=1, max_length=256)]


class Quotas(_Request):
    """Limits of the run; those left out are the policy's.  "none" takes one away, if allowed.

    output: of what the daemon keeps, 64MiB at the most (16MiB with `wait`), and no more than
    file_size where the run may write files.
    """

    memory: Size | None = None
    cpu_time: Duration | None = None
    timeout: Duration | None = None
    fds: Count | None = None
    file_size: Size | None = None
    output: Size | None = None
    fuel: Count | None = None
    cpus: Annotated[str, Meta(max_length=64)] | Annotated[float, Meta(gt=0)] | None = None


class RunRequest(_Request):
    """A run.  Only `module` is needed.

    wait: answer when it has ended, with its outcome and output; it is killed when the connection
    closes first.  attach: answer at once, but kill it when this connection closes.  Neither: it is
    detached.  net: what a component reaches of the daemon's network, as the caller.  stdin:
    nothing, text, bytes, a descriptor, or open.  stdout, stderr: kept by the
    daemon, or a descriptor to write straight into.
    """

    module: Module
    args: Annotated[list[str | Bytes], Meta(max_length=MAX_ARGS)] = []
    argv0: Annotated[str, Meta(max_length=4096)] | None = None
    env: Annotated[dict[str, str | Bytes], Meta(max_length=MAX_ARGS)] = {}
    policy: Annotated[str, Meta(min_length=1, max_length=256)] = "default"
    dirs: Annotated[list[Dir], Meta(max_length=MAX_DIRS)] = []
    tmpfs: Annotated[list[Tmpfs], Meta(max_length=MAX_DIRS)] = []
    listens: Annotated[list[Listen], Meta(max_length=MAX_DIRS)] = []
    net: Annotated[list[NetText], Meta(max_length=MAX_NET)] = []
    quotas: Quotas = field(default_factory=Quotas)
    engine: Literal["cranelift", "pulley"] | None = None
    invoke: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    clock_resolution: Duration | None = None
    allow_missing: Annotated[
        list[Literal["namespaces", "network", "landlock", "seccomp", "cache"]], Meta(max_length=8)
    ] = []
    stdin: str | Stdin | None = None
    stdout: Descriptor | None = None
    stderr: Descriptor | None = None
    umask: Annotated[int, Meta(ge=0, le=0o777)] = 0o077
    labels: Annotated[dict[LabelName, Label], Meta(max_length=MAX_LABELS)] = {}
    wait: bool = False
    attach: bool = False


class SignalRequest(_Request):
    """POST /v1/runs/{id}/signal.

    HUP, INT, QUIT, TERM and KILL end the run (status 128 + n); STOP, TSTP, TTIN and TTOU halt it,
    its clock too, until CONT.
    """

    signal: Signal = "TERM"


# --- answers ---


class ErrorBody(_Answer):
    """What went wrong.  code: for programs.  hint: what to do about it, or null."""

    code: str
    message: str
    hint: str | None = None


class Error(_Answer):
    """Every answer with a status of 400 and more."""

    error: ErrorBody


class Denial(_Answer):
    """Something the guest asked for and did not get; kinds as in `run --report`."""

    kind: str
    count: int
    errno: int
    path: str


class Usage(_Answer):
    """What a run used; times in ns, sizes in bytes."""

    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    wall_ns: int = 0
    max_rss: int = 0
    memory: int = 0
    output: int = 0
    fuel: int = 0
    minor_faults: int = 0
    major_faults: int = 0
    cgroup_memory_peak: int | None = None


class Outcome(_Answer):
    """How a run ended; fields and reasons as in `run --report`.

    interrupted: it did not end by itself or by a quota, but with the daemon that ran it.  step,
    errno, wall: of a set-up that failed.
    """

    reason: str
    status: int
    exit_code: int | None = None
    signal: int | None = None
    trap: str | None = None
    syscall: str | None = None
    message: str = ""
    hint: str | None = None
    step: str | None = None
    errno: int | None = None
    wall: str | None = None
    interrupted: bool = False
    usage: Usage = field(default_factory=Usage)
    denials: list[Denial] = []
    walls: list[str] = []
    timings: dict[str, int] = {}


class GrantedDir(_Answer):
    host: str
    guest: str
    read_only: bool


class GrantedTmpfs(_Answer):
    guest: str
    size: int


class Grants(_Answer):
    """What a run was granted; variables by name only: their values are often secrets."""

    dirs: list[GrantedDir] = []
    tmpfs: list[GrantedTmpfs] = []
    env: list[str] = []
    listens: list[str] = []
    net: list[str] = []
    clock_resolution: int = 0


class QuotaValues(_Answer):
    """The quotas in force; null: no limit.  Times in ns, sizes in bytes."""

    memory: int | None = None
    cpu_time: int | None = None
    timeout: int | None = None
    fds: int | None = 64
    file_size: int | None = None
    output: int | None = None
    fuel: int | None = None
    cpus: float | None = None


class Run(_Answer, kw_only=True):
    """A run's record.

    id: 16 hex digits; a prefix that is unique will do in requests.  module: path or name.  digest:
    null until the module has been read.  stdout, stderr (or stdout_base64, stderr_base64, where
    the bytes are not UTF-8): only in the answer to a request with `wait`, and only what the daemon
    kept.
    """

    id: str
    state: State
    uid: int
    gid: int
    pid: int | None = None
    policy: str
    module: str
    digest: str | None = None
    args: list[str] = []
    engine: str = "cranelift"
    invoke: str | None = None
    labels: dict[str, str] = {}
    quotas: QuotaValues = field(default_factory=QuotaValues)
    grants: Grants = field(default_factory=Grants)
    allow_missing: list[str] = []
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    stopped: bool = False
    outcome: Outcome | None = None
    stdout: str | UnsetType = UNSET
    stdout_base64: bytes | UnsetType = UNSET
    stderr: str | UnsetType = UNSET
    stderr_base64: bytes | UnsetType = UNSET


class RunList(_Answer):
    """The newest first.  next: pass it as `before` for older ones; null at the end."""

    runs: list[Run]
    next: str | None = None


class Stats(_Answer):
    """What a running run uses now (GET /v1/runs/{id}/stats)."""

    id: str
    state: State
    cpu_ns: int = 0
    wall_ns: int = 0
    rss: int = 0
    output: int = 0
    quotas: QuotaValues = field(default_factory=QuotaValues)


class StatsList(_Answer):
    stats: list[Stats]


class LogChunk(_Answer):
    """A line of GET /v1/runs/{id}/logs: bytes of one stream, as text or base64."""

    stream: StreamName
    text: str | UnsetType = UNSET
    base64: bytes | UnsetType = UNSET


class Event(_Answer):
    """A line of GET /v1/events.

    type: queued, starting, running, ended, signal, module, reloaded, stopping, or lost (count
    events were dropped because this client reads too slowly).
    """

    time: datetime
    type: str
    run: str | None = None
    uid: int | None = None
    policy: str | None = None
    module: str | None = None
    reason: str | None = None
    status: int | None = None
    signal: str | None = None
    count: int | None = None
    labels: dict[str, str] = {}


class PolicyInfo(_Answer):
    """A policy that the caller may use.  settings: as in its file.  error: why it cannot."""

    name: str
    description: str = ""
    path: str = ""
    settings: dict[str, Any] = {}
    error: str | None = None


class PolicyList(_Answer):
    policies: list[PolicyInfo]


class ModuleInfo(_Answer, kw_only=True):
    """A module that the caller may run by digest.

    stored: its bytes are kept here, so that it can be compiled again.  compiled: it is compiled
    for `engine` already.
    """

    digest: str
    name: str | None = None
    size: int = 0
    added: datetime
    stored: bool = False
    compiled: list[str] = []


class ModuleList(_Answer):
    modules: list[ModuleInfo]


class Health(_Answer):
    """GET /v1/healthz; status "ok", or "stopping" and "degraded" with 503."""

    status: Literal["ok", "degraded", "stopping"]
    message: str = ""


class CallerInfo(_Answer):
    """Who you are to the daemon, and what its configuration gives you."""

    uid: int
    gid: int
    groups: list[int]
    policies: list[str]
    ceilings: QuotaValues
    runs: int
    queued: int
    sees: Literal["own", "all"]
    kills: Literal["own", "all"]
    net: Literal["any", "policies", "none"] = "any"


class Info(_Answer):
    """GET /v1/info."""

    version: str
    api: int
    engine: str
    pid: int
    uid: int
    started: datetime
    running: int
    queued: int
    walls: list[str]
    cgroup: str | None
    caller: CallerInfo
