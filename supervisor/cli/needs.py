"""What a module's imports say it needs, in words, and the smallest policy that could serve it.

Preview 1 has one import for many purposes (fd_write is a line on stdout and a database), so this
says what a module *could* do; only a run shows what it does.
"""

from ...policies import settings
from ...policies.units import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

PAGE = 65536
WASI_MODULES = ("wasi_snapshot_preview1", "wasi_unstable")

STREAMS = "standard streams and open descriptors"
READS = "files: opens and reads"
WRITES = "files: creates, changes and removes"
ARGUMENTS = "arguments"
ENVIRONMENT = "environment variables"
CLOCKS = "clocks and waiting"
RANDOM = "random bytes"
SOCKETS = "sockets: accepts connections"
PROCESS = "its own process"

# The functions of preview 1, by what they are good for, in the order they are shown.
GROUPS = {
    STREAMS: "fd_read fd_write fd_close fd_fdstat_get fd_fdstat_set_flags fd_fdstat_set_rights"
    " fd_filestat_get fd_renumber fd_seek fd_tell",
    READS: "path_open fd_prestat_get fd_prestat_dir_name fd_readdir fd_pread fd_advise"
    " path_filestat_get path_readlink",
    WRITES: "path_create_directory path_filestat_set_times path_link path_remove_directory"
    " path_rename path_symlink path_unlink_file fd_allocate fd_datasync fd_filestat_set_size"
    " fd_filestat_set_times fd_pwrite fd_sync",
    ARGUMENTS: "args_get args_sizes_get",
    ENVIRONMENT: "environ_get environ_sizes_get",
    CLOCKS: "clock_res_get clock_time_get poll_oneoff",
    RANDOM: "random_get",
    SOCKETS: "sock_accept sock_recv sock_send sock_shutdown",
    PROCESS: "proc_exit proc_raise sched_yield",
}
_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names.split()}


def needs_of(items: "Sequence[Any]") -> "Needs":
    """What a description (runtime/describe.py) says is needed, of a module or a component."""
    if not any(hasattr(item, "is_world") for item in items):
        return Needs(items)
    from .world import WorldNeeds

    return WorldNeeds(items)


