"""The launch spec's encoder, against its own frame and against the core's decoder."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support import mirror
from support.needs import unavailable
from wasisup.runtime import spec

LIMITS = {
    "memory": 64 << 20,
    "cpu_ns": None,
    "fds": 64,
    "file_size": 1 << 30,
    "output": None,
    "fuel": None,
    "table_elements": 1000,
    "data_overhead": 1 << 20,
}

# Prints what core/spec/spec.c makes of the message on stdin.
DECODER = r"""
#include <stdio.h>
#include "spec/spec.h"
static struct ws_spec s;
static uint8_t bytes[WS_SPEC_MAX_BYTES + 1];
static void text(const char *what, struct ws_bytes b) {
  printf("%s %.*s\n", what, (int)b.len, b.bytes);
}
int main(void) {
  struct ws_error e = {0};
  size_t len = fread(bytes, 1, sizeof bytes, stdin);
  if (ws_spec_decode(&s, bytes, len, 12, &e)) {
    printf("refused %s\n", e.detail);
    return 1;
  }
  printf("kind %u engine %u\n", s.kind, s.engine);
  for (size_t i = 0; i < s.arg_count; i++) text("arg", s.args[i]);
  for (size_t i = 0; i < s.env_count; i++) text("env", s.env[i]);
  for (size_t i = 0; i < s.preopen_count; i++) {
    struct ws_preopen_spec *p = &s.preopens[i];
    printf("preopen %u %d %u %llu ", p->source, (int)p->fd_index, p->flags,
           (unsigned long long)p->size);
    text("name", p->name);
  }
  printf("stdio %d %d %d\n", (int)s.stdio[0], (int)s.stdio[1], (int)s.stdio[2]);
  printf("artifact %d module %d output %d description %d\n", (int)s.artifact, (int)s.module,
         (int)s.output, (int)s.description);
  printf("filters %u %u\n", s.filter[0].len, s.filter[1].len);
  const struct ws_limits *l = &s.limits;
  printf("limits %lld %lld %lld %lld %lld %lld %lld %lld\n", (long long)l->memory,
         (long long)l->cpu_ns, (long long)l->fds, (long long)l->file_size, (long long)l->output,
         (long long)l->fuel, (long long)l->table_elements, (long long)l->data_overhead);
  text("invoke", s.invoke);
  printf("identity %d %u %u %zu %u\n", s.has_identity, s.uid, s.gid, s.group_count, s.groups[1]);
  printf("missing %u umask %o clock %llu threads %u\n", s.allow_missing, s.umask,
         (unsigned long long)s.clock_resolution_ns, s.threads);
  return 0;
}
"""


def whole_run() -> spec.SpecWriter:
    writer = spec.SpecWriter(spec.KIND_RUN, "pulley")
    writer.argument("prog")
    writer.argument(b"\xff raw")
    writer.variable("KEY", "a=b")
    writer.stdio((10, None, 11))
    writer.artifact(12)
    writer.limits(**LIMITS)
    assert writer.directory(13, "/data", read_only=True) == 0
    assert writer.tmpfs("/tmp", 1 << 20) == 1
    assert writer.listener(14, "localhost:80") == 2
    writer.invoke("add")
    writer.identity(1000, 1001, [4, 5])
    writer.allow_missing(0b100000)
    writer.umask(0o27)
    writer.clock_resolution(1_000_000)
    writer.filter(1, bytes(16))
    writer.filter(2, bytes(8))
    return writer


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core's own decoder as a program."""
    if mirror.compiler() is None:
        unavailable("a C compiler")
    folder = tmp_path_factory.mktemp("spec")
    return mirror.compile_c(DECODER, folder, ["spec/spec.c", "base/error.c"])


def decoded(core: Path, message: bytes) -> list[str]:
    done = subprocess.run([str(core)], input=message, capture_output=True, check=False)
    return done.stdout.decode(errors="surrogateescape").splitlines()


def test_constants_are_the_header_s(tmp_path: Path) -> None:
    """Tags, limits and enums are those of core/spec/spec.h."""
    if mirror.compiler() is None:
        unavailable("a C compiler")
    expected = {f"WS_{name}": value for name, value in vars(spec).items() if name[:4] == "TAG_"}
    for name in ("MAX_BYTES", "MAX_ARGS", "MAX_PREOPENS", "MAX_GROUPS", "MAX_FDS"):
        expected[f"WS_SPEC_{name}"] = getattr(spec, name)
    expected |= {"WS_SPEC_NO_FD": spec.NO_FD, "WS_UNLIMITED": spec.UNLIMITED}
    expected |= {"WS_KIND_RUN": spec.KIND_RUN, "WS_KIND_COMPILE": spec.KIND_COMPILE}
    expected |= {f"WS_ENGINE_{name.upper()}": value for name, value in spec.ENGINES.items()}
    for name in ("SOURCE_DIR", "SOURCE_TMPFS", "SOURCE_LISTENER", "PREOPEN_READ_ONLY"):
        expected[f"WS_{name}"] = getattr(spec, name)
    assert mirror.values(list(expected), ["spec/spec.h"], tmp_path) == expected


