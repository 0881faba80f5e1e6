"""How the daemon starts: with whom it shares nothing, and who hears of it."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from support.chaos import Service, Wire, begin, subreaper
from wasisup.supervisor.client.sync import Client
from wasisup.supervisor.errors import ApiError


def test_a_living_daemon_keeps_its_socket(service, room, base_env):
    """A second daemon at the same path says that there is one, and takes nothing away."""
    daemon = service()
    second = Service(base_env, room)
    second.state = room / "other"
    second.config = room / "other.toml"
    second.configure("")
    second.arguments = ["--socket", daemon.socket, "--config", str(second.config)]
    second.log_path = room / "second"
    second.spawn()
    assert second.wait() == 125
    assert "another daemon answers there" in second.log()
    with daemon.client() as client:
        assert client.health().status == "ok"


def test_a_state_directory_is_one_daemons(service, room, base_env):
    """A second daemon with the same state is refused, and leaves no socket."""
    service()
    second = Service(base_env, room)
    second.socket = str(room / "second.sock")
    second.arguments = ["--socket", second.socket, "--config", str(second.config)]
    second.log_path = room / "second"
    second.spawn()
    assert second.wait() == 125
    assert "is another daemon's" in second.log()
    assert not os.path.exists(second.socket)


def test_a_dead_socket_is_replaced(service):
    """What a killed daemon left at its path is no obstacle."""
    daemon = service()
    assert daemon.kill() == set()
    assert os.path.exists(daemon.socket)
    daemon.start()
    with daemon.client() as client:
        assert client.health().status == "ok"


def test_socket_activation(service, guests, room):
    """A socket from the service manager is served, with what waited in it, and stays at the end."""
    path = str(room / "handed.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        with Wire(path) as early:
            early.send("GET", "/v1/healthz")
            daemon = service(listener=listener)
            assert early.receive() == (200, {"status": "ok", "message": ""})
        assert not os.path.exists(daemon.socket)
        with Client(path) as client:
            assert client.run(guests.c("stdio"), ["exit", "4"]).exit_code == 4
        assert daemon.stop() == 0
        with Wire(path) as early:
            early.send("GET", "/v1/healthz")
            daemon.start()
            assert early.receive()[0] == 200


def test_notices(service):
    """The service manager hears of every step, with a line for its status."""
    daemon = service()
    assert f"STATUS=serving {daemon.socket}" in daemon.notices.seen[-1]
    daemon.stop()
    daemon.start(WATCHDOG_USEC="200000")
    for _ in range(3):
        assert daemon.hear("WATCHDOG=1") == ["WATCHDOG=1"]
    daemon.signal(signal.SIGHUP)
    assert "STATUS=reloading" in daemon.hear("RELOADING=1")
    assert "STATUS=reloaded" in daemon.hear("READY=1")
    daemon.signal(signal.SIGTERM)
    stopping = daemon.hear("STOPPING=1")
    assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in stopping)
    assert daemon.wait() == 0


def test_an_ordinary_user_without_configuration(guests, room, base_env, as_user_prefix):
    """Nothing but XDG_RUNTIME_DIR and a home is needed, and only that user is served."""
    uid = 65534 if as_user_prefix else os.getuid()
    for name in ("home", "run"):
        (room / name).mkdir()
        os.chown(room / name, uid, -1)
        os.chmod(room / name, 0o700)
    env = {**base_env, "HOME": str(room / "home"), "XDG_RUNTIME_DIR": str(room / "run")}
    del env["WASISUP_CACHE_DIR"]
    daemon = Service(env, room, prefix=as_user_prefix)
    daemon.arguments = []
    daemon.env["XDG_CONFIG_HOME"] = str(room / "home" / ".config")
    daemon.socket = str(room / "run" / "wasisup" / "wasisup.sock")
    with subreaper() as left:
        with daemon:
            if as_user_prefix:
                with daemon.client() as client, pytest.raises(ApiError) as refused:
                    client.runs()
                assert refused.value.status == 403
            else:
                with daemon.client() as client:
                    run = begin(client, guests.c("stdio"), "spin")
                    assert client.kill(run).outcome.reason == "killed"
            assert os.stat(daemon.socket).st_uid == uid
            assert (room / "home" / ".local/state/wasisup/records.db").stat().st_uid == uid
        assert left() == []


@pytest.fixture
def as_user_prefix() -> tuple[str, ...]:
    """For root: what makes a command an ordinary user's."""
    if os.getuid() != 0:
        return ()
    return ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
