"""The one table: which capability lets a worker make which system calls, and why.

A profile is a kind of worker and what was granted to it, as one string: "run-cranelift",
"run-cranelift-reading", "run-cranelift-component-directories-network",
"run-pulley-directories-listeners", "compile-cranelift", "broker-none".  Each worker passes two
stages: in the first it loads (or compiles), in the second it runs the guest and can no longer make
memory executable.  Filters stack, so the first admits all of the second.
`runtime/filters.py` turns the rules into BPF; whatever no rule admits ends the worker before it is
carried out.

Numbers are those of the x86-64 Linux headers.
"""

PROT_WRITE = 2
PROT_EXEC = 4
# MAP_SHARED (and, with it, MAP_SHARED_VALIDATE) and MAP_GROWSDOWN: getrlimit(2) counts neither as
# data; a shared mapping would also write to a file without the checks of write(2).
UNCOUNTED = 0x1 | 0x100
F_DUPFD_CLOEXEC = 1030
F_GETFL = 3
F_SETFL = 4
PR_SET_NAME = 15
# What the C library uses to change the credentials of every thread (nptl/internaltypes.h).
SIGSETXID = 33
O_RDONLY = 0
O_ACCMODE = 3
O_CREAT = 0o100
O_TRUNC = 0o1000
O_DIRECTORY = 0o200000
TCGETS = 0x5401
# VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID and CHILD_CLEARTID: what
# pthread_create asks for, exactly; DETACHED does nothing since Linux 2.6.2.
THREAD = 0x3D0F00
THREAD_MASK = 0xFFFFFFFFFFFFFFFF & ~0x400000
SECCOMP_SET_MODE_FILTER = 1
MSG_FASTOPEN = 0x20000000
AT_EMPTY_PATH = 0x1000
EACCES = 13
ENOTTY = 25
ENOSYS = 38
# The arguments are registers of 64 bits of which the kernel looks at 32 for an int.
INT = 0xFFFFFFFF
POINTER = 0xFFFFFFFFFFFFFFFF
# Of both: the one socket between a worker and its broker (runtime/core/network/protocol.h).
BROKER_FD = 3
AF_INET = 2
AF_INET6 = 10
SOCK_STREAM = 1
SOCK_DGRAM = 2
SOCK_NONBLOCK_CLOEXEC = 0o2004000
SOL_SOCKET = 1
IPPROTO_IP = 0
IPPROTO_TCP = 6
IPPROTO_UDP = 17
IPPROTO_IPV6 = 41
IPV6_V6ONLY = 26


class Rule:
    """One system call, the reason it is admitted, and the condition on its arguments.

    when: (argument, mask, value) triples that all have to hold: argument & mask == value.
    unless: (argument, value) pairs of which none may hold: the argument's lower 32 bits, which are
    all that the kernel looks at for an int, are the value.  It binds every rule about that call.
    errno: None admits the call; a number answers that error without carrying the call out, and 0
    answers that all is well.
    """

    __slots__ = ("errno", "name", "reason", "unless", "when")

    def __init__(
        self,
        name: str,
        reason: str,
        *when: "tuple[int, int, int]",
        errno: "int | None" = None,
        unless: "tuple[tuple[int, int], ...]" = (),
    ) -> None:
        self.name = name
        self.reason = reason
        self.when = when
        self.unless = unless
        self.errno = errno


# The engine below every guest while it runs.
ENGINE = (
    Rule("write", "one buffer of output; the engine's last words on stderr"),
    Rule(
        "mmap",
        "tables and malloc grow; never executable, never memory that RLIMIT_DATA does not count",
        (2, PROT_EXEC, 0),
        (3, UNCOUNTED, 0),
    ),
    Rule("mprotect", "memory.grow; never executable", (2, PROT_EXEC, 0)),
    Rule("munmap", "free, and the end of an instance"),
    Rule("mremap", "realloc of large blocks"),
    Rule("madvise", "the allocator gives pages back"),
    Rule("brk", "malloc; running out of stack ends in one"),
    Rule("rt_sigreturn", "a trap comes as a signal, and the handler returns"),
    Rule("sigaltstack", "traps are handled on a stack of their own"),
    Rule("exit_group", "the end"),
    Rule("ppoll", "waiting for clocks and descriptors, and for room in a full pipe"),
    Rule("clock_gettime", "the time, where the vDSO cannot answer"),
    Rule("getrandom", "random bytes"),
    Rule("futex", "locks of the C library and the engine, should they ever be contended"),
    Rule("memfd_create", "the engine would keep a memory's image there, and copies", errno=ENOSYS),
)

