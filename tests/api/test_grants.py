"""What a run is granted: directories, scratch space, and as whom it uses them."""

from __future__ import annotations

import os
import socket
import stat

import pytest


@pytest.fixture
def shelf(room):
    """A directory with a file in it."""
    (room / "a.txt").write_text("it\n")
    return room


@pytest.fixture(params=["path", "fd"])
def grant(request, shelf):
    """Grants the shelf by path, or by a descriptor that comes along; gives (grant, descriptors)."""
    fds = []

    def make(**more):
        if request.param == "path":
            return {"path": str(shelf), "guest": "/shelf", **more}, []
        fds.append(os.open(shelf, os.O_PATH | os.O_DIRECTORY))
        return {"fd": 0, "guest": "/shelf", **more}, fds

    yield make
    for fd in fds:
        os.close(fd)


def test_reading(api, grant):
    """A file in a granted directory can be read."""
    directory, fds = grant()
    run = api.run("tell", "show", "/shelf/a.txt", dirs=[directory], fds=fds)
    assert run["stdout"] == "it\n"


def test_the_record_of_a_grant(api, grant, shelf):
    """The record says what was granted; of a descriptor, what the kernel calls it."""
    directory, fds = grant(read_only=True)
    run = api.run("hello", dirs=[directory], fds=fds)
    assert run["grants"]["dirs"] == [{"host": str(shelf), "guest": "/shelf", "read_only": True}]


def test_writing(api, grant, shelf):
    """A file is made with the request's umask, as the caller."""
    directory, fds = grant()
    args = ["write", "/shelf/b.txt", "text"]
    api.run("tell", *args, dirs=[directory], fds=fds, umask=0o022)
    made = (shelf / "b.txt").stat()
    assert (shelf / "b.txt").read_text() == "text\n"
    assert (made.st_uid, made.st_gid) == (os.getuid(), os.getgid())
    assert stat.S_IMODE(made.st_mode) == 0o644


def test_the_default_umask(api, grant, shelf):
    """Without a umask files are the caller's alone."""
    directory, fds = grant()
    api.run("tell", "write", "/shelf/b.txt", "x", dirs=[directory], fds=fds)
    assert stat.S_IMODE((shelf / "b.txt").stat().st_mode) == 0o600


def test_read_only(api, grant, shelf):
    """A read-only grant can be read and not written."""
    directory, fds = grant(read_only=True)
    run = api.run("tell", "write", "/shelf/b.txt", "x", dirs=[directory], fds=fds)
    assert run["outcome"]["status"] == 1
    assert "Read-only file system" in run["stderr"]
    assert api.run("tell", "show", "/shelf/a.txt", dirs=[directory], fds=fds)["stdout"] == "it\n"


def test_nothing_else(api, shelf):
    """Without a grant there is no file."""
    run = api.run("tell", "show", str(shelf / "a.txt"))
    assert run["outcome"]["status"] == 1
    assert run["stdout"] == ""


def test_scratch_space(api):
    """Scratch space is writable, and in the record with its size."""
    run = api.run("tell", "write", "/t/x", "text", tmpfs=[{"guest": "/t", "size": "1MiB"}])
    assert run["outcome"]["status"] == 0
    assert run["grants"]["tmpfs"] == [{"guest": "/t", "size": 1 << 20}]


def test_many_directories(api, room):
    """As many directories as a request may have, each with its own name."""
    names = [f"/d{at}" for at in range(50)]
    for name in names:
        (room / name[1:]).mkdir()
        (room / name[1:] / "f").write_text(name)
    dirs = [{"path": f"{room}{name}", "guest": name, "read_only": True} for name in names]
    assert api.run("tell", "show", "/d49/f", dirs=dirs)["stdout"] == "/d49"


@pytest.mark.parametrize("guest", ["/shelf/", "/shelf"])
def test_a_name_is_granted_once(api, shelf, guest):
    """Two grants under one name are refused."""
    dirs = [{"path": str(shelf), "guest": "/shelf"}, {"path": str(shelf), "guest": guest}]
    api.ask("POST", "/v1/runs", api.request("hello", dirs=dirs)).refused(422, "twice")


def test_no_directory(api, shelf):
    """What is no directory is refused, with its place in the request."""
    for path, words in ((shelf / "a.txt", "not a directory"), (shelf / "no", "no such file")):
        dirs = [{"path": str(path), "guest": "/d"}]
        error = api.ask("POST", "/v1/runs", api.request("hello", dirs=dirs)).refused(422, words)
        assert error["message"].startswith("dirs[0]")


def test_a_listening_socket(api):
    """A listening socket that comes along is in the record; a connected or other one is refused."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        listens = [{"fd": 0, "name": "http"}]
        run = api.run("hello", listens=listens, fds=[server.fileno()])
        assert run["grants"]["listens"] == [f"127.0.0.1:{port}"]
    body = api.request("hello", listens=listens)
    for family in (socket.AF_UNIX, socket.AF_INET):
        with socket.socket(family) as sock:
            answer = api.ask("POST", "/v1/runs", body, fds=[sock.fileno()])
            answer.refused(422, "listens[0]")


def test_the_compile_cache_is_out_of_reach(api, cache_root, core):
    """A directory from which a guest could change what later runs trust is refused."""
    if core == "fake":
        pytest.skip("the fake core has no cache")
    body = api.request("hello", dirs=[{"path": str(cache_root), "guest": "/c"}])
    api.ask("POST", "/v1/runs", body).refused(422, "cache")
    body = api.request("hello", dirs=[{"path": "/var/tmp", "guest": "/c"}])
    api.ask("POST", "/v1/runs", body).refused(422, "cache")
