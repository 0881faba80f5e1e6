"""A request's settings as the command line's, so that one place (policies.build) reads both."""

import os
from typing import Any

from ...policies.build import Given
from .. import wire
from ..errors import UsageError
from ..model import RunRequest
from .failures import HttpError

_QUOTAS = {
    "memory": "memory",
    "cpu_time": "cpu-time",
    "timeout": "timeout",
    "fds": "fds",
    "file_size": "file-size",
    "output": "output",
    "fuel": "fuel",
    "cpus": "cpus",
}


def bound_output(request: RunRequest, spec: wire.RunRequest) -> None:
    """Kept output lies in files, and the kernel's limit on files is one for all of them.

    For a run that can write others, too, the smaller one of the two quotas has to hold for both.
    """
    quotas = request.quotas
    kept = spec.stdout is None or spec.stderr is None
    writes = bool(request.tmpfs) or any(not grant.read_only for grant in request.dirs)
    if kept and writes and quotas.file_size is not None and quotas.output is not None:
        quotas.output = min(quotas.output, quotas.file_size)


def flags_of(spec: wire.RunRequest) -> dict[str, list[Given]]:
    """The request's settings as the command line's, so that one place reads both."""
    flags: dict[str, list[Given]] = {}

    def give(key: str, value: Any, source: str) -> None:
        text = f"{value:.9f}" if isinstance(value, float) else str(value)
        flags.setdefault(key, []).append(Given(text, source))

    for field, key in _QUOTAS.items():
        value = getattr(spec.quotas, field)
        if value is not None:
            give(key, value, f"quotas.{field}")
    for field, key in (("engine", "engine"), ("invoke", "invoke"), ("argv0", "argv0")):
        value = getattr(spec, field)
        if value is not None:
            give(key, value, field)
    if spec.clock_resolution is not None:
        give("clock-resolution", spec.clock_resolution, "clock_resolution")
    for wall in spec.allow_missing:
        give("allow-missing", wall, "allow_missing")
    for at, scratch in enumerate(spec.tmpfs):
        give("tmpfs", f"{scratch.guest}:{scratch.size}", f"tmpfs[{at}]")
    for at, text in enumerate(spec.net):
        give("net", text, f"net[{at}]")
    for name, value in spec.env.items():
        if "=" in name or not name:
            raise UsageError(f"env: {name!r} is no name of a variable")
        give("env", f"{name}={_text(value)}", "env")
    return flags


def args_of(spec: wire.RunRequest) -> list[bytes | str]:
    """The guest's arguments.

    Raises HttpError when they and the variables are too much, UsageError for one with a NUL.
    """
    args = [arg.encode() if isinstance(arg, str) else arg.base64 for arg in spec.args]
    for at, arg in enumerate(args):
        if b"\0" in arg:
            raise UsageError(f"args[{at}]: there is a NUL byte in it")
    size = sum(len(arg) + 1 for arg in args)
    for name, value in spec.env.items():
        size += len(name.encode()) + len(os.fsencode(_text(value))) + 2
    if size > wire.MAX_TEXT_BYTES:
        raise HttpError(413, f"arguments and variables are over {wire.MAX_TEXT_BYTES} bytes")
    return [*args]


def _text(value: str | wire.Bytes) -> str:
    return value if isinstance(value, str) else os.fsdecode(value.base64)