# Every module: our own preview 1.
BASE = (
    *ENGINE,
    Rule("readv", "fd_read of stdin and of files"),
    Rule("writev", "fd_write"),
)

# With at least one directory granted, read-only.  wasi/ answers what would change such a one before
# it comes to a system call.
READING = (
    Rule("openat2", "path_open: below a preopen, by RESOLVE_BENEATH"),
    Rule("close", "fd_close"),
    Rule("newfstatat", "fd_filestat_get, path_filestat_get"),
    Rule("preadv", "fd_pread"),
    Rule("lseek", "fd_seek, fd_tell"),
    Rule("getdents64", "fd_readdir"),
    Rule("fadvise64", "fd_advise"),
    Rule("readlinkat", "path_readlink, and symlinks on the way"),
    Rule("fcntl", "fd_fdstat_get reads the flags", (1, INT, F_GETFL)),
    Rule("fcntl", "fd_fdstat_set_flags: append, non-blocking", (1, INT, F_SETFL)),
)

# With at least one directory granted for writing, or scratch space: these too.
WRITING = (
    Rule("pwritev", "fd_pwrite"),
    Rule("fsync", "fd_sync"),
    Rule("fdatasync", "fd_datasync"),
    Rule("ftruncate", "fd_filestat_set_size"),
    Rule("fallocate", "fd_allocate"),
    Rule("utimensat", "fd_filestat_set_times, path_filestat_set_times"),
    Rule("linkat", "path_link"),
    Rule("mkdirat", "path_create_directory"),
    Rule("unlinkat", "path_unlink_file, path_remove_directory"),
    Rule("renameat2", "path_rename"),
    Rule("symlinkat", "path_symlink"),
)

# A component's WASI is the engine's own (wasmtime-wasi), with a runtime of threads below it (tokio,
# mio): its threads and how they wait, whatever is granted.
COMPONENT = (
    *ENGINE,
    Rule("clone", "a thread of the runtime, and no other kind of task", (0, THREAD_MASK, THREAD)),
    Rule("clone3", "its flags lie in memory; the C library falls back to clone", errno=ENOSYS),
    Rule("exit", "a thread that had nothing to do for 10 s ends"),
    Rule("set_robust_list", "a thread starts"),
    Rule("rseq", "a thread starts"),
    Rule("rt_sigprocmask", "a thread starts, with every signal blocked until it stands"),
    Rule("rt_sigaction", "the first thread starts", (0, INT, SIGSETXID)),
    Rule("prctl", "a thread names itself", (0, INT, PR_SET_NAME)),
    Rule("sched_yield", "a thread that spins lets others go first"),
    Rule("restart_syscall", "a wait with an end goes on after a stop (Ctrl-Z)"),
    Rule("epoll_create1", "the runtime waits for events"),
    Rule("epoll_ctl", "the runtime waits for events"),
    Rule("epoll_wait", "the runtime waits for events"),
    Rule("eventfd2", "one thread wakes another"),
    Rule("fcntl", "the runtime holds its epoll twice", (1, INT, F_DUPFD_CLOEXEC)),
    Rule("close", "what the runtime or the guest opened"),
    Rule("fcntl", "whether a socket blocks, or what stands in for one", (1, INT, F_GETFL)),
    Rule("read", "stdin, by a thread of its own"),
    Rule("gettid", "a library asks for a thread's number; nobody needs it", errno=ENOSYS),
    Rule("sched_getaffinity", "how many threads are worth it: the launch says", errno=ENOSYS),
    Rule("clock_getres", "resolution of the clocks"),
    Rule("ioctl", "whether stdin is a terminal: it counts as none", (1, INT, TCGETS), errno=ENOTTY),
    Rule(
        "openat",
        "malloc would read a setting of the kernel's; nothing is opened so",
        (2, O_DIRECTORY, 0),
        errno=EACCES,
    ),
)

