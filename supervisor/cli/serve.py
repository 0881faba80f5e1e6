"""`wasisup serve`: the one door from the command line to the server's side."""

import os

from ...policies.build import Given, build
from ..errors import InvalidModule, ModuleNotFound, UsageError
from . import grouped
from .options import OPTIONS, SERVER, Option
from .parameters import CONTEXT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

DEFAULTS = {
    "--listen": "127.0.0.1:8080",
    "--concurrency": "64",
    "--queue-time": "30s",
    "--max-body": "16MiB",
    "--max-header": "32KiB",
    "--grace": "10s",
    "--log": "auto",
}
_LOGS = ("auto", "journal", "json", "pretty")
_MOST = 100_000
_LEAST_HEADER, _MOST_HEADER = 1 << 10, 1 << 20

OWN = (
    Option(
        "--listen",
        "ADDR",
        SERVER,
        "HOST:PORT, [IPv6]:PORT or unix:PATH; port 0 takes a free one and prints which. A service"
        " manager's sockets (LISTEN_FDS) win. [default: 127.0.0.1:8080]",
        repeatable=True,
        setting=False,
    ),
    Option(
        "--concurrency",
        "N",
        SERVER,
        "Requests answered at once, each by a worker of its own. [default: 64]",
        setting=False,
    ),
    Option(
        "--queue",
        "N",
        SERVER,
        "Requests that may wait for that; more are answered 503. [default: 4 times as many]",
        setting=False,
    ),
    Option("--queue-time", "TIME", SERVER, "They wait so long. [default: 30s]", setting=False),
    Option(
        "--max-body",
        "SIZE",
        SERVER,
        "Body of a request; of an answer, --output is the limit. [default: 16MiB]",
        setting=False,
    ),
    Option("--max-header", "SIZE", SERVER, "A request's headers. [default: 32KiB]", setting=False),
    Option(
        "--grace",
        "TIME",
        SERVER,
        "At SIGTERM or SIGINT, what is being answered gets so long. [default: 10s]",
        setting=False,
    ),
    Option(
        "--user",
        "NAME|UID:GID",
        SERVER,
        "Whom a server that root started becomes before it reads a request, workers included;"
        " 'root' keeps root. [default: nobody]",
        setting=False,
    ),
    Option(
        "--log",
        "FORMAT",
        SERVER,
        "On stderr: auto, pretty, json or journal. [default: auto]",
        setting=False,
        complete=_LOGS,
    ),
)

# Of `run`, those that say something about the guest; but sockets are the server's business.
SHARED = tuple(
    option
    for option in OPTIONS
    if (option.key is not None or option.flag == "--policy") and option.flag != "--tcplisten"
)

EPILOG = """\
The module is a CGI program (RFC 3875, as in WAGI): the request's body is its stdin, its variables
(REQUEST_METHOD, PATH_INFO, QUERY_STRING, HTTP_...) tell the rest; it writes headers, an empty line
and the body to stdout. Each request gets a worker of its own, with the grants and quotas given
here; names of --net are resolved for each anew. What it writes to stderr goes to the log.

\b
Examples:
  wasisup serve hello.wasm                        at http://127.0.0.1:8080
  wasisup serve --listen 0.0.0.0:80 --user web --dir /srv/www::/www::ro site.wasm
  wasisup serve --listen unix:/run/app.sock --timeout 5s --memory 64MiB app.wasm
  wasisup serve --net tcp:api.example.com:443 component.wasm
"""


def run(module: str, args: "tuple[str, ...]", **found: "Any") -> int:
    """The command's body: see `serve`."""
    given = grouped.values((*OWN, *SHARED), found)
    return serve(module, args, given)


COMMAND = grouped.GroupedCommand(
    "serve",
    table=(*OWN, *SHARED),
    callback=run,
    help="Answer each HTTP request with a run of MODULE, a CGI program, in a fresh worker.",
    short_help="Answer HTTP requests with a module.",
    epilog=EPILOG,
    context_settings={**CONTEXT, "allow_interspersed_args": False},
)


def serve(
    module: str,
    args: "tuple[str, ...]",
    given: "Mapping[str, list[str]]",
    environ: "Mapping[str, str]" = os.environ,
) -> int:
    """Serves until it is told to stop; the exit status.

    given: values by flag of OWN and SHARED.  Raises WasisupError.
    """
    from ..serve import server
    from .run import help_to_find, name_module
    from .version import wasisup

    def own(flag: str) -> str:
        return given.get(flag, [DEFAULTS[flag]])[-1]

    flags = {
        option.key: [Given(text, option.flag) for text in given[option.flag]]
        for option in SHARED
        if option.key is not None and option.flag in given
    }
    policy = None
    if "--policy" in given:
        from ...policies import policy as policies
        from .term import say

        policy = policies.load(given["--policy"][-1], environ)
        for warning in policy.warnings:
            say("warning", warning)
    concurrency = _count("--concurrency", own("--concurrency"), 1)
    queue = given.get("--queue")
    settings = server.Settings(
        listen=given.get("--listen", [DEFAULTS["--listen"]]),
        concurrency=concurrency,
        queue=4 * concurrency if queue is None else _count("--queue", queue[-1], 0),
        queue_seconds=_seconds("--queue-time", own("--queue-time")),
        max_body=_size("--max-body", own("--max-body")),
        max_header=_header(own("--max-header")),
        grace=_seconds("--grace", own("--grace")),
        user=given["--user"][-1] if "--user" in given else None,
        log=_log(own("--log")),
    )
    plan = build(module, [os.fsencode(arg) for arg in args], flags, policy, environ)
    try:
        return server.main(plan.request, settings, f"wasisup/{wasisup()}")
    except ModuleNotFound as error:
        help_to_find(error, module)
        raise
    except InvalidModule as error:
        name_module(error, module)
        raise


def _log(text: str) -> "Any":
    if text not in _LOGS:
        raise UsageError(f"--log: {text!r} is not one of {', '.join(_LOGS)}")
    return text


def _header(text: str) -> int:
    size = _size("--max-header", text)
    if size is None or not _LEAST_HEADER <= size <= _MOST_HEADER:
        raise UsageError(f"--max-header: {text!r} is not between 1KiB and 1MiB")
    return size


def _count(flag: str, text: str, least: int) -> int:
    from ...policies.units import UnitError, parse_count

    try:
        value = 0 if text.strip() == "0" else parse_count(text)
    except UnitError as error:
        raise UsageError(f"{flag}: {error}") from None
    if not least <= value <= _MOST:
        raise UsageError(f"{flag}: {text!r} is not between {least} and {_MOST}")
    return value


def _size(flag: str, text: str) -> "int | None":
    from ...policies.units import UnitError, is_unlimited, parse_size

    if is_unlimited(text):
        return None
    try:
        return parse_size(text)
    except UnitError as error:
        raise UsageError(f"{flag}: {error}") from None


def _seconds(flag: str, text: str) -> float:
    from ...policies.units import UnitError, parse_duration

    if text.strip() == "0":
        return 0.0
    try:
        return parse_duration(text) / 1e9
    except UnitError as error:
        raise UsageError(f"{flag}: {error}") from None
