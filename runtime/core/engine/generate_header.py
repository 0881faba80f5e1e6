"""Writes the C header of libwasmtime from the engine wheel's own ctypes description.

The wheel carries the library and a generated ``_bindings.py`` but no headers.  A header made from
that description at build time cannot drift from the library that lies beside it.

The description is read as a syntax tree, never imported: building needs no loadable library.

Usage: ``generate_header.py WASMTIME_PACKAGE_DIR RELEASE OUTPUT``
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

SCALARS = {
    "c_bool": "bool",
    "c_byte": "int8_t",
    "c_char": "char",
    "c_ubyte": "uint8_t",
    "c_int8": "int8_t",
    "c_uint8": "uint8_t",
    "c_int16": "int16_t",
    "c_uint16": "uint16_t",
    "c_int": "int",
    "c_int32": "int32_t",
    "c_uint32": "uint32_t",
    "c_int64": "int64_t",
    "c_uint64": "uint64_t",
    "c_size_t": "size_t",
    "c_ssize_t": "ssize_t",
    "c_float": "float",
    "c_double": "double",
    "c_void_p": "void *",
    "None": "void",
}


class Unknown(Exception):
    """The description holds a form that this generator has not met."""


def name_of(node: ast.expr) -> str | None:
    """``ctypes.c_int`` and ``c_int`` alike; None for anything that is not a name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Constant) and node.value is None:
        return "None"
    return None


def declare(node: ast.expr, inner: str) -> str:
    """The C declaration of ``inner`` with the ctypes type ``node``."""
    name = name_of(node)
    if name is not None:
        return f"{SCALARS.get(name, name)} {inner}".strip()
    if isinstance(node, ast.Call) and name_of(node.func) == "POINTER":
        return declare(node.args[0], f"*{inner}")
    if isinstance(node, ast.Call) and name_of(node.func) == "CFUNCTYPE":
        params = ", ".join(declare(arg, "") for arg in node.args[1:]) or "void"
        return declare(node.args[0], f"(*{inner})({params})")
    if isinstance(node, ast.BinOp) and isinstance(node.right, ast.Constant):
        return declare(node.left, f"{inner}[{node.right.value!r}]")
    raise Unknown(ast.unparse(node))


def fields_of(body: list[ast.stmt]) -> list[ast.Tuple] | None:
    """The elements of ``_fields_``, or None for an opaque class."""
    for stmt in body:
        if isinstance(stmt, ast.Assign) and name_of(stmt.targets[0]) == "_fields_":
            assert isinstance(stmt.value, ast.List)
            return [field for field in stmt.value.elts if isinstance(field, ast.Tuple)]
    return None


class Header:
    """Collects declarations, then writes each record after those that it holds by value."""

    def __init__(self) -> None:
        self.constants: list[str] = []
        self.aliases: dict[str, tuple[str, str | None]] = {}  # name -> (declaration, aliased name)
        self.records: dict[str, tuple[str, list[ast.Tuple] | None]] = {}  # name -> (kind, fields)
        self.functions: dict[str, dict[str, ast.expr]] = {}
        self.done: set[str] = set()

    def read(self, path: Path) -> None:
        for stmt in ast.parse(path.read_text()).body:
            if isinstance(stmt, ast.ClassDef):
                self.record(stmt)
            elif isinstance(stmt, ast.Assign):
                self.assignment(stmt)

    def record(self, node: ast.ClassDef) -> None:
        base = name_of(node.bases[0]) if node.bases else None
        if base == "Enum" and node.name == "wasmtime_trap_code_enum":
            # The wheel counts from 1 with auto(); the library's C enumeration starts at 0.
            members = [name_of(s.targets[0]) for s in node.body if isinstance(s, ast.Assign)]
            self.constants.append("enum { " + ", ".join(filter(None, members)) + " };")
        elif base in ("Structure", "Union"):
            kind = "struct" if base == "Structure" else "union"
            self.records[node.name] = (kind, fields_of(node.body))

    def assignment(self, stmt: ast.Assign) -> None:
        target = stmt.targets[0]
        if isinstance(target, ast.Attribute):
            owner = name_of(target.value)
            assert owner is not None
            if target.attr in ("restype", "argtypes"):
                self.functions.setdefault(owner.lstrip("_"), {})[target.attr] = stmt.value
            elif target.attr == "_fields_":  # given after the class, for types that recurse
                self.records[owner] = (self.records[owner][0], fields_of([stmt]))
            return
        name = name_of(target)
        if name is None or not name.lower().startswith(("wasm", "wasi")):
            return
        value = stmt.value
        if name.isupper():
            if isinstance(value, ast.Call) and isinstance(value.args[0], ast.Constant):
                self.constants.append(f"#define {name} {value.args[0].value!r}")
        elif name_of(value) != name:
            self.aliases[name] = (f"typedef {declare(value, name)};", name_of(value))

    def types(self) -> list[str]:
        out = [f"typedef {kind} {name} {name};" for name, (kind, _) in self.records.items()]
        for name in [*self.aliases, *self.records]:
            self.emit(name, out)
        return out

    def emit(self, name: str, out: list[str]) -> None:
        if name in self.done:
            return
        self.done.add(name)
        if name in self.aliases:
            declaration, target = self.aliases[name]
            if target is not None:
                self.emit(target, out)
            out.append(declaration)
            return
        kind, fields = self.records.get(name, ("", None))
        if fields is None:
            return
        lines = []
        for field in fields:
            label, form = field.elts
            assert isinstance(label, ast.Constant)
            by_value = form.left if isinstance(form, ast.BinOp) else form
            held = name_of(by_value)
            if held is not None:
                self.emit(held, out)
            lines.append(f"  {declare(form, str(label.value))};")
        out.append(f"{kind} {name} {{\n" + "\n".join(lines) + "\n};")

    def render(self, release: str) -> str:
        out = [
            "/* Generated from the engine wheel's ctypes description. Do not edit. */",
            "#pragma once",
            "#include <stdbool.h>",
            "#include <stddef.h>",
            "#include <stdint.h>",
            "#include <sys/types.h>",
            f'#define WASMTIME_RELEASE "{release}"',
            *self.constants,
            *self.types(),
        ]
        for name, parts in self.functions.items():
            arguments = parts["argtypes"]
            assert isinstance(arguments, ast.List)
            params = ", ".join(declare(arg, "") for arg in arguments.elts) or "void"
            out.append(f"{declare(parts['restype'], f'{name}({params})')};")
        return "\n".join(out) + "\n"


def main() -> None:
    package, release, output = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    header = Header()
    header.read(package / "_ffi.py")
    header.read(package / "_bindings.py")
    if "wasmtime_module_deserialize_file" not in header.functions:
        raise SystemExit(f"{package}/_bindings.py does not describe libwasmtime")
    output.write_text(header.render(release))


if __name__ == "__main__":
    main()
