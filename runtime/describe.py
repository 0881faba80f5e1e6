"""A module's imports and exports, as the compile worker described them.

The format is that of core/engine/describe.c and, for components, describe_component.c.

The worker read untrusted bytes, so its description is untrusted too: it is decoded with bounds, and
names are made printable by whoever shows them.
"""

from ..supervisor.errors import InvalidModule
from ..supervisor.model import Shape

KINDS = ("function", "global", "table", "memory", "tag", "resource", "interface")
MAX_BYTES = 16 << 20
MAX_NAME = 1 << 20


class Import(Shape):
    """Something a module wants: kind is one of KINDS or "other"; type as in the core's text.

    For a component `module` is the interface, "" for what the world imports outside of one; kind
    "interface" is one that asks for nothing; type is WIT's, with every named type written out.
    """

    __slots__ = ("module", "name", "kind", "type")

    def __init__(self, module: str, name: str, kind: str, type: str) -> None:
        self.module = module
        self.name = name
        self.kind = kind
        self.type = type


class Export(Shape):
    """Something a module offers; kind and type as in Import.

    interface: of a component's export, "" for one of the world itself, and for modules.
    """

    __slots__ = ("name", "kind", "type", "interface")

    def __init__(self, name: str, kind: str, type: str, interface: str = "") -> None:
        self.interface = interface
        self.name = name
        self.kind = kind
        self.type = type


class World(Shape):
    """Stands before what a component imports and exports."""

    __slots__ = ()

    is_world = True


def decode(raw: bytes) -> "list[World | Import | Export]":
    """Decodes a description, in the module's order.

    Raises InvalidModule when it is longer than MAX_BYTES or not a description.
    """
    if len(raw) > MAX_BYTES:
        raise InvalidModule("the module's imports and exports are more than can be described")
    found: list[World | Import | Export] = []
    at = 0
    while at < len(raw):
        if at + 2 > len(raw):
            raise InvalidModule("the module's description is broken")
        what, kind = raw[at], _kind(raw[at + 1])
        at += 2
        module, at = _text(raw, at)
        name, at = _text(raw, at)
        type_text, at = _text(raw, at)
        if what == ord("i"):
            found.append(Import(module, name, kind, type_text))
        elif what == ord("e"):
            found.append(Export(name, kind, type_text, module))
        elif what == ord("c"):
            found.append(World())
        else:
            raise InvalidModule("the module's description is broken")
    return found


def _kind(number: int) -> str:
    return KINDS[number] if number < len(KINDS) else "other"


def _text(raw: bytes, at: int) -> "tuple[str, int]":
    length = int.from_bytes(raw[at : at + 4], "little")
    end = at + 4 + length
    if at + 4 > len(raw) or length > MAX_NAME or end > len(raw):
        raise InvalidModule("the module's description is broken")
    return raw[at + 4 : end].decode("utf-8", "backslashreplace"), end