def test_the_core_reads_what_is_written(core: Path) -> None:
    """Every field of a run arrives; descriptors are numbered in the order they were named."""
    writer = whole_run()
    assert writer.fds == [10, 11, 12, 13, 14]
    assert decoded(core, writer.encode()) == [
        "kind 0 engine 1",
        "arg prog",
        "arg \udcff raw",
        "env KEY=a=b",
        "preopen 0 5 1 0 name /data",
        "preopen 1 -1 0 1048576 name /tmp",
        "preopen 2 6 0 0 name localhost:80",
        "stdio 2 -1 3",
        "artifact 4 module -1 output -1 description -1",
        "filters 2 1",
        "limits 67108864 -1 64 1073741824 -1 -1 1000 1048576",
        "invoke add",
        "identity 1 1000 1001 2 5",
        "missing 32 umask 27 clock 1000000 threads 1",
    ]


def test_the_core_reads_a_compile(core: Path) -> None:
    """What a compile worker is told."""
    writer = spec.SpecWriter(spec.KIND_COMPILE, "cranelift")
    writer.limits(**LIMITS)
    writer.module(5)
    writer.output(6, 7)
    writer.threads(1000)
    lines = decoded(core, writer.encode())
    assert "artifact -1 module 2 output 3 description 4" in lines
    assert lines[-1].endswith("threads 256")


def test_the_core_refuses_a_damaged_spec(core: Path) -> None:
    """Every prefix is refused, and so is a message with something appended."""
    message = whole_run().encode()
    for length in range(0, len(message), 7):
        assert decoded(core, message[:length])[0].startswith("refused")
    assert decoded(core, message + b"\0")[0].startswith("refused")


def test_the_frame() -> None:
    """decode_fields gives back what was written, and refuses a broken frame."""
    message = whole_run().encode()
    fields = list(spec.decode_fields(message))
    assert (spec.TAG_ARG, b"prog") in fields
    assert len(fields) == int.from_bytes(message[12:16], "little")
    for broken in (b"", message[:-1], b"X" + message[1:]):
        with pytest.raises(spec.SpecError):
            list(spec.decode_fields(broken))


def test_the_same_descriptor_twice_is_handed_over_twice() -> None:
    """stdout and stderr of one terminal: each use owns its copy."""
    writer = spec.SpecWriter(spec.KIND_RUN, "cranelift")
    writer.stdio((1, 1, 1))
    assert writer.fds == [1, 1, 1]


def test_text_with_a_nul_is_refused() -> None:
    """No string of a spec may hold a NUL."""
    writer = spec.SpecWriter(spec.KIND_RUN, "cranelift")
    for attempt in (
        lambda: writer.argument("a\0b"),
        lambda: writer.variable("A", "b\0"),
        lambda: writer.invoke("\0"),
        lambda: writer.tmpfs("/a\0", 1),
    ):
        with pytest.raises(spec.SpecError, match="NUL"):
            attempt()


def test_what_does_not_fit_is_refused() -> None:
    """Too many arguments, preopens, groups, descriptors or bytes."""
    writer = spec.SpecWriter(spec.KIND_RUN, "cranelift")
    for _ in range(spec.MAX_PREOPENS):
        writer.tmpfs("/t", 1)
    for _ in range(spec.MAX_ARGS):
        writer.argument("")
    for attempt in (
        lambda: writer.tmpfs("/t", 1),
        lambda: writer.argument(""),
        lambda: writer.variable("A", ""),
        lambda: writer.identity(0, 0, range(spec.MAX_GROUPS + 1)),
        lambda: [writer.artifact(fd) for fd in range(spec.MAX_FDS)],
    ):
        with pytest.raises(spec.SpecError, match="more than"):
            attempt()
    large = spec.SpecWriter(spec.KIND_RUN, "cranelift")
    large.argument(b"x" * spec.MAX_BYTES)
    with pytest.raises(spec.SpecError, match="fit"):
        large.encode()


def test_sizes_beyond_64_bits_are_no_limit() -> None:
    """A quota that no machine can reach is as good as none."""
    writer = spec.SpecWriter(spec.KIND_RUN, "cranelift")
    writer.limits(**{**LIMITS, "memory": 1 << 80})
    ((_, payload),) = [f for f in spec.decode_fields(writer.encode()) if f[0] == spec.TAG_LIMITS]
    assert payload[:8] == b"\xff" * 8