# With at least one directory granted, read-only.  The engine answers what would change such a one
# before it comes to a system call; the mount would, too.
COMPONENT_READING = (
    Rule("openat2", "open-at: below a preopen, by RESOLVE_BENEATH"),
    Rule(
        "openat",
        "read-directory opens the directory again",
        (2, O_DIRECTORY | O_ACCMODE | O_CREAT | O_TRUNC, O_DIRECTORY | O_RDONLY),
    ),
    Rule("getdents64", "read-directory"),
    Rule("statx", "stat, stat-at, metadata-hash"),
    Rule("pread64", "read, read-via-stream"),
    Rule("readlinkat", "readlink-at, and symlinks on the way"),
    Rule("fadvise64", "advise"),
)

# With at least one directory granted for writing, or scratch space: these too.
COMPONENT_WRITING = (
    Rule("pwrite64", "write, write-via-stream"),
    Rule("pwritev2", "append-via-stream"),
    Rule("fsync", "sync"),
    Rule("fdatasync", "sync-data"),
    Rule("ftruncate", "set-size"),
    Rule("utimensat", "set-times, set-times-at"),
    Rule("linkat", "link-at"),
    Rule("mkdirat", "create-directory-at"),
    Rule("unlinkat", "unlink-file-at, remove-directory-at"),
    Rule("renameat", "rename-at"),
    Rule("symlinkat", "symlink-at"),
)


def _option(call: str, reason: str, level: int, option: int) -> Rule:
    return Rule(call, reason, (1, INT, level), (2, INT, option))


# What a component's sockets need besides their broker.  `socket`, `connect`, `bind`, `listen` and
# `sendto` with an address are not here: each traps, and its handler asks the broker.
#
# Descriptors come and go by messages on the broker's socket alone, so that no other may ever get
# its number: it cannot be closed, and nothing that is admitted moves a descriptor to a number of
# the caller's choice (dup2, dup3; F_DUPFD takes the lowest that is free).  Where a message goes, or
# whom a socket connects to, is in no call that is admitted: no address in sendto, no message on
# another socket, no fast open, no IP options, no raw sockets.
NETWORK = (
    Rule("sendmsg", "a request to the broker, and to nobody else", (0, INT, BROKER_FD)),
    Rule("recvmsg", "the broker's answer", (0, INT, BROKER_FD)),
    Rule("close", "a socket's end; never the broker's", unless=((0, BROKER_FD),)),
    Rule(
        "sendto",
        "to whom the socket is connected; never a connection",
        (4, POINTER, 0),
        (3, MSG_FASTOPEN, 0),
    ),
    Rule("recvfrom", "what came, and from whom"),
    Rule("read", "a connection's stream"),
    Rule("accept4", "a connection to a socket that the broker let listen"),
    Rule("shutdown", "the end of a connection"),
    Rule("getsockname", "local-address"),
    Rule("getpeername", "remote-address"),
    Rule(
        "setsockopt",
        "every socket is of one family already, and stays so",
        (1, INT, IPPROTO_IPV6),
        (2, INT, IPV6_V6ONLY),
        errno=0,
    ),
    _option("getsockopt", "how a connect ended", SOL_SOCKET, 4),  # SO_ERROR
    _option("getsockopt", "is-listening", SOL_SOCKET, 30),  # SO_ACCEPTCONN
    _option("getsockopt", "the kind of a socket", SOL_SOCKET, 3),  # SO_TYPE
    _option("getsockopt", "the family of a socket", SOL_SOCKET, 39),  # SO_DOMAIN
    _option("getsockopt", "send-buffer-size", SOL_SOCKET, 7),  # SO_SNDBUF
    _option("getsockopt", "receive-buffer-size", SOL_SOCKET, 8),  # SO_RCVBUF
    _option("getsockopt", "keep-alive-enabled", SOL_SOCKET, 9),  # SO_KEEPALIVE
    _option("getsockopt", "keep-alive-idle-time", IPPROTO_TCP, 4),  # TCP_KEEPIDLE
    _option("getsockopt", "keep-alive-interval", IPPROTO_TCP, 5),  # TCP_KEEPINTVL
    _option("getsockopt", "keep-alive-count", IPPROTO_TCP, 6),  # TCP_KEEPCNT
    _option("getsockopt", "hop-limit", IPPROTO_IP, 2),  # IP_TTL
    _option("getsockopt", "hop-limit", IPPROTO_IPV6, 16),  # IPV6_UNICAST_HOPS
    _option("setsockopt", "before a bind", SOL_SOCKET, 2),  # SO_REUSEADDR
    _option("setsockopt", "set-send-buffer-size", SOL_SOCKET, 7),  # SO_SNDBUF
    _option("setsockopt", "set-receive-buffer-size", SOL_SOCKET, 8),  # SO_RCVBUF
    _option("setsockopt", "set-keep-alive-enabled", SOL_SOCKET, 9),  # SO_KEEPALIVE
    _option("setsockopt", "outgoing HTTP", IPPROTO_TCP, 1),  # TCP_NODELAY
    _option("setsockopt", "set-keep-alive-idle-time", IPPROTO_TCP, 4),  # TCP_KEEPIDLE
    _option("setsockopt", "set-keep-alive-interval", IPPROTO_TCP, 5),  # TCP_KEEPINTVL
    _option("setsockopt", "set-keep-alive-count", IPPROTO_TCP, 6),  # TCP_KEEPCNT
    _option("setsockopt", "set-hop-limit", IPPROTO_IP, 2),  # IP_TTL
    _option("setsockopt", "set-hop-limit", IPPROTO_IPV6, 16),  # IPV6_UNICAST_HOPS
)