class Needs:
    """What a module imports and exports, sorted out.

    groups: WASI functions by group of GROUPS.  unknown: (module, name, kind) of imports that
    nothing here offers.  functions: exported functions' names and types.  memories: "exported" or
    "imported", with the type's text.
    """

    __slots__ = ("functions", "groups", "memories", "unknown")

    form = "module"
    server = False

    def __init__(self, items: "Sequence[Any]", groups: "Iterable[str]" = GROUPS) -> None:
        self.groups: dict[str, list[str]] = {group: [] for group in groups}
        self.unknown: list[tuple[str, str, str]] = []
        self.functions: list[tuple[str, str]] = []
        self.memories: list[tuple[str, str]] = []
        for item in items:
            if hasattr(item, "module"):
                self._take_import(item)
            elif hasattr(item, "interface"):
                self._take_export(item)

    def _take_export(self, item: "Any") -> None:
        if item.kind == "function":
            self.functions.append((item.name, item.type))
        elif item.kind == "memory":
            self.memories.append(("exported", item.type))

    def _take_import(self, item: "Any") -> None:
        if item.kind == "memory":
            self.memories.append(("imported", item.type))
        group = _GROUP_OF.get(item.name)
        if item.kind != "function" or item.module not in WASI_MODULES or group is None:
            self.unknown.append((item.module, item.name, item.kind))
        else:
            self.groups[group].append(item.name)

    @property
    def is_command(self) -> bool:
        """Whether it has a start function: `run` calls it; other modules need --invoke."""
        return any(name == "_start" for name, _ in self.functions)

    @property
    def runs(self) -> bool:
        """Whether `run` can do anything with it."""
        return not self.unknown

    @property
    def notes(self) -> "list[str]":
        """What its imports do not say about the least that could serve it."""
        notes = []
        if self.opens_files:
            notes.append("which directory it needs its imports do not say; ::ro if it only reads")
        if self.groups[ENVIRONMENT]:
            notes.append("nor do they say which variables: --env NAME passes one on")
        if self.accepts:
            notes.append("the address is an example")
        return notes

    @property
    def is_reactor(self) -> bool:
        """Whether it has to be initialised before its exports may be called."""
        return any(name == "_initialize" for name, _ in self.functions)

    @property
    def opens_files(self) -> bool:
        """Whether it could open a file.  Looking for preopens alone opens none."""
        return any(name.startswith("path_") for group in self.groups.values() for name in group)

    @property
    def accepts(self) -> bool:
        """Whether it could accept connections."""
        return "sock_accept" in self.groups[SOCKETS]

    @property
    def uses_network(self) -> bool:
        """Whether it could use a network, by any of the ways there are."""
        return self.accepts

    @property
    def invokable(self) -> "list[str]":
        """Exported functions that --invoke could name."""
        hidden = ("_start", "_initialize")
        return [name for name, _ in self.functions if name not in hidden and name[:2] != "__"]

    @property
    def least_memory(self) -> int:
        """Bytes of linear memory that it starts with, 0 if it has none."""
        return max((memory_range(text)[0] for _, text in self.memories), default=0)

    def settings(self) -> "dict[str, list[str] | str]":
        """The settings of the smallest policy, by key, where they differ from the defaults."""
        needed: dict[str, list[str] | str] = {}
        if self.opens_files:
            needed["dir"] = ["."]
        if self.accepts:
            needed["tcplisten"] = ["127.0.0.1:8080"]
        if self.least_memory > settings.MEMORY:
            needed["memory"] = format_size(2 * self.least_memory)
        if not self.is_command and self.invokable:
            needed["invoke"] = self.invokable[0]
        return needed

    def command_line(self, module: str) -> str:
        """The shortest command line that could serve it."""
        from .hints import shell_word

        words = ["wasisup", "run"]
        for key, value in self.settings().items():
            for text in [value] if isinstance(value, str) else value:
                words += [f"--{key}", shell_word(text)]
        return " ".join([*words, shell_word(module)])

    def policy(self, module: str) -> str:
        """The smallest policy, as the text of a TOML file."""
        import json  # a JSON string of printable characters is a TOML string

        reasons = {
            "dir": "It can open files.  This directory is a guess; 'HOST::GUEST::ro' is narrower.",
            "tcplisten": "It can accept connections.  The address is a guess.",
            "memory": f"It starts with {format_size(self.least_memory)}.",
            "invoke": "It has no start function; this is the first of its exports.",
            "env": "It asks for variables, and its imports do not say which.",
        }
        lines = [f"description = {json.dumps(f'the least that {module} could need')}"]
        chosen = self.settings()
        if self.groups[ENVIRONMENT]:
            chosen["env"] = []
        for key, value in chosen.items():
            lines += ["", f"# {reasons[key]}", f"{key} = {json.dumps(value)}"]
        refused = [key for key in ("dir", "tmpfs", "net", "tcplisten") if key not in chosen]
        if self.uses_network:  # each of the two refuses listening sockets by either flag
            refused = [key for key in refused if key not in ("net", "tcplisten")]
        if refused == ["tmpfs"] or "dir" in chosen:
            refused = [key for key in refused if key != "tmpfs"]
        if refused:
            lines += ["", "# It cannot use these, so they are refused."]
            lines += [f"{key} = false" for key in refused]
        return "\n".join(lines) + "\n"


def memory_range(text: str) -> "tuple[int, int | None]":
    """Least and most bytes of a memory's type text, `i32 unshared 17 -`; 0 for what is no such."""
    words = text.split()
    if len(words) < 4 or not words[2].isdigit():
        return 0, None
    most = int(words[3]) * PAGE if words[3].isdigit() else None
    return int(words[2]) * PAGE, most
