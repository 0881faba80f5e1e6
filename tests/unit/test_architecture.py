"""The direction of dependencies, read from the imports and the #includes themselves."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "runtime" / "core"

# Lower floors never import higher ones; modules of one floor may use each other.
PYTHON_FLOORS = (
    (
        "supervisor.errors",
        "supervisor.model",
        "supervisor.places",
        "supervisor.sealed",
        "supervisor.steps",
    ),
    ("supervisor.wire", "supervisor.shapes"),
    ("policies",),
    ("runtime",),
    ("supervisor",),
    ("supervisor.daemon", "supervisor.serve"),
    ("supervisor.client",),
    ("supervisor.cli",),
)
# What the client may know: it is a library for others, and takes none of the supervisor with it.
CLIENTS = ("errors", "model", "places", "shapes", "wire", "client")
# Which folders of the core a folder's files may include.
C_ROOMS = {
    "base": {"base"},
    "spec": {"base", "spec"},
    "jail": {"base", "spec", "jail"},
    "opener": {"base", "spec", "jail", "opener"},
    "network": {"base", "spec", "network"},
    "wasi": {"base", "wasi"},
    "engine": {"base", "spec", "wasi", "engine"},
}


def modules() -> Iterator[tuple[str, Path]]:
    for folder in ("supervisor", "runtime", "policies"):
        for path in (ROOT / folder).rglob("*.py"):
            relative = path.relative_to(ROOT)
            if relative.parts[:2] == ("runtime", "core") or relative.name == "front.py":
                continue
            parts = [*relative.parts[:-1], relative.stem]
            yield ".".join(part for part in parts if part != "__init__"), path


def floor(module: str) -> int:
    fits = [
        (len(name), level)
        for level, names in enumerate(PYTHON_FLOORS)
        for name in names
        if module == name or module.startswith(name + ".")
    ]
    return max(fits)[1]


def is_for_types(node: ast.stmt) -> bool:
    """Names that only the type checker sees bind nothing at run time."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imported(module: str, path: Path) -> Iterator[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if not is_for_types(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = package.split(".")
            base = parts[: len(parts) - node.level + 1]
            yield ".".join([*base, *([node.module] if node.module else [])])


@pytest.mark.parametrize(("module", "path"), sorted(modules()), ids=str)
def test_python_imports_point_downwards(module: str, path: Path) -> None:
    """errors and model, the API's types, policies, runtime, supervisor, daemon, client, command."""
    for target in imported(module, path):
        if target and target.split(".")[0] in ("supervisor", "runtime", "policies"):
            assert floor(target) <= floor(module), f"{module} imports {target}"


def test_only_embedded_talks_to_the_runtime() -> None:
    """One door between supervisor and runtime: what else knows the runtime is part of that door."""
    doors = set()
    for module, path in modules():
        if floor(module) >= floor("supervisor.x") and any(
            target.split(".")[0] == "runtime" for target in imported(module, path)
        ):
            doors.add(module)
    assert not {door for door in doors if door.startswith("supervisor.cli")}, doors


def test_the_client_knows_only_the_api() -> None:
    """The SDK imports errors, model and the API's types, and neither daemon nor runtime."""
    allowed = tuple(f"supervisor.{name}" for name in CLIENTS)
    for module, path in modules():
        if module.startswith("supervisor.client"):
            for target in imported(module, path):
                assert target == "supervisor" or target.startswith(allowed), (module, target)


@pytest.mark.parametrize("side", ["daemon", "serve"])
def test_one_door_to_a_service(side: str) -> None:
    """The command line becomes a daemon, or a server, by one module, and knows nothing else of it;

    nor do the two know each other.
    """
    doors = {
        module
        for module, path in modules()
        if not module.startswith(f"supervisor.{side}")
        for target in imported(module, path)
        if target.startswith(f"supervisor.{side}")
    }
    assert doors == {f"supervisor.cli.{side}"}


@pytest.mark.parametrize("room", sorted(C_ROOMS))
def test_core_includes_point_downwards(room: str) -> None:
    """base <- spec <- jail, base <- wasi, and engine above them; jail and wasi never meet.

    The network knows neither: what a trapped call comes to is handed to the jail as a function.
    """
    for path in (CORE / room).glob("*.[ch]"):
        for included in re.findall(r'#include "([^"]+)"', path.read_text()):
            folder = included.rpartition("/")[0]
            assert not folder or folder in C_ROOMS[room], f"{path.name} includes {included}"
