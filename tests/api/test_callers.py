"""Several callers: who sees, ends and may do what, and as whom runs run."""

from __future__ import annotations

import os

import pytest

from support.daemon import Daemon

from .conftest import OTHER

pytestmark = pytest.mark.usefixtures("root")
THIRD = 65533
GROUP = 65532


@pytest.fixture
def other(daemon: Daemon, api):
    """The API as an ordinary user of root's daemon."""
    return daemon.api(OTHER)


@pytest.fixture
def third(daemon: Daemon, api):
    """The API as one more."""
    return daemon.api(THIRD)


@pytest.fixture
def blocked(other):
    """A run of the other's that goes on."""
    run = other.start("stdio", "block", stdin={"open": True}, labels={"whose": "other"})
    other.ready(run)
    yield run
    other.ask("DELETE", f"/v1/runs/{run}")


def test_the_record_says_who(other):
    """uid and gid are the kernel's word on the connection."""
    run = other.run("hello")
    assert (run["uid"], run["gid"]) == (OTHER, OTHER)
    caller = other.get("/v1/info")["caller"]
    assert (caller["uid"], caller["groups"]) == (OTHER, [])
    assert caller["sees"] == caller["kills"] == "own"


def test_others_runs_are_not_there(other, third, blocked):
    """For anybody else, every way to somebody's run is a 404."""
    for run in (blocked, blocked[:8], other.run("hello")["id"]):
        target = f"/v1/runs/{run}"
        for method, path, body in (
            ("GET", target, None),
            ("DELETE", target, None),
            ("GET", f"{target}/wait", None),
            ("GET", f"{target}/logs", None),
            ("GET", f"{target}/stats", None),
            ("POST", f"{target}/signal", {"signal": "KILL"}),
            ("POST", f"{target}/stdin", b"x"),
        ):
            error = third.ask(method, path, body).refused(404)
            assert error["code"] == "not_found"
    assert other.get(f"/v1/runs/{blocked}")["state"] == "running"


def test_lists_are_ones_own(api, other, third, blocked):
    """Lists and figures are of what one may see; root sees all."""
    own = third.run("hello")["id"]
    for query in ("", "?state=running", "?label=whose", "?label=whose=other"):
        listed = [run["id"] for run in third.get(f"/v1/runs{query}")["runs"]]
        assert blocked not in listed
        assert (own in listed) == (query == "")
        assert blocked in [run["id"] for run in api.get(f"/v1/runs{query}")["runs"]]
    assert third.get("/v1/stats")["stats"] == []
    assert [one["id"] for one in api.get("/v1/stats")["stats"]] == [blocked]
    page = third.get(f"/v1/runs?before={blocked}")
    assert all(run["uid"] == THIRD for run in page["runs"])


def test_events_are_ones_own(api, other, third):
    """So are events."""
    with (
        third.connection() as mine,
        mine.begin("GET", "/v1/events?limit=2") as response,
        api.connection() as roots,
        roots.begin("GET", "/v1/events?limit=4&type=ended") as all_of_them,
    ):
        for caller in (other, third, other, third):
            caller.run("hello")
        lines = response.read().splitlines()
        everybodys = all_of_them.read()
    assert len(lines) == 2
    assert all(b'"uid":%d' % THIRD in line for line in lines)
    assert everybodys.count(b'"uid":%d' % OTHER) == 2


def test_root_ends_others_runs(api, blocked):
    """uid 0 may see and end all."""
    assert api.kill(blocked)["uid"] == OTHER


def test_one_who_sees_and_does_not_kill(make_daemon):
    """Whom the configuration lets see others' runs, and no more, is told so."""
    rights = [{"uids": [THIRD], "sees": "all"}, {"uids": [GROUP], "sees": "all", "kills": "all"}]
    daemon = make_daemon({"caller": rights})
    owner, onlooker, warden = daemon.api(OTHER), daemon.api(THIRD), daemon.api(GROUP)
    run = owner.start("stdio", "block", stdin={"open": True})
    owner.ready(run)
    assert onlooker.get(f"/v1/runs/{run}")["state"] == "running"
    assert onlooker.logs(run) == b"ready\n"
    for method, path, body in (
        ("DELETE", f"/v1/runs/{run}", None),
        ("POST", f"/v1/runs/{run}/signal", {}),
        ("POST", f"/v1/runs/{run}/stdin", b"x"),
    ):
        onlooker.ask(method, path, body).refused(403, "somebody else's")
    assert warden.kill(run)["state"] == "ended"


