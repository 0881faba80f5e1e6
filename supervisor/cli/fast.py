"""The quick parser of `wasisup run`, for command lines that are as they should be.

Importing click takes several times as long as everything else the command does.  So a well-formed
line is read here, from the same table; whatever this does not understand to the last word it
leaves to click, which knows how to say what is wrong, or to show the help.
"""

from .options import BY_FLAG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Parsed:
    """A command line of `run`, split but not yet read.

    values: by flag, in the order given; a flag without a value has an empty list's place taken by
    one empty string, so that its presence is truth.
    """

    __slots__ = ("args", "module", "values")

    def __init__(self, values: "dict[str, list[str]]", module: str, args: "list[str]") -> None:
        self.values = values
        self.module = module
        self.args = args


def parse(words: "Sequence[str]") -> "Parsed | None":  # noqa: PLR0911  (each gives up, or is done)
    """`words`: what follows `wasisup run`.  None: not for this parser, ask click."""
    values: dict[str, list[str]] = {}
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            if at == len(words):
                return None
            return Parsed(values, words[at], list(words[at + 1 :]))
        if not word.startswith("-") or word == "-":
            return Parsed(values, word, list(words[at:]))
        flag, equals, value = word.partition("=")
        option = BY_FLAG.get(flag)
        if option is None:
            return None
        if option.metavar is None:
            if equals:
                return None
        elif not equals:
            if at == len(words):
                return None
            value = words[at]
            at += 1
        if option.repeatable:
            values.setdefault(option.flag, []).append(value)
        else:
            values[option.flag] = [value]
    return None
