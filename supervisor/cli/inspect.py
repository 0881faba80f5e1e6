"""`wasisup inspect`: what a module imports, in words, and the least that could serve it."""

import os

from ...policies.units import format_size
from .. import embedded
from ..errors import DaemonUnavailable, InvalidModule, ModuleNotFound
from . import needs as needs_of
from .needs import Needs
from .needs import needs_of as sort_out
from .run import help_to_find, name_module
from .term import BOLD, RED, YELLOW, out, out_json, out_painted, table

# A compiler may export every function it has.
SHOWN_EXPORTS = 20
# A component's world may name a hundred functions of one interface.
SHOWN_NAMES = 16
ID_DIGITS = 16  # hexadecimal, of a whole one


def inspect(name: str, socket: "str | None", *, as_json: bool, as_toml: bool) -> int:
    """Prints what a module needs, or a daemon's record of a run.  Raises WasisupError.

    Returns 126 when the module imports something that nothing here offers, else 0.
    """
    if not as_toml and not os.path.lexists(name) and (socket is not None or _is_id(name)):
        from . import runs

        try:
            if runs.inspect(socket, name, as_json):
                return 0
        except DaemonUnavailable:
            if socket is not None:
                raise
        raise ModuleNotFound(f"{name}: no such module, and no such run")
    return _module(name, as_json=as_json, as_toml=as_toml)


def _is_id(name: str) -> bool:
    return 0 < len(name) <= ID_DIGITS and all(c in "0123456789abcdef" for c in name)


def _module(module: str, *, as_json: bool, as_toml: bool) -> int:
    try:
        needs = sort_out(embedded.describe(module, "cranelift"))
    except ModuleNotFound as error:
        help_to_find(error, module)
        raise
    except InvalidModule as error:
        name_module(error, module)
        raise
    if as_toml:
        out(needs.policy(os.path.basename(module)).rstrip("\n"))
    elif as_json:
        out_json(_as_data(module, needs))
    else:
        _as_words(module, needs)
    return 0 if needs.runs else 126


def _kind(needs: Needs) -> str:
    if needs.is_command:
        return "command"
    if needs.server:
        return "server"
    return "reactor" if needs.is_reactor else "library"


def _as_data(module: str, needs: Needs) -> "dict[str, object]":
    return {
        "schema": 1,
        "module": os.path.abspath(module),
        "form": needs.form,
        "kind": _kind(needs),
        "wasi": {group: names for group, names in needs.groups.items() if names},
        "unknown_imports": [
            {"module": module_name, "name": name, "kind": kind}
            for module_name, name, kind in needs.unknown
        ],
        "exported_functions": [{"name": name, "type": type} for name, type in needs.functions],
        "memories": [
            {
                "how": how,
                "type": type,
                "minimum": needs_of.memory_range(type)[0],
                "maximum": needs_of.memory_range(type)[1],
            }
            for how, type in needs.memories
        ],
        "policy": needs.settings(),
        "command": needs.command_line(module),
    }


def _as_words(module: str, needs: Needs) -> None:
    kinds = {
        "command": "a command: `run` calls its start function",
        "server": "a server: it answers HTTP requests, and `run` has nothing to call",
        "reactor": "a reactor: it is initialised, and then --invoke calls one of its exports",
        "library": "no start function: --invoke calls one of its exports",
    }
    rows = [("module", os.path.abspath(module)), ("kind", kinds[_kind(needs)])]
    rows += [("memory", _memory(how, text)) for how, text in needs.memories]
    if needs.form == "component":
        rows.insert(1, ("form", "component (WASI 0.2)"))
    elif not needs.memories:
        rows.append(("memory", "none"))
    for line in table(rows):
        out(line)
    _section("It could use")
    used = [(group, _names(names)) for group, names in needs.groups.items() if names]
    for line in table(used) or ["nothing: it imports no function of WASI"]:
        out("  " + line)
    if needs.unknown:
        out()
        out_painted("It cannot run: nothing here offers these imports", RED)
        for line in table([(kind, f"{where} {name}") for where, name, kind in needs.unknown]):
            out("  " + line)
    if needs.invokable:
        _section("Exported functions")
        for line in table(needs.functions[:SHOWN_EXPORTS]):
            out("  " + line)
        if len(needs.functions) > SHOWN_EXPORTS:
            out(f"  and {len(needs.functions) - SHOWN_EXPORTS} more (--json lists them)")
    if needs.server and not needs.runs:
        return
    _section("The least that could serve it")
    out("  " + needs.command_line(module))
    for note in needs.notes:
        out_painted(f"  # {note}", YELLOW)


def _names(names: "list[str]") -> str:
    shown = " ".join(names[:SHOWN_NAMES])
    more = len(names) - SHOWN_NAMES
    return shown if more <= 0 else f"{shown} and {more} more (--json lists them)"


def _section(title: str) -> None:
    out()
    out_painted(title, BOLD)


def _memory(how: str, text: str) -> str:
    least, most = needs_of.memory_range(text)
    limit = f"at most {format_size(most)}" if most is not None else "no maximum of its own"
    extra = ", 64-bit" if text.startswith("i64") else ""
    extra += ", shared" if " shared " in text else ""
    return f"{how}, starts with {format_size(least)}, {limit}{extra}"
