"""Every error that wasisup raises, each with the exit status and the reason it ends in.

    WasisupError                 125 setup           anything below; catch this one
    +-- UsageError               125 setup           the request itself makes no sense
    |   +-- PolicyError          125 setup           a policy file that is wrong or not there
    +-- ModuleNotFound           127 not_found       no such module
    +-- InvalidModule            126 invalid_module  there, but it cannot be run
    +-- CacheError               125 setup           the compile cache cannot be used
    +-- SetupError               125 setup           a step before the guest's first instruction
        +-- WallMissing          125 setup           ... because this machine lacks a wall

Exit statuses and reasons are those of the command-line contract (README, "Exit status").
"""


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
