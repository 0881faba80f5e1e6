"""The options of `wasisup run`: one table, as plain data.

Two parsers are made from it: the quick one for well-formed command lines (`fast`), and click's,
which explains the others (`app`).  How a value is read is said in `policies.settings`.
"""

from ..model import MAY_MISS

FILES = "Files"
ENVIRONMENT = "Environment"
QUOTAS = "Quotas ('none' takes a limit away)"
NETWORK = "Network"
ENGINE = "Engine"
WALLS = "Walls"
OUTPUT = "Output"
SERVER = "Server"
DAEMON = "Daemon"

GROUPS = (SERVER, FILES, ENVIRONMENT, QUOTAS, NETWORK, ENGINE, WALLS, DAEMON, OUTPUT)


class Option:
    """One option.

    flag: with its dashes.  short: its letter with a dash, or None.  metavar: None for a flag
    without a value.  repeatable: may be given more than once; of the others the last one counts.
    key: the key of `policies.settings.SETTINGS` it sets, or None for those that say something about
    this call and not about the guest.  complete: what a shell completes its value with: "dir",
    "file", "policy", or the values themselves.
    """

    __slots__ = ("complete", "flag", "group", "help", "key", "metavar", "repeatable", "short")

    def __init__(
        self,
        flag: str,
        metavar: "str | None",
        group: str,
        help: str,
        *,
        repeatable: bool = False,
        setting: bool = True,
        complete: "str | tuple[str, ...]" = (),
        short: "str | None" = None,
    ) -> None:
        self.flag = flag
        self.short = short
        self.metavar = metavar
        self.group = group
        self.help = help
        self.repeatable = repeatable
        self.key = flag[2:] if setting else None
        self.complete = complete


OPTIONS = (
    Option(
        "--dir",
        "HOST[::GUEST][::ro|rw]",
        FILES,
        "Grant a directory. The guest finds it as GUEST, or as HOST as typed here; it may write"
        " unless ::ro is at the end.",
        repeatable=True,
        complete="dir",
    ),
    Option(
        "--tmpfs",
        "GUEST[:SIZE]",
        FILES,
        "Empty scratch space in memory that is gone after the run. [size: 64MiB]",
        repeatable=True,
    ),
    Option(
        "--env",
        "NAME[=VALUE]",
        ENVIRONMENT,
        "Set a variable; NAME alone passes yours on, if you have it. Nothing else is inherited.",
        repeatable=True,
    ),
    Option(
        "--argv0",
        "NAME",
        ENVIRONMENT,
        "What the guest is told it is called. [default: MODULE's file name]",
    ),
    Option(
        "--clock-resolution",
        "TIME",
        ENVIRONMENT,
        "The guest's clocks are no finer than this. [default: none]",
    ),
    Option(
        "--policy",
        "NAME|FILE",
        ENVIRONMENT,
        "Start from a named policy (see 'wasisup policy list') or a TOML file; the other options"
        " override its values and add to its lists. [default: default]",
        setting=False,
        complete="policy",
    ),
    Option("--memory", "SIZE", QUOTAS, "Linear memory. [default: 256MiB]"),
    Option("--cpu-time", "TIME", QUOTAS, "Time on a processor. [default: 10s]"),
    Option("--timeout", "TIME", QUOTAS, "Time on the clock, asleep or not. [default: 30s]"),
    Option("--fds", "N", QUOTAS, "Descriptors open at once. [default: 64]"),
    Option("--file-size", "SIZE", QUOTAS, "Size of any one file written. [default: 64MiB]"),
    Option("--output", "SIZE", QUOTAS, "Bytes to stdout and stderr together. [default: 16MiB]"),
    Option(
        "--cpus",
        "N",
        QUOTAS,
        "Processors it may keep busy, like 0.5; needs cgroup v2. [default: none]",
    ),
    Option("--fuel", "N", QUOTAS, "Instructions, roughly; counting costs time. [default: none]"),
    Option(
        "--net",
        "tcp:HOST:PORT",
        NETWORK,
        "Let a component connect to HOST: a name, an address or a CIDR; PORT may be 8000-8010 or *."
        " Also udp:HOST:PORT, listen:tcp:ADDRESS:PORT, and host for everything. Private addresses"
        " have to be named as such.",
        repeatable=True,
    ),
    Option(
        "--tcplisten",
        "HOST:PORT",
        NETWORK,
        "Listen there and hand the socket to the guest, a module, which may only accept. An IPv6"
        " address goes in brackets.",
        repeatable=True,
    ),
    Option(
        "--engine",
        "NAME",
        ENGINE,
        "cranelift compiles to machine code; pulley interprets, several times slower, with no"
        " executable memory. [default: cranelift]",
        complete=("cranelift", "pulley"),
    ),
    Option("--invoke", "NAME", ENGINE, "Call this export and not the module's start function."),
    Option(
        "--allow-missing",
        "WALL[,WALL]",
        WALLS,
        "Run even if this machine cannot put up that wall (see 'wasisup doctor'): "
        + ", ".join(MAY_MISS[:-1])
        + "; or, with 'cache', even if the guest could write to the compile cache.",
        repeatable=True,
        complete=MAY_MISS,
    ),
    Option(
        "--report",
        "FILE",
        OUTPUT,
        "Write how it ended as JSON: reason, exit code, usage, denials. '-' puts it on stdout, one"
        " line, after the guest's output.",
        setting=False,
        complete="file",
    ),
    Option(
        "--explain",
        None,
        OUTPUT,
        "Print what the guest would be granted, and its limits; run nothing.",
        setting=False,
    ),
    Option("--json", None, OUTPUT, "With --explain: print JSON.", setting=False),
    Option(
        "--socket",
        "PATH",
        DAEMON,
        "Have the daemon at this socket run it. [default: $WASISUP_SOCKET]",
        setting=False,
        complete="file",
    ),
    Option(
        "--no-daemon",
        None,
        DAEMON,
        "Run it in this process, also if $WASISUP_SOCKET is set.",
        setting=False,
    ),
    Option(
        "--detach",
        None,
        DAEMON,
        "Have a daemon run it, print the run's id and leave; see 'logs' and 'wait'.",
        setting=False,
        short="-d",
    ),
    Option(
        "--label",
        "NAME=VALUE",
        DAEMON,
        "Note this in the daemon's record of the run; see 'wasisup ps --label'.",
        repeatable=True,
        setting=False,
    ),
)

BY_FLAG = {option.flag: option for option in OPTIONS}
BY_FLAG.update({option.short: option for option in OPTIONS if option.short is not None})
