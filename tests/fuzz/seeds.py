"""Writes the fuzzers' seed corpus: real launch specs from the encoder that the supervisor uses.

Usage: python seeds.py FOLDER.  Each file is one byte (how many descriptors come along) and a spec.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

from wasisup.runtime import spec

ALLOW = bytes.fromhex("060000000000ff7f")  # one struct sock_filter


def _limits(writer: spec.SpecWriter) -> None:
    writer.limits(
        memory=1 << 28,
        cpu_ns=10**10,
        fds=64,
        file_size=None,
        output=1 << 24,
        fuel=None,
        table_elements=1 << 20,
        data_overhead=1 << 25,
    )


def _finish(writer: spec.SpecWriter) -> bytes:
    for stage in (1, 2):
        writer.filter(stage, ALLOW * stage)
    _limits(writer)
    return bytes([spec.FIRST_FD_INDEX + len(writer.fds)]) + writer.encode()


def networked_run() -> bytes:
    """A component with a broker, a resolver and names."""
    writer = spec.SpecWriter(spec.KIND_RUN, "cranelift")
    writer.form(spec.FORM_COMPONENT)
    writer.artifact(3)
    writer.broker(4)
    writer.resolver(5)
    writer.name("example.com", [(4, bytes(16)), (6, b"\1" * 16)])
    writer.name("nowhere.example", [])
    return _finish(writer)


def broker() -> bytes:
    """A broker with rules of all kinds."""
    writer = spec.SpecWriter(spec.KIND_BROKER, "cranelift")
    writer.broker(3)
    for family, prefix, low in ((4, 32, 80), (6, 0, 1)):
        writer.rule(
            SimpleNamespace(
                allow=True,
                actions=3,
                protocol=1,
                family=family,
                prefix=prefix,
                address=bytes(16),
                low=low,
                high=65535,
            )
        )
    return _finish(writer)


def plain_run() -> bytes:
    """As little as a run can have."""
    writer = spec.SpecWriter(spec.KIND_RUN, "cranelift")
    writer.argument("program.wasm")
    writer.stdio([0, 1, 2])
    writer.artifact(3)
    return _finish(writer)


def full_run() -> bytes:
    """Every field that a run can have."""
    writer = spec.SpecWriter(spec.KIND_RUN, "pulley")
    for word in ("program.wasm", "", "x" * 100, b"\xff\xfe"):
        writer.argument(word)
    writer.variable("HOME", "/")
    writer.variable("EMPTY", "")
    writer.directory(3, "/data", read_only=False)
    writer.directory(4, "/locked", read_only=True)
    writer.tmpfs("/tmp", 1 << 20)
    writer.listener(5, "127.0.0.1:80")
    writer.stdio([0, None, 2])
    writer.artifact(6)
    writer.invoke("main")
    writer.identity(1000, 1000, [4, 24, 27])
    writer.allow_missing(32)
    writer.umask(0o22)
    writer.clock_resolution(1_000_000)
    return _finish(writer)


def compilation() -> bytes:
    """A compile worker's."""
    writer = spec.SpecWriter(spec.KIND_COMPILE, "cranelift")
    writer.module(3)
    writer.output(4, 5)
    writer.threads(2)
    return _finish(writer)


SEEDS = {
    "plain-run": plain_run,
    "full-run": full_run,
    "networked-run": networked_run,
    "broker": broker,
    "compilation": compilation,
}


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in SEEDS.items():
        (folder / name).write_bytes(make())


if __name__ == "__main__":
    main()
