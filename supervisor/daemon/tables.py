"""TOML tables into typed Structs, with every problem of the file collected and its line found.

msgspec checks the types but stops at the first error and knows no lines; so each key is converted
by itself.  A field of the type `Annotated[..., unit("size")]` is written with the units of the
command line and read by `policies.units`.
"""

import difflib
import re
import tomllib
import types
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct, UnsetType

from ...policies import units
from ..errors import ConfigError

Where = tuple[str | int, ...]  # the keys on the way to a value, and the places in arrays
S = TypeVar("S", bound=Struct)

_HEADER = re.compile(r"\s*\[(\[?)\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*=""")
_PARSERS: dict[str, Any] = {
    "size": units.parse_size,
    "duration": units.parse_duration,
    "count": units.parse_count,
    "cpus": units.parse_cpus,
}
_FORMS = {
    "size": 'a size such as "64MiB", or bytes as a number',
    "duration": 'a time such as "1.5s", or seconds as a number',
    "count": "a whole number",
    "cpus": "a number such as 0.5",
}
_WORDS: dict[Any, str] = {
    str: "a string",
    int: "a whole number",
    bool: "true or false",
    list[str]: "a list of strings",
    list[int]: "a list of whole numbers",
    list[str | int]: "a list of strings or whole numbers",
}


def unit(kind: str, *, zero: bool = False, none: bool = False) -> Meta:
    """How a field is written: kind as in `policies.settings`.

    zero: whether 0 is a value.  none: whether "none" is one, which is read as None.
    """
    return Meta(extra={"kind": kind, "zero": zero, "none": none})


class Reader:
    """One file.  `problems` fills as sections are read; `finish` raises when there are any."""

    def __init__(self, path: str, text: str) -> None:
        """Raises ConfigError for what is not TOML at all."""
        self.path = path
        self.problems: list[str] = []
        try:
            self.table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: not TOML: {error}") from None
        self._lines = _find_lines(text)

    def section(self, kind: type[S], table: Any, where: Where = ()) -> S:
        """A Struct of `kind` from `table`; keys that cannot be read keep their defaults."""
        if not isinstance(table, dict):
            self.problem(where, f"must be a table: [{_dotted(where)}]")
            return kind()
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        values = {}
        for key, value in table.items():
            field = fields.get(key)
            if field is None:
                self.problem((*where, key), "there is no such key", _suggest(key, list(fields)))
                continue
            try:
                values[field.name] = self._value(field.type, value, (*where, key))
            except ValueError as error:
                self.problem((*where, key), str(error))
        return kind(**values)

    def problem(self, where: Where, text: str, hint: str | None = None) -> None:
        """Takes down what is wrong with the value at `where`."""
        line = f"line {self._line(where)}: " if self._line(where) else ""
        self.problems.append(f"{line}{_dotted(where)}: {text}" + (f" ({hint})" if hint else ""))

    def finish(self) -> None:
        """Raises ConfigError with all that was found, in the order of the file."""
        if len(self.problems) == 1:
            raise ConfigError(f"{self.path}: {self.problems[0]}")
        if self.problems:
            listed = sorted(self.problems, key=_line_number)
            raise ConfigError("\n".join([f"{self.path}: {len(listed)} problems", *listed]))

    def _value(self, kind: Any, value: Any, where: Where) -> Any:
        if isinstance(kind, type) and issubclass(kind, Struct):
            return self.section(kind, value, where)
        inner = get_args(kind)[0] if get_origin(kind) is list else None
        if isinstance(inner, type) and issubclass(inner, Struct):
            if not isinstance(value, list):
                raise ValueError(f"must be an array of tables: [[{_dotted(where)}]]")
            return [self.section(inner, item, (*where, at)) for at, item in enumerate(value)]
        kind = _without_unset(kind)
        if get_origin(kind) is Annotated:
            return _quantity(get_args(kind)[1].extra, value)
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError:
            raise ValueError(f"must be {_words(kind)}") from None

    def _line(self, where: Where) -> int:
        while where and where not in self._lines:
            where = where[:-1]
        return self._lines.get(where, 0)


def _quantity(extra: dict[str, Any], value: Any) -> Any:
    """A value with a unit: an int, a float of processors, or None.  Raises ValueError."""
    kind: str = extra["kind"]
    number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    real = isinstance(value, float) and 0 <= value < 1e10 and kind in ("duration", "cpus")
    if not (isinstance(value, str) or number or real):
        raise ValueError(f"must be {_FORMS[kind]}")
    if extra["none"] and isinstance(value, str) and units.is_unlimited(value):
        return None
    if extra["zero"] and re.fullmatch(r"0+[a-zA-Z]*", str(value).strip()):
        return 0
    return _PARSERS[kind](f"{value:.9f}" if isinstance(value, float) else str(value))


def _without_unset(kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        kinds = tuple(one for one in get_args(kind) if one is not UnsetType)
        return Union[kinds]  # noqa: UP007  # made of a tuple
    return kind


def _words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(f'"{value}"' for value in get_args(kind))
    return _WORDS[kind]


def _dotted(where: Where) -> str:
    """`caller.ceilings.memory`; which of the callers it is, the line says."""
    return ".".join(part for part in where if isinstance(part, str))


def _suggest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key.lower().replace("_", "-"), known, 1)
    return f"did you mean {near[0]}?" if near else f"the keys are {', '.join(known)}"


def _line_number(problem: str) -> int:
    found = re.match(r"line (\d+): ", problem)
    return int(found[1]) if found else 0


def _find_lines(text: str) -> dict[Where, int]:
    """On which line each table and key stands, as far as it can be told without a parser."""
    lines: dict[Where, int] = {}
    arrays: dict[Where, int] = {}
    here: Where = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            parts = _parts(header[2])
            here = ()
            for at, part in enumerate(parts, 1):
                here += (part,)
                if header[1] and at == len(parts):
                    arrays[here] = arrays.get(here, -1) + 1
                if here in arrays:
                    here += (arrays[here],)
            lines.setdefault(here, number)
        elif key := _KEY.match(line):
            lines.setdefault((*here, *_parts(key[1])), number)
    return lines


def _parts(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in dotted.split(".")]
