"""The settings a run has, by the name they go by on the command line and in a policy file.

One table, read by three: the policy loader (which keys there are, and of what type), the builder
of requests (how to read a value) and, beside its own table of flags, the command line.
"""

KIB = 1024
MIB = 1024 * KIB
SECOND = 10**9

# The built-in defaults.  `default.toml` says the same with the reasons; a test compares the two, so
# that a run without --policy need not read a file.
MEMORY = 256 * MIB
CPU_TIME = 10 * SECOND
TIMEOUT = 30 * SECOND
FDS = 64
FILE_SIZE = 64 * MIB
OUTPUT = 16 * MIB
TMPFS_SIZE = 64 * MIB
ENGINE = "cranelift"
CLOCK_RESOLUTION = 0

ENGINES = ("cranelift", "pulley")

# One page of WebAssembly memory: no module with a memory could start with less.
MIN_MEMORY = 64 * KIB
# The guest's own descriptor table is an array; this keeps a slip of the finger from making it huge.
MAX_FDS = 2**20


class Setting:
    """One setting.

    kind: how its value is read: "size" (bytes), "duration" (ns), "count", "cpus", "choice", "text",
    or the list kinds "dir", "env", "tmpfs", "net", "listen", "walls".  unlimited: whether
    `none` is one.
    """

    __slots__ = ("key", "kind", "unlimited")

    def __init__(self, key: str, kind: str, unlimited: bool = False) -> None:
        self.key = key
        self.kind = kind
        self.unlimited = unlimited

    @property
    def is_list(self) -> bool:
        """Whether it may be given more than once, and flags add to a policy's."""
        return self.kind in ("dir", "env", "tmpfs", "net", "listen", "walls")


SETTINGS = {
    setting.key: setting
    for setting in (
        Setting("dir", "dir"),
        Setting("tmpfs", "tmpfs"),
        Setting("env", "env"),
        Setting("net", "net"),
        Setting("tcplisten", "listen"),
        Setting("allow-missing", "walls"),
        Setting("memory", "size", unlimited=True),
        Setting("cpu-time", "duration", unlimited=True),
        Setting("timeout", "duration", unlimited=True),
        Setting("fds", "count"),
        Setting("file-size", "size", unlimited=True),
        Setting("output", "size", unlimited=True),
        Setting("fuel", "count", unlimited=True),
        Setting("cpus", "cpus", unlimited=True),
        Setting("engine", "choice"),
        Setting("invoke", "text"),
        Setting("argv0", "text"),
        Setting("clock-resolution", "duration", unlimited=True),
    )
}