def test_rights_by_group(make_daemon):
    """A [[caller]] fits by primary or supplementary group."""
    daemon = make_daemon(
        {"default": {"serve": False}, "caller": [{"groups": [GROUP], "serve": True}]}
    )
    daemon.api(OTHER).ask("GET", "/v1/runs").refused(403)
    assert daemon.api(OTHER, GROUP).get("/v1/runs")["runs"] == []
    assert daemon.api(OTHER, OTHER, [1, GROUP]).get("/v1/runs")["runs"] == []


def test_whose_file_it_is(daemon, api, room):
    """A run writes as its caller: uid, gid, and with the supplementary groups."""
    groups = [GROUP, THIRD]
    caller = daemon.api(OTHER, 65530, groups)
    for name, owner, group, mode in (
        ("own", OTHER, 0, 0o700),
        ("group", 0, 65530, 0o770),
        ("supplementary", 0, GROUP, 0o770),
    ):
        folder = room / name
        folder.mkdir()
        os.chown(folder, owner, group)
        folder.chmod(mode)
        dirs = [{"path": str(folder), "guest": "/d"}]
        run = caller.run("tell", "write", "/d/file", "text", dirs=dirs)
        assert run["outcome"]["status"] == 0, (name, run["stderr"])
        made = (folder / "file").stat()
        assert (made.st_uid, made.st_gid) == (OTHER, 65530)
    stranger = daemon.api(THIRD)
    body = stranger.request("hello", dirs=[{"path": str(room / "group"), "guest": "/d"}])
    stranger.ask("POST", "/v1/runs", body).refused(403, "dirs[0]")


def test_a_module_is_ones_own(other, third):
    """Who has not seen a module's bytes cannot run it, nor learn that it is there."""
    data = other.programs["quota"].read_bytes()
    digest = other.ask("POST", "/v1/modules", data).ok(201)["digest"]
    third.ask("GET", f"/v1/modules/{digest}").refused(404)
    third.ask("DELETE", f"/v1/modules/{digest}").refused(404)
    body = third.request("", module={"digest": digest})
    assert third.ask("POST", "/v1/runs", body).refused(404)["code"] == "module_not_found"
    # Having it as well, and giving it up, takes nothing from the other.
    third.ask("POST", "/v1/modules", data).ok(201)
    third.ask("DELETE", f"/v1/modules/{digest}").ok(204)
    assert other.get(f"/v1/modules/{digest}")["stored"]
    assert other.run("", module={"digest": digest})["outcome"]["exit_code"] == 64
    other.ask("DELETE", f"/v1/modules/{digest}").ok(204)


def test_an_ordinary_users_daemon(core, base_env, programs, as_user, room):
    """It serves its user alone, and nobody else: not even root."""
    os.chown(room, OTHER, OTHER)
    env = {**base_env, **as_user.env, "TMPDIR": "/tmp"}
    daemon = Daemon(core, env, room, programs, prefix=as_user.prefix)
    os.chown(daemon.config, OTHER, OTHER)
    daemon.start()
    os.chmod(daemon.socket, 0o666)
    owner = daemon.api(OTHER)
    run = owner.run("hello")
    assert (run["stdout"], run["uid"]) == ("hello, world\n", OTHER)
    (room / "d").mkdir()
    os.chown(room / "d", OTHER, OTHER)
    dirs = [{"path": str(room / "d"), "guest": "/d"}]
    assert owner.run("tell", "write", "/d/f", "x", dirs=dirs)["outcome"]["status"] == 0
    assert (room / "d" / "f").stat().st_uid == OTHER
    for stranger in (daemon.api(), daemon.api(THIRD)):
        stranger.ask("GET", "/v1/runs").refused(403, "does not serve")
        stranger.ask("POST", "/v1/runs", stranger.request("hello")).refused(403)
    daemon.finish()
