"""What might have helped: from how a run ended to the flags that would have granted it.

A hint is a guess, so there are few, the likeliest first; each names a flag with a value that can be
typed as it stands.
"""

import os

from ...policies.grants import guest_key
from ...policies.units import format_duration, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..model import Denial, DirGrant, Outcome, RunRequest

MOST = 3
# How much more to suggest: time in large steps (what runs too long often runs much too long),
# memory in small ones.
MORE_TIME = 4
MORE_ROOM = 2
# Linear memory this near its quota when a guest dies is taken for the cause.
NEAR = 0.9
# What opens a file: preview 1's function, and WASI 0.2's.
_OPENING = (b"path_open", b"descriptor.open-at")


def hints(
    outcome: "Outcome", request: "RunRequest", forbidden: "Iterable[str]" = ()
) -> "list[str]":
    """At most three hints for a run that did not end well; none for one that did.

    forbidden: keys whose flags the policy refuses, so that there is no point in naming them.
    """
    if outcome.status == 0:
        return []
    found: list[str] = []
    sources = (
        _for_reason,
        _for_read_only,
        _for_escapes,
        _for_network,
        _for_files,
        _for_other_denials,
    )
    for source in sources:
        for hint in source(outcome, request):
            if hint not in found and not any(_is_refused(hint, key) for key in forbidden):
                found.append(hint)
    if not found:
        found += [
            hint
            for hint in _for_components(outcome, request)
            if not any(_is_refused(hint, key) for key in forbidden)
        ]
    return found[:MOST]


def _is_refused(hint: str, key: str) -> bool:
    """Whether the hint names a flag that `key = false` refuses; see `build`."""
    also = {"net": "--tcplisten ", "tcplisten": "--net listen:tcp:"}.get(key)
    return f"--{key} " in hint or (also is not None and also in hint)


def _for_reason(outcome: "Outcome", request: "RunRequest") -> "Iterator[str]":
    quotas = request.quotas
    if outcome.reason == "timeout" and quotas.timeout is not None:
        yield f"if it needs longer: --timeout {format_duration(quotas.timeout * MORE_TIME)}"
        used = outcome.usage.cpu_user_ns + outcome.usage.cpu_system_ns
        if used * 10 < outcome.usage.wall_ns:
            yield "it spent nearly all that time waiting: for input, perhaps, or asleep"
    elif outcome.reason == "cpu_time" and quotas.cpu_time is not None:
        more = quotas.cpu_time * MORE_TIME
        flags = f"--cpu-time {format_duration(more)}"
        if quotas.timeout is not None and quotas.timeout <= more:
            flags += f" --timeout {format_duration(more * 2)}"
        yield f"if it needs longer: {flags}"
    elif outcome.reason == "output" and quotas.output is not None:
        yield f"if it has that much to say: --output {format_size(quotas.output * MORE_TIME)}"
    elif outcome.reason == "file_size" and quotas.file_size is not None:
        yield f"if its files are that large: --file-size {format_size(quotas.file_size * 4)}"
    elif outcome.reason == "fuel" and quotas.fuel is not None:
        yield f"if it needs more: --fuel {quotas.fuel * MORE_TIME}"
    elif outcome.reason == "syscall":
        yield (
            f"a guest cannot ask for {outcome.syscall or 'a system call'} by itself: please report"
            " this, with the module if you can"
        )
    yield from _for_memory(outcome, request)


def _for_memory(outcome: "Outcome", request: "RunRequest") -> "Iterator[str]":
    quota = request.quotas.memory
    if quota is None:
        return
    refused = any(denial.kind == "memory" for denial in outcome.denials)
    # A component's memories cannot be looked at; what the process held can.
    held = outcome.usage.memory or outcome.usage.max_rss
    full = held >= quota * NEAR
    ended_badly = outcome.reason in ("exit", "trap", "killed")
    if outcome.reason == "memory" or ((refused or full) and ended_badly):
        start = _starts_with(outcome.message)
        more = format_size(max(quota, start) * MORE_ROOM)
        starts = f" and it starts with {format_size(start)}" if start else ""
        yield f"its memory quota is {format_size(quota)}{starts}; for more: --memory {more}"


def _starts_with(message: str) -> int:
    """Bytes of the memory that did not fit at the start, from the engine's words; 0 if unknown."""
    after = message.partition("memory minimum size of ")[2].partition(" pages")[0]
    return int(after) * 65536 if after.isascii() and after.isdigit() and len(after) < 9 else 0


