"""wasisup: runs WebAssembly that nobody has to trust, behind WASI and behind Linux.

    wasisup.run("hello.wasm").check().text          one run, here
    wasisup.Client().run("hello.wasm")              by a daemon; AsyncClient for asyncio
    wasisup.Pool("grade.wasm").map(submissions)     one module over many inputs

Every name is imported when it is first used: `wasisup run` has no time for all of them.
"""

__version__ = "0.1.0"

_ERRORS = (
    "ApiError",
    "BadAnswer",
    "Busy",
    "CacheError",
    "ClientError",
    "ClientTimeout",
    "Conflict",
    "DaemonUnavailable",
    "DeniedByDaemon",
    "InvalidModule",
    "InvalidRequest",
    "ModuleNotFound",
    "NotFound",
    "PolicyError",
    "RunFailed",
    "SetupError",
    "Unavailable",
    "UsageError",
    "WallMissing",
    "WasisupError",
)
# Where each public name is.
_HOMES = {
    "run": "supervisor.once",
    "Client": "supervisor.client.sync",
    "Stream": "supervisor.client.sync",
    "AsyncClient": "supervisor.client.aio",
    "AsyncStream": "supervisor.client.aio",
    "Pool": "supervisor.client.pool",
    "Job": "supervisor.client.pool",
    "PIPE": "supervisor.client.options",
    "Dir": "supervisor.shapes",
    "Chunk": "supervisor.shapes",
    "Result": "supervisor.shapes",
    "RunOptions": "supervisor.shapes",
    "Run": "supervisor.wire",
    "Outcome": "supervisor.wire",
    "Usage": "supervisor.wire",
    "Denial": "supervisor.wire",
    "Stats": "supervisor.wire",
    "Event": "supervisor.wire",
    "Info": "supervisor.wire",
    "Health": "supervisor.wire",
    "ModuleInfo": "supervisor.wire",
    "PolicyInfo": "supervisor.wire",
    **dict.fromkeys(_ERRORS, "supervisor.errors"),
}

# ruff: noqa: PLC0414  (`X as X` is how a type checker knows that X is for others, too)
# Absolute names: as `runtime/front.py` this file has no such neighbours.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from wasisup.supervisor.client.aio import AsyncClient as AsyncClient
    from wasisup.supervisor.client.aio import AsyncStream as AsyncStream
    from wasisup.supervisor.client.options import PIPE as PIPE
    from wasisup.supervisor.client.pool import Job as Job
    from wasisup.supervisor.client.pool import Pool as Pool
    from wasisup.supervisor.client.sync import Client as Client
    from wasisup.supervisor.client.sync import Stream as Stream
    from wasisup.supervisor.errors import ApiError as ApiError
    from wasisup.supervisor.errors import BadAnswer as BadAnswer
    from wasisup.supervisor.errors import Busy as Busy
    from wasisup.supervisor.errors import CacheError as CacheError
    from wasisup.supervisor.errors import ClientError as ClientError
    from wasisup.supervisor.errors import ClientTimeout as ClientTimeout
    from wasisup.supervisor.errors import Conflict as Conflict
    from wasisup.supervisor.errors import DaemonUnavailable as DaemonUnavailable
    from wasisup.supervisor.errors import DeniedByDaemon as DeniedByDaemon
    from wasisup.supervisor.errors import InvalidModule as InvalidModule
    from wasisup.supervisor.errors import InvalidRequest as InvalidRequest
    from wasisup.supervisor.errors import ModuleNotFound as ModuleNotFound
    from wasisup.supervisor.errors import NotFound as NotFound
    from wasisup.supervisor.errors import PolicyError as PolicyError
    from wasisup.supervisor.errors import RunFailed as RunFailed
    from wasisup.supervisor.errors import SetupError as SetupError
    from wasisup.supervisor.errors import Unavailable as Unavailable
    from wasisup.supervisor.errors import UsageError as UsageError
    from wasisup.supervisor.errors import WallMissing as WallMissing
    from wasisup.supervisor.errors import WasisupError as WasisupError
    from wasisup.supervisor.once import run as run
    from wasisup.supervisor.shapes import Chunk as Chunk
    from wasisup.supervisor.shapes import Dir as Dir
    from wasisup.supervisor.shapes import Result as Result
    from wasisup.supervisor.shapes import RunOptions as RunOptions
    from wasisup.supervisor.wire import Denial as Denial
    from wasisup.supervisor.wire import Event as Event
    from wasisup.supervisor.wire import Health as Health
    from wasisup.supervisor.wire import Info as Info
    from wasisup.supervisor.wire import ModuleInfo as ModuleInfo
    from wasisup.supervisor.wire import Outcome as Outcome
    from wasisup.supervisor.wire import PolicyInfo as PolicyInfo
    from wasisup.supervisor.wire import Run as Run
    from wasisup.supervisor.wire import Stats as Stats
    from wasisup.supervisor.wire import Usage as Usage


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> "list[str]":
    return sorted({*globals(), *_HOMES})
