"""A run that may only read: everything answers, and nothing needs a system call that changes."""

from __future__ import annotations

import pytest

READ = {
    *("path_open", "fd_read", "fd_pread", "fd_seek", "fd_tell", "fd_filestat_get"),
    *("fd_fdstat_get", "fd_fdstat_set_flags", "fd_advise", "fd_readdir", "path_filestat_get"),
    *("path_readlink", "fd_sync", "fd_datasync", "fd_close"),
}
SUCCESS, EBADF, EXIST, ISDIR, NOENT, NOTDIR, ROFS, NOTCAPABLE = 0, 8, 20, 31, 44, 54, 69, 76


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
def test_every_function_answers(wasisup, guests, room, engine) -> None:
    """Reading succeeds; what would change something is refused before it reaches the kernel, where
    the filter of such a run would end it."""
    (room / "file").write_text("content")
    (room / "dir").mkdir()
    (room / "link").symlink_to("file")
    before = sorted(path.name for path in room.iterdir())
    program = guests.c("read_only")
    result = wasisup.run(f"--engine={engine}", f"--dir={room}::/d::ro", program).ok()
    assert "content" in result.text
    answers = [line.rpartition(" ") for line in result.text.splitlines() if line[-1:].isdigit()]
    assert len(answers) == 12 + 2 * 7 + 15 + 1
    for name, _, number in answers:
        if name in READ:
            assert int(number) == SUCCESS, name
        elif name.endswith("set_times") or name.startswith("path_"):
            assert int(number) in (ROFS, NOENT, ISDIR, NOTDIR), name
        else:
            assert int(number) in (ROFS, NOTCAPABLE, EBADF, NOTDIR), name
    assert sorted(path.name for path in room.iterdir()) == before
    assert (room / "file").read_text() == "content"
    assert result.report["reason"] == "exit"