def _for_read_only(outcome: "Outcome", request: "RunRequest") -> "Iterator[str]":
    # Older C libraries look for /tmp/x below "." as ./tmp/x; what is wanted is a grant of /tmp.
    elsewhere = {f"./{path.lstrip('/')}" for path in _paths(request.args) if path[0] == "/"}
    for denial in _denials(outcome, "read_only"):
        if denial.path in elsewhere:
            continue
        grant = _grant_of(denial.path, request.dirs)
        if grant is None:
            yield f"{denial.path!r} is in a directory granted read-only (::ro)"
            continue
        yield (
            f"{denial.path!r} is in a directory granted read-only; to let it write:"
            f" {_writable(grant)}"
        )


def _for_components(outcome: "Outcome", request: "RunRequest") -> "Iterator[str]":
    """What a component was refused in a read-only directory, which nobody sees but itself.

    The engine answers that without asking the kernel, so there is no denial: all that is known is
    that it failed, that it can open files, and that it was not refused anything else.
    """
    from .. import launch

    granted = [grant for grant in request.dirs if grant.read_only]
    if not granted or outcome.denials or outcome.reason not in ("exit", "trap"):
        return
    try:
        if not launch.is_component_file(request.module):
            return
    except OSError:
        return
    if not _opens_files(outcome, request):
        return
    words = [guest_key(os.fsdecode(arg).rpartition("=")[2]) for arg in request.args]
    named = [grant for grant in granted if any(_is_below(word, grant.guest) for word in words)]
    flags = " ".join(_writable(grant) for grant in (named or granted)[:MOST])
    yield f"if it had to write: {flags}"


def _writable(grant: "DirGrant") -> str:
    """The flag of a read-only grant that would let it write."""
    name = "" if grant.guest == grant.host else f"::{grant.guest}"
    return f"--dir {shell_word(grant.host + name + '::rw')}"


def _for_escapes(outcome: "Outcome", request: "RunRequest") -> "Iterator[str]":
    for denial in _denials(outcome, "escape"):
        path = denial.path
        if os.path.isabs(path):
            wanted = _directory_of(path)
        elif path.startswith("../") or path == "..":
            wanted = os.path.dirname(path) or path
        else:
            yield from _for_link(path, request)
            continue
        if wanted and wanted != "/":
            yield f"{path!r} is outside of what it was granted: --dir {shell_word(wanted)}"
        else:
            yield f"{path!r} is outside of what it was granted"


def _for_link(path: str, request: "RunRequest") -> "Iterator[str]":
    """A path that looks harmless and leaves all the same goes through a symbolic link."""
    for grant in request.dirs:
        top = os.path.realpath(grant.host)
        target = os.path.realpath(os.path.join(top, path))
        if os.path.lexists(os.path.join(top, path)) and not _is_below(target, top):
            where = target if os.path.isdir(target) else os.path.dirname(target)
            yield (
                f"{path!r} is a symbolic link out of {grant.host!r}; grant where it leads and use"
                f" that path: --dir {shell_word(where)}"
            )
            return
    yield f"{path!r} leads out of the directory it was granted"


def _for_network(outcome: "Outcome", request: "RunRequest") -> "Iterator[str]":
    """Addresses that a component asked for; the path of such a denial is a value of --net."""
    for denial in _denials(outcome, "name"):
        if not _can_be_granted(f"tcp:{denial.path}:443"):
            continue
        ports = sorted({one.low for one in request.net if one.low == one.high})
        port = str(ports[0]) if len(ports) == 1 else "PORT"
        flag = f"--net tcp:{denial.path}:{port}"
        yield f"it looked up {denial.path!r}; to let it connect there: {flag}"
    for denial in _denials(outcome, "network"):
        if _can_be_granted(denial.path):
            what = "listen" if denial.path.startswith("listen:") else "connect"
            yield f"it may not {what} there; to allow it: --net {shell_word(denial.path)}"


def _can_be_granted(text: str) -> bool:
    """Whether --net would take it: a worker writes denials itself, and might write anything."""
    from ...policies.grants import GrantError, parse_net

    try:
        parse_net(text)
    except GrantError:
        return False
    return True


def _for_files(outcome: "Outcome", request: "RunRequest") -> "Iterator[str]":
    """Arguments that look like paths which the guest has no way to reach."""
    if outcome.reason not in ("exit", "trap"):
        return
    nothing_granted = not request.dirs and not request.tmpfs
    looked = any(denial.kind == "no_preopen" for denial in outcome.denials)
    if nothing_granted and not looked:
        return  # it never asked whether there are files
    wanted: dict[str, str] = {}
    for path in _paths(request.args):
        if not _is_granted(path, request):
            directory = _directory_of(path) if os.path.isabs(path) else _relative(path)
            if directory:
                wanted.setdefault(directory, path)
    flags = " ".join(f"--dir {shell_word(directory)}" for directory in list(wanted)[:MOST])
    if wanted and nothing_granted:
        yield f"it was granted no directory; for {_listed(wanted.values())}: {flags}"
    elif wanted:
        yield f"{_listed(wanted.values())} is outside of what it was granted: {flags}"
    elif nothing_granted and _opens_files(outcome, request):
        yield "it was granted no directory; if it needs files: --dir ."


