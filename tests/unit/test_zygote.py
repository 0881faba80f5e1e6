"""The conversation with the zygote: its layout, and cores that do not keep to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support import mirror
from support.processes import children
from wasisup.runtime import zygote
from wasisup.supervisor.errors import SetupError


def program(path: Path, text: str) -> str:
    """An executable that stands in for the core."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def start(core: str) -> zygote.Zygote:
    return zygote.start(core, "/library.so", "1.2.3", ("cranelift",))


def test_layout_is_the_header_s(tmp_path: Path) -> None:
    """Magic, version and sizes are those of core/zygote/protocol.h."""
    if mirror.compiler() is None:
        pytest.skip("needs a C compiler")
    expected = {
        "ZYGOTE_MAGIC": zygote.MAGIC,
        "ZYGOTE_VERSION": zygote.VERSION,
        "ZYGOTE_NO_FD": zygote.NO_FD,
        "sizeof(struct zygote_hello)": zygote.HELLO_SIZE,
        "sizeof(struct zygote_request)": zygote.REQUEST_SIZE,
        "sizeof(struct zygote_answer)": zygote.ANSWER_SIZE,
    }
    assert mirror.values(list(expected), ["zygote/protocol.h"], tmp_path) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exit 7", "ended with status 7"),
        ("kill -KILL $$", "ended by signal 9"),
        ("printf nonsense >&3; exec sleep 100", "another protocol"),
    ],
)
def test_a_core_that_is_none(tmp_path: Path, text: str, words: str) -> None:
    """How it ended is said; nothing of it is left."""
    before = children(os.getpid())  # daemons that other tests share
    with start(program(tmp_path / "core", text)) as made, pytest.raises(SetupError, match=words):
        made.hello()
    assert children(os.getpid()) == before


def test_a_core_that_cannot_be_started(tmp_path: Path) -> None:
    """No such file, and no descriptor is lost."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises(SetupError, match="No such file"):
        start(str(tmp_path / "nothing"))
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_the_core_inherits_next_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment is empty: no LD_PRELOAD, no settings of an allocator."""
    monkeypatch.setenv("LD_BIND_NOT", "1")
    seen = tmp_path / "environment"
    core = program(tmp_path / "core", f"tr '\\0' '\\n' < /proc/$$/environ > {seen}; exit 1")
    with start(core) as made, pytest.raises(SetupError):
        made.hello()
    assert "LD_BIND_NOT" not in seen.read_text()
    assert "HOME" not in seen.read_text()


def test_leaving_twice_is_leaving_once(tmp_path: Path) -> None:
    """`close` after the end does nothing."""
    made = start(program(tmp_path / "core", "exec sleep 100"))
    made.close()
    made.close()
