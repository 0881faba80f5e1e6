"""Every error that wasisup raises, each with the exit status and the reason it ends in.

    WasisupError                 125 setup           anything below; catch this one
    +-- UsageError               125 setup           the request itself makes no sense
    |   +-- PolicyError          125 setup           a policy file that is wrong or not there
    |   +-- ConfigError          125 setup           the daemon's configuration is
    +-- Denied                   125 denied          the configuration does not let this caller
    +-- ModuleNotFound           127 not_found       no such module
    +-- InvalidModule            126 invalid_module  there, but it cannot be run
    +-- CacheError               125 setup           the compile cache cannot be used
    +-- SetupError               125 setup           a step before the guest's first instruction
    |   +-- WallMissing          125 setup           ... because this machine lacks a wall
    |   +-- OpenerTimeout        125 setup           ... because a file system does not answer
    +-- RunFailed                the run's own       Result.check(): it did not end well
    +-- ClientError              125 setup           asking a daemon
        +-- DaemonUnavailable    125 setup           none is there, or it hung up
        +-- ClientTimeout        125 setup           it took longer than the client's timeout
        +-- BadAnswer            125 setup           what answered does not speak this API
        +-- ApiError             125 setup           the daemon said no; code says why
            +-- InvalidRequest   125 setup           400, 413 to 415, 422, 431: it is no request
            +-- DeniedByDaemon   125 denied          403: this caller may not
            +-- NotFound         125 setup           404: no such run, module or policy
            +-- Conflict         125 setup           409: the run is not in a state for it
            +-- Busy             125 setup           429: full; retry_after says for how long
            +-- Unavailable      125 setup           503: stopping, or not able to run anything

Exit statuses and reasons are those of the command-line contract (README, "Exit status").
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .shapes import Result


class WasisupError(Exception):
    """Something wasisup, and not the guest, has to say.

    message: one line for a person, without a full stop or a program name in front.
    hint: what the person could do about it, or None.
    """

    exit_status = 125
    reason = "setup"

    def __init__(self, message: str, hint: "str | None" = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(WasisupError):
    """The request contradicts itself or is out of range."""


class PolicyError(UsageError):
    """A policy that does not exist, cannot be read, or says something that is not a policy."""


class ConfigError(UsageError):
    """The daemon's configuration is not there, cannot be trusted, or cannot be read."""


class Denied(WasisupError):
    """The daemon's configuration does not let this caller do what was asked."""

    reason = "denied"


class ModuleNotFound(WasisupError):
    """There is no file under the module's name."""

    exit_status = 127
    reason = "not_found"


class InvalidModule(WasisupError):
    """The file is there and is not a module that can be run here."""

    exit_status = 126
    reason = "invalid_module"


class CacheError(WasisupError):
    """The compile cache is not ours, not private, or cannot be written."""


class SetupError(WasisupError):
    """A step on the way to the guest failed.

    step: the step's name, as the documentation has it ("bind mount", "start the zygote").
    errno: the failing call's errno, positive; 0 when no system call failed.
    """

    def __init__(
        self, message: str, hint: "str | None" = None, *, step: str = "", errno: int = 0
    ) -> None:
        super().__init__(message, hint)
        self.step = step
        self.errno = errno


class WallMissing(SetupError):
    """This machine cannot put up one of the walls, and the request did not accept that by name.

    wall: a name of `model.WALLS`.
    """

    def __init__(
        self,
        message: str,
        hint: "str | None" = None,
        *,
        wall: str,
        step: str = "",
        errno: int = 0,
    ) -> None:
        super().__init__(message, hint, step=step, errno=errno)
        self.wall = wall


class OpenerTimeout(SetupError):
    """A file or directory of the caller's could not be opened, or read, in time (daemon: 504)."""


class RunFailed(WasisupError):
    """A run that `check` was called on ended with a status other than 0.

    result: the `shapes.Result`, output and all.
    """

    def __init__(self, message: str, result: "Result") -> None:
        super().__init__(message)
        self.result = result
        self.exit_status = result.status
        self.reason = result.reason


class ClientError(WasisupError):
    """Something between this client and a daemon."""


class DaemonUnavailable(ClientError):
    """There is no daemon at the socket, or the connection to it broke off."""


class ClientTimeout(ClientError):
    """The daemon was silent for longer than the client's timeout."""


class BadAnswer(ClientError):
    """Whatever answers at the socket, it is not this API."""


class ApiError(ClientError):
    """The daemon refused, or failed.

    status: of HTTP, 400 to 599.  code: for programs, as the API has it ("denied").  retry_after:
    seconds after which it may be worth another try, or None.
    """

    def __init__(
        self,
        message: str,
        hint: "str | None" = None,
        *,
        status: int,
        code: str,
        retry_after: "float | None" = None,
    ) -> None:
        super().__init__(message, hint)
        self.status = status
        self.code = code
        self.retry_after = retry_after


class InvalidRequest(ApiError):
    """The request is malformed, too large, or asks for what makes no sense."""


class DeniedByDaemon(ApiError):
    """The daemon's configuration does not let this caller do that."""

    reason = "denied"


class NotFound(ApiError):
    """No such run, module or policy, as far as this caller may see."""


class Conflict(ApiError):
    """The run is in no state for that: it has ended, or its stdin is not open."""


class Busy(ApiError):
    """The daemon's queue, or this caller's share of it, is full."""


class Unavailable(ApiError):
    """The daemon is stopping, or cannot run anything for now."""