def _opens_files(outcome: "Outcome", request: "RunRequest") -> bool:
    """Whether the module imports what opens files; C libraries look for directories at any rate."""
    if outcome.digest is None:
        return False
    from .. import upkeep
    from .needs import needs_of

    fuel = request.quotas.fuel is not None
    items = upkeep.stored_description(outcome.digest, request.engine, fuel=fuel)
    if items is None:  # it ran by a daemon, which keeps a cache of its own
        return any(_has_import(request.module, name) for name in _OPENING)
    return needs_of(items).opens_files


def _has_import(module: str, name: bytes) -> bool:
    """Whether a module's bytes have that name in them: near enough for a hint."""
    import mmap

    try:
        with open(module, "rb") as file:
            return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ).find(name) >= 0
    except (OSError, ValueError):
        return False


def _for_other_denials(outcome: "Outcome", request: "RunRequest") -> "Iterator[str]":
    for _ in _denials(outcome, "fds"):
        fds = request.quotas.fds
        yield f"it ran out of its {fds} descriptors; for more: --fds {fds * MORE_TIME}"
    for _ in _denials(outcome, "socket"):
        if not request.listens:
            yield "it wants to accept connections; for a socket: --tcplisten 127.0.0.1:8080"
    for denial in _denials(outcome, "permission"):
        if denial.path and os.geteuid() == 0:
            yield (
                f"in a run root has no capabilities, so the mode of {denial.path!r} holds for it,"
                " too: run wasisup as the files' owner"
            )
        elif denial.path:
            yield f"your user may not do that to {denial.path!r}: no flag of wasisup can change it"


def _denials(outcome: "Outcome", kind: str) -> "list[Denial]":
    return [denial for denial in outcome.denials if denial.kind == kind]


def _paths(args: "Sequence[bytes | str]") -> "Iterator[str]":
    """The arguments, or the parts of them after `=`, that are paths as far as one can tell."""
    for arg in args:
        text = os.fsdecode(arg)
        _, equals, value = text.partition("=")
        candidates = [value] if equals and value else []
        if not text.startswith("-"):
            candidates.insert(0, text)
        for path in candidates:
            if _looks_like_path(path):
                yield path
                break


def _looks_like_path(path: str) -> bool:
    if not path or "://" in path or "\0" in path or "\n" in path or len(path) > 4096:
        return False
    try:
        if os.path.lexists(path):
            return True
        # A new file in a directory that is there.  A bare word is no path until it exists.
        parent = os.path.dirname(path)
        return "/" in path and parent != "/" and os.path.isdir(parent)
    except OSError:
        return False


def _directory_of(path: str) -> str:
    """The directory to grant for an absolute path; empty if that would be the whole machine."""
    directory = path if os.path.isdir(path) else os.path.dirname(path)
    directory = guest_key(directory)
    return "" if directory == "/" else directory


def _relative(path: str) -> str:
    if guest_key(path).split("/")[0] != "..":
        return "."
    return path if os.path.isdir(path) else os.path.dirname(path)


def _is_granted(path: str, request: "RunRequest") -> bool:
    names = [grant.guest for grant in request.dirs] + [grant.guest for grant in request.tmpfs]
    return any(_is_below(guest_key(path), guest_key(name)) for name in names)


def _is_below(path: str, top: str) -> bool:
    if top == "." or (top == "/" and not os.path.isabs(path)):
        # wasi-libc starts in "/", so what is granted as "/" holds relative paths, too.
        return not os.path.isabs(path) and path.partition("/")[0] != ".."
    return path == top or path.startswith(top.rstrip("/") + "/")


def _grant_of(path: str, dirs: "Sequence[DirGrant]") -> "DirGrant | None":
    """The read-only grant that a denial's path (guest's name + "/" + path) is about."""
    for grant in sorted(dirs, key=lambda grant: -len(grant.guest)):
        if grant.read_only and _is_below(path, grant.guest):
            return grant
    return None


def _listed(paths: "Iterable[str]") -> str:
    shown = [repr(path) for path in paths][:MOST]
    return " and ".join(shown)


def shell_word(text: str) -> str:
    """`text` quoted as a shell needs it."""
    import shlex

    return shlex.quote(text)
