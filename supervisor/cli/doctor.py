"""`wasisup doctor`: what this kernel and this user can enforce, and how to get what is missing."""

import os

from .. import embedded, upkeep
from ..errors import CacheError, WallMissing, WasisupError
from ..model import WALLS, DirGrant, RunRequest
from . import probes, version
from .probes import LIMITED, MISSING, OK, OPTIONAL, Check
from .term import GREEN, RED, YELLOW, out, out_json, paint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# (module (memory (export "memory") 1) (func (export "_start")))
TINY_MODULE = (
    b"\0asm\x01\0\0\0"
    b"\x01\x04\x01\x60\0\0"
    b"\x03\x02\x01\0"
    b"\x05\x03\x01\0\x01"
    b"\x07\x13\x02\x06memory\x02\0\x06_start\0\0"
    b"\x0a\x04\x01\x02\0\x0b"
)
# Where artifacts lie has to allow executable mappings (statvfs(3)).
ST_NOEXEC = 8

_MARKS = {OK: GREEN, LIMITED: YELLOW, OPTIONAL: YELLOW, MISSING: RED}


def doctor(as_json: bool) -> int:
    """Prints every check; 0 when a run with every wall is possible here, else 1."""
    checks = [
        probes.kernel(),
        probes.user(),
        probes.namespaces(),
        probes.network(),
        probes.net_grants(),
        probes.landlock(),
        probes.seccomp(),
        probes.libseccomp(),
        probes.cgroup(),
        probes.threads(),
        _engine(),
        _core(),
        _cache(),
    ]
    trial, missing = _trial()
    checks.append(trial)
    good = trial.state == OK
    if as_json:
        out_json(
            {
                "ok": good,
                "missing_walls": missing,
                "checks": [
                    {
                        "name": check.name,
                        "state": check.state,
                        "detail": check.detail,
                        "fix": check.fix or None,
                    }
                    for check in checks
                ],
            }
        )
    else:
        _print(checks, good, missing)
    return 0 if good else 1


def _engine() -> Check:
    release = version.engine()
    if release is None:
        return Check("engine", MISSING, "the package wasmtime is not installed", "pip install .")
    return Check("engine", OK, f"wasmtime {release}")


def _core() -> Check:
    try:
        hello = embedded.probe()
    except WasisupError as error:
        return Check("core", MISSING, error.message, error.hint or "")
    return Check("core", OK, f"wasisup-core answers, with the engine {hello.release} loaded")


def _cache() -> Check:
    with upkeep.open_cache() as cache:
        root = cache.root
        try:
            cache.fileno()
        except CacheError as error:
            return Check("cache", MISSING, error.message, error.hint or "")
    elsewhere = "set WASISUP_CACHE_DIR to a directory of yours elsewhere"
    if not os.access(root, os.W_OK | os.X_OK):
        return Check("cache", MISSING, f"{root} cannot be written", elsewhere)
    if os.statvfs(root).f_flag & ST_NOEXEC:
        return Check("cache", MISSING, f"{root} is on a file system mounted noexec", elsewhere)
    return Check("cache", OK, root)


def _trial() -> "tuple[Check, list[str]]":
    """A real run of a module that does nothing, behind every wall, with a directory granted.

    Also the walls without which it would have to be run here.
    """
    import tempfile

    missing: list[str] = []
    with tempfile.TemporaryDirectory(prefix="wasisup-doctor-") as directory:
        module = os.path.join(directory, "tiny.wasm")
        with open(module, "wb") as file:
            file.write(TINY_MODULE)
        for _ in WALLS:
            try:
                check = _try(module, directory, missing)
            except WallMissing as error:
                if not missing:
                    # No hint: it would send the reader to the page that he is reading.
                    first = Check("trial run", MISSING, error.message)
                if error.wall in missing:
                    return first, missing
                missing.append(error.wall)
            except WasisupError as error:
                return Check("trial run", MISSING, error.message, error.hint or ""), missing
            else:
                return (first if missing else check), missing
    return first, missing


def _try(module: str, directory: str, missing: "Sequence[str]") -> Check:
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        request = RunRequest(
            module=module,
            dirs=[DirGrant(directory, "/trial", read_only=True)],
            allow_missing=missing,
        )
        outcome = embedded.run(request, stdio=(nothing, nothing, nothing))
    finally:
        os.close(nothing)
    if outcome.status != 0:
        return Check("trial run", MISSING, outcome.message or f"it ended with {outcome.reason!r}")
    return Check("trial run", OK, f"walls: {', '.join(outcome.walls)}")


def _print(checks: "Sequence[Check]", good: bool, missing: "Sequence[str]") -> None:
    import sys

    name_width = max(len(check.name) for check in checks)
    state_width = max(len(check.state) for check in checks)
    for check in checks:
        state = paint(check.state.ljust(state_width), _MARKS[check.state], sys.stdout)
        if sys.stdout is not None:
            sys.stdout.write(f"{check.name.ljust(name_width)}  {state}  ")
        out(check.detail)
        if check.fix:
            out(f"{' ' * (name_width + state_width + 4)}-> {check.fix}")
    out()
    if good:
        out("Runs with every wall are possible here.")
    elif missing:
        names = ",".join(missing)
        out("Runs with every wall are not possible here.  To run without what is missing:")
        out(f"  wasisup run --allow-missing={names} MODULE")
    else:
        out("Runs are not possible here as it is.")
