"""The classic programs: hello world and a file copy, in Rust and in C."""

from __future__ import annotations

from pathlib import Path

import pytest

NO_PREOPEN = 'failed to find a pre-opened file descriptor through which "foo.txt" could be opened'


@pytest.fixture(params=["rust", "c"])
def language(request):
    return request.param


@pytest.fixture
def hello(guests, language) -> Path:
    return getattr(guests, language)("hello")


@pytest.fixture
def copy(guests, language) -> Path:
    return getattr(guests, language)("copy")


@pytest.fixture
def here(room) -> Path:
    (room / "foo.txt").write_text("some text\n")
    return room


def test_hello_world_prints(wasisup, hello):
    """A hello world prints its line, nothing else, and ends with 0."""
    result = wasisup.run(hello).ok()
    assert (result.out, result.err) == (b"hello, world\n", b"")
    assert result.report["reason"] == "exit"
    assert result.report["exit_code"] == 0


def test_hello_world_prints_under_pulley(wasisup, hello):
    """The interpreter runs the same program."""
    result = wasisup.run("--engine", "pulley", hello).ok()
    assert result.out == b"hello, world\n"


def test_copy_without_a_directory_fails(wasisup, copy, here, language):
    """Without --dir nothing can be opened, and the hint names the flag that would change that."""
    result = wasisup.run(copy, "foo.txt", "bar.txt", cwd=here)
    assert result.status == 1
    if language == "rust":
        assert NO_PREOPEN in result.errors
    assert "--dir ." in result.errors
    assert not (here / "bar.txt").exists()
    assert any(denial["kind"] == "no_preopen" for denial in result.report["denials"])


def test_copy_with_the_directory_copies(wasisup, copy, here):
    """--dir=. is enough for a copy inside the current directory."""
    result = wasisup.run("--dir=.", copy, "foo.txt", "bar.txt", cwd=here).ok()
    assert (here / "bar.txt").read_text() == "some text\n"
    assert result.err == b""
    assert result.report["denials"] == []


def test_copy_into_a_second_directory(wasisup, copy, here, tmp_path):
    """Two grants serve a copy from one to the other, by their host paths."""
    wasisup.run(
        "--dir=.", f"--dir={tmp_path}", copy, "foo.txt", tmp_path / "bar.txt", cwd=here
    ).ok()
    assert (tmp_path / "bar.txt").read_text() == "some text\n"


def test_copy_under_another_name(wasisup, copy, here, tmp_path):
    """HOST::GUEST gives a directory another name inside."""
    wasisup.run(
        f"--dir={here}::/in", f"--dir={tmp_path}::/out", copy, "/in/foo.txt", "/out/bar.txt"
    ).ok()
    assert (tmp_path / "bar.txt").read_text() == "some text\n"


def test_read_only_refuses_the_write(wasisup, copy, here, language):
    """A ::ro grant reads, and answers EROFS to a write."""
    result = wasisup.run("--dir=.::ro", copy, "foo.txt", "bar.txt", cwd=here)
    assert result.status == 1
    assert "Read-only file system" in result.errors
    if language == "rust":
        assert "os error 69" in result.errors
    assert not (here / "bar.txt").exists()
    assert any(denial["kind"] == "read_only" for denial in result.report["denials"])
    assert "::rw" in result.errors or "::ro" in result.errors, "the hint names the grant"


def test_read_only_reads(wasisup, copy, here, tmp_path):
    """A read-only grant beside a writable one: the first is read, the second written."""
    wasisup.run(
        "--dir=.::.::ro", f"--dir={tmp_path}::/out::rw", copy, "foo.txt", "/out/x", cwd=here
    ).ok()
    assert (tmp_path / "x").read_text() == "some text\n"


def test_no_write_through_a_read_only_grant_of_a_parent(wasisup, copy, here):
    """A writable grant inside a read-only one stays writable, and the outer one read-only."""
    (here / "sub").mkdir()
    wasisup.run(
        "--dir=.::/all::ro", "--dir=sub::/sub", copy, "/all/foo.txt", "/sub/y", cwd=here
    ).ok()
    result = wasisup.run(
        "--dir=.::/all::ro", "--dir=sub::/sub", copy, "/all/foo.txt", "/all/sub/z", cwd=here
    )
    assert result.status == 1
    assert sorted(p.name for p in (here / "sub").iterdir()) == ["y"]


def test_a_copy_outside_the_grant_fails(wasisup, copy, here, tmp_path):
    """What was not granted cannot be named, neither absolutely nor by going up."""
    (tmp_path / "secret").write_text("secret")
    for path in (tmp_path / "secret", "../" + tmp_path.name + "/secret", "/etc/passwd"):
        result = wasisup.run("--dir=.", copy, path, "stolen", cwd=here)
        assert result.status == 1
        assert not (here / "stolen").exists()


def test_usage_of_the_program_reaches_it(wasisup, copy):
    """Arguments after the module are the program's, also those that look like ours."""
    result = wasisup.run(copy, "--help", "--dir=.", "x")
    assert result.status == 2
    assert "usage: copy.wasm FROM TO" in result.errors