def _socket(domain: int, kind: int, protocol: int) -> Rule:
    return Rule(
        "socket",
        "the worker's, made here",
        (0, INT, domain),
        (1, INT & ~SOCK_NONBLOCK_CLOEXEC, kind),
        (2, INT, protocol),
    )


# A broker (runtime/core/network/broker.c): it makes no memory, opens nothing, and starts nobody.
BROKER = (
    Rule("recvmsg", "the next request", (0, INT, BROKER_FD)),
    Rule("sendmsg", "its answer", (0, INT, BROKER_FD)),
    *[
        _socket(domain, kind, protocol)
        for domain in (AF_INET, AF_INET6)
        for kind, own in ((SOCK_STREAM, IPPROTO_TCP), (SOCK_DGRAM, IPPROTO_UDP))
        for protocol in (0, own)
    ],
    _option("setsockopt", "a socket of one family", IPPROTO_IPV6, IPV6_V6ONLY),
    _option(
        "setsockopt", "datagrams come from granted addresses", SOL_SOCKET, 26
    ),  # SO_ATTACH_FILTER
    _option(
        "setsockopt", "they come from anywhere, where a rule lets them", SOL_SOCKET, 27
    ),  # SO_DETACH_FILTER
    _option("getsockopt", "what the worker handed over", SOL_SOCKET, 39),  # SO_DOMAIN
    _option("getsockopt", "what the worker handed over", SOL_SOCKET, 3),  # SO_TYPE
    _option("getsockopt", "what the worker handed over", SOL_SOCKET, 38),  # SO_PROTOCOL
    Rule("connect", "to an address that a rule allows"),
    Rule("bind", "to an address that a rule allows"),
    Rule("listen", "at an address that a rule allows"),
    Rule("getsockname", "which address that is"),
    Rule("shutdown", "listening at another one is over"),
    Rule("sendto", "a datagram to an address that a rule allows", (3, MSG_FASTOPEN, 0)),
    Rule("fcntl", "a socket does not block", (1, INT, F_SETFL)),
    Rule("close", "the descriptor of the last request", unless=((0, BROKER_FD),)),
    Rule("clock_gettime", "when the walls stood, where the vDSO cannot answer"),
    Rule("rt_sigreturn", "a signal's handler returns"),
    Rule("exit_group", "the end"),
)

# With at least one listening socket granted.
LISTENERS = (
    Rule("accept4", "sock_accept"),
    Rule("recvmsg", "sock_recv"),
    # Fast open would connect a listener that was shut down, past Landlock's check of connect(2).
    Rule("sendmsg", "sock_send; never a connection", (2, MSG_FASTOPEN, 0)),
    Rule("shutdown", "sock_shutdown"),
    Rule("close", "fd_close of a connection"),
    Rule("fcntl", "fd_fdstat_get of a connection", (1, INT, F_GETFL)),
    Rule("fcntl", "fd_fdstat_set_flags of a connection", (1, INT, F_SETFL)),
)

# Loading an artifact, before the guest's filter.
LOAD = (
    Rule("seccomp", "the second stage is loaded", (0, INT, SECCOMP_SET_MODE_FILTER)),
    Rule("openat", "the artifact, for reading", (2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY)),
    Rule("statx", "the artifact's length"),
    Rule("close", "an artifact that is refused"),
    Rule("readlink", "the error's text wants its name; it has none here", errno=EACCES),
    Rule("fcntl", "the error's text wants its mode", (1, INT, F_GETFL)),
)

