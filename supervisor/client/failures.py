"""Errors of the daemon and of the socket, as ours.  Nothing else translates them."""

from errno import EACCES, EPERM

from ..errors import (
    ApiError,
    BadAnswer,
    Busy,
    ClientError,
    ClientTimeout,
    Conflict,
    DaemonUnavailable,
    DeniedByDaemon,
    InvalidModule,
    InvalidRequest,
    ModuleNotFound,
    NotFound,
    SetupError,
    Unavailable,
    WallMissing,
    WasisupError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_BY_STATUS: "dict[int, type[ApiError]]" = {
    400: InvalidRequest,
    403: DeniedByDaemon,
    404: NotFound,
    409: Conflict,
    413: InvalidRequest,
    414: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: Busy,
    431: InvalidRequest,
    503: Unavailable,
}
_OF_MODULES: "dict[str, type[WasisupError]]" = {
    "invalid_module": InvalidModule,
    "module_not_found": ModuleNotFound,
}
_SHOWN = 200  # of an answer that cannot be read


def of_socket(error: "OSError | EOFError", path: str) -> ClientError:
    """An error of a connection to the socket `path`."""
    start = f"start one: wasisup daemon --socket {path}"
    if isinstance(error, TimeoutError):
        return ClientTimeout(f"the daemon at {path} did not answer in time")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return DaemonUnavailable(f"there is no daemon at {path}: no such socket", start)
    if isinstance(error, ConnectionRefusedError):
        return DaemonUnavailable(f"there is no daemon at {path}: nobody listens there", start)
    if isinstance(error, OSError) and error.errno in (EACCES, EPERM):
        return DaemonUnavailable(
            f"you may not talk to the daemon at {path}: permission denied",
            "its socket-mode and socket-group say who may",
        )
    if isinstance(error, EOFError | ConnectionError):
        return DaemonUnavailable(f"the daemon at {path} hung up before its answer was complete")
    return DaemonUnavailable(f"cannot talk to a daemon at {path}: {error.strerror or error}")


def of_answer(status: int, headers: "Mapping[str, str]", body: bytes) -> WasisupError:
    """The daemon's answer with a status of 400 or more.  body: a `wire.Error` as JSON.

    What is wrong with a module is the same error wherever it was found: no ClientError.
    """
    import json

    try:
        error = json.loads(body)["error"]
        code, message, hint = error["code"], error["message"], error.get("hint")
    except (ValueError, KeyError, TypeError, AttributeError):
        shown = body[:_SHOWN].decode("utf-8", "replace")
        return BadAnswer(f"the daemon answered {status} with no error of this API: {shown!r}")
    message, hint = str(message), None if hint is None else str(hint)
    if code in _OF_MODULES:
        return _OF_MODULES[code](message, hint)
    return _BY_STATUS.get(status, ApiError)(
        message,
        hint,
        status=status,
        code=str(code),
        retry_after=_seconds(headers.get("retry-after", "")),
    )


def of_outcome(
    reason: str,
    message: str,
    hint: "str | None" = None,
    *,
    step: "str | None" = None,
    errno: "int | None" = None,
    wall: "str | None" = None,
) -> "WasisupError | None":
    """What the embedded supervisor raises for such an outcome; None: the guest did run."""
    if reason == "not_found":
        return ModuleNotFound(message, hint)
    if reason == "invalid_module":
        return InvalidModule(message, hint)
    if reason != "setup":
        return None
    if wall is not None:
        return WallMissing(message, hint, wall=wall, step=step or "", errno=errno or 0)
    return SetupError(message, hint, step=step or "", errno=errno or 0)


def _seconds(text: str) -> "float | None":
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
