"""The command `wasisup`.

`main` is the console script.  It imports nothing that a run does not need: see `fast`.
"""

import os
import sys
from errno import EDQUOT, EFBIG, EIO, EMFILE, ENFILE, ENOSPC, EPIPE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# What a stdout that is a pipe, a file or a terminal may answer to a write.
_OUTPUT_ERRORS = (EPIPE, ENOSPC, EDQUOT, EFBIG, EIO)
_NO_DESCRIPTORS = (EMFILE, ENFILE)

BUG = "this is a bug in wasisup: run it again with WASISUP_DEBUG=1 and report what it prints"


def main() -> int:
    """The console script: runs the command of sys.argv and leaves the process.

    Returns the exit status only when there is something left for the interpreter to do.
    """
    status = command(sys.argv[1:])
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except OSError as error:
        # At once: the interpreter's own flush at the end would fail again, with a traceback.
        os._exit(status or _cannot_write(error))
    if sys.argv[1:2] == ["run"] and "WASISUP_DEBUG" not in os.environ:
        # Everything is written and every child reaped; taking the interpreter apart would add a
        # fifth to the time of a short run.
        os._exit(status)
    return status


def command(argv: "Sequence[str]") -> int:
    """Runs `wasisup ARGV...` and returns its exit status.  Every error ends here, as words."""
    from ..errors import WasisupError

    try:
        return _dispatch(argv)
    except WasisupError as error:
        print_error(error.message, error.hint)
        return error.exit_status
    except KeyboardInterrupt as error:
        number = error.args[0] if error.args else 2  # `describe` says which signal it was
        return 128 + int(number)
    except MemoryError:
        print_error("there is not enough memory for wasisup itself (ulimit -d and -v limit it)")
        return 125
    except Exception as error:
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    """The exit status for what is no error of wasisup's own kinds."""
    if isinstance(error, OSError) and error.errno in _OUTPUT_ERRORS and not error.filename:
        return _cannot_write(error)
    if getattr(error, "errno", None) in _NO_DESCRIPTORS or "Too many open files" in str(error):
        # The second: an import that could not open its file has no errno.
        print_error("wasisup itself ran out of descriptors", "ulimit -n limits them")
        return 125
    if os.environ.get("WASISUP_DEBUG"):
        import traceback

        traceback.print_exception(error)
    print_error(f"internal error: {type(error).__name__}: {error}", BUG)
    return 125


def _dispatch(argv: "Sequence[str]") -> int:
    if argv[:1] == ["run"]:
        from . import fast

        parsed = fast.parse(argv[1:])
        if parsed is not None:
            from . import run

            return run.run(parsed)
    from . import app

    return app.main(argv)


def print_error(message: str, hint: "str | None" = None) -> None:
    """`wasisup: error: ...` and `hint: ...` on stderr, safe for a terminal."""
    from .term import say

    say("error", message)
    if hint:
        say("hint", hint)


def _cannot_write(error: OSError) -> int:
    """The exit status when stdout takes no more; says so unless its reader has simply left."""
    if error.errno == EPIPE:
        status = 128 + 13  # as a command that SIGPIPE ends: `wasisup cache list | head -1`
    else:
        print_error(f"cannot write to stdout: {error.strerror}")
        status = 125
    _drop_stdout()
    return status


def _drop_stdout() -> None:
    """Points stdout at nothing, so that the interpreter's last flush does not fail again."""
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.close(nothing)
    except OSError:
        pass