# Machine code: what was written becomes executable, and never both at once.  The compiler does the
# same with what it made, though it never runs it.
LOAD_NATIVE = (Rule("mprotect", "code becomes executable; W^X", (2, PROT_WRITE, 0)),)

# Compiling: threads, and no file but the three that were handed over.
COMPILE = (
    Rule("clone", "a compiler thread, and no other kind of task", (0, THREAD_MASK, THREAD)),
    Rule("clone3", "its flags lie in memory; the C library falls back to clone", errno=ENOSYS),
    Rule("exit", "a compiler thread ends"),
    Rule("set_robust_list", "a thread starts"),
    Rule("rseq", "a thread starts"),
    Rule("rt_sigprocmask", "a thread starts"),
    Rule("rt_sigaction", "the first thread starts"),
    Rule("prctl", "a thread names itself", (0, INT, PR_SET_NAME)),
    Rule("gettid", "a thread's own number, for locks"),
    Rule("sched_getaffinity", "how many threads are worth it"),
    Rule("sched_yield", "threads wait for work"),
    Rule("newfstatat", "the module's length", (3, AT_EMPTY_PATH, AT_EMPTY_PATH)),
    Rule("pread64", "the module"),
    Rule("fcntl", "the description is written as a stream", (1, INT, F_GETFL)),
    Rule("close", "a stream's end"),
    Rule("openat", "the engine may look for files; there are none", errno=EACCES),
)

# The sets by which profiles are made up, with what each is for; policies/SYSCALLS.md shows them.
SETS = {
    "every module": BASE,
    "a module with a directory to read": READING,
    "a module with a directory to write, besides": WRITING,
    "a module with a listening socket": LISTENERS,
    "every component": COMPONENT,
    "a component with a directory to read": COMPONENT_READING,
    "a component with a directory to write, besides": COMPONENT_WRITING,
    "a component with a network": NETWORK,
    "the broker of a network": BROKER,
    "loading, before the guest's first instruction": LOAD,
    "loading machine code": LOAD_NATIVE,
    "compiling": COMPILE,
}

# Every profile whose guest is one of its own; "pulley" in place of "cranelift" differs in loading.
PROFILES = (
    "run-cranelift",
    "run-cranelift-reading",
    "run-cranelift-directories",
    "run-cranelift-directories-listeners",
    "run-cranelift-component",
    "run-cranelift-component-reading",
    "run-cranelift-component-directories",
    "run-cranelift-component-network",
    "run-cranelift-component-directories-network",
    "broker-none",
    "compile-cranelift",
)

_GRANTS = {"reading": READING, "directories": READING + WRITING, "listeners": LISTENERS}
_COMPONENT_GRANTS = {
    "network": NETWORK,
    "reading": COMPONENT_READING,
    "directories": COMPONENT_READING + COMPONENT_WRITING,
}


def rules(profile: str, stage: int) -> "tuple[Rule, ...]":
    """The rules of one stage (1 or 2) of a profile.  Raises KeyError for a profile that is none."""
    kind, engine, *grants = profile.split("-")
    if profile == "broker-none":
        return BROKER
    native = LOAD_NATIVE if engine == "cranelift" else ()
    if kind == "compile":
        return BASE + COMPILE + native
    if kind != "run" or engine not in ("cranelift", "pulley"):
        raise KeyError(profile)
    component = grants[:1] == ["component"]
    guest: tuple[Rule, ...] = COMPONENT if component else BASE
    table = _COMPONENT_GRANTS if component else _GRANTS
    for grant in grants[component:]:
        guest += table[grant]
    if stage == 2:
        return guest
    # What loading needs and the guest only gets an error for: the first filter admits it.
    loads = {rule.name for rule in LOAD if rule.errno is None}
    return tuple(rule for rule in guest if rule.errno is None or rule.name not in loads) + (
        LOAD + native
    )


def admitted(profile: str, stage: int = 2) -> "list[str]":
    """The names of the system calls that a stage of a profile carries out, sorted."""
    return sorted({rule.name for rule in rules(profile, stage) if rule.errno is None})


def count_admitted(profile: str, stage: int = 2) -> int:
    """How many system calls a stage of a profile carries out."""
    return len(admitted(profile, stage))
