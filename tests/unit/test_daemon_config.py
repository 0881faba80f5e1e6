"""The daemon's configuration file: what may stand in it, who may write it, what callers get."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from wasisup.supervisor.daemon import config, config_file, machine
from wasisup.supervisor.daemon.access import Caller
from wasisup.supervisor.errors import ConfigError

ME = os.geteuid()
STRANGER = 54321
MIB = 1 << 20
SECOND = 10**9


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A place for a file that only this user can write."""
    tmp_path.chmod(0o700)
    return tmp_path / "wasisup.toml"


def load(file: Path, text: str, uid: int = ME) -> config.Config:
    file.write_text(text)
    file.chmod(0o600)
    return config.load(str(file), uid=uid)


def problems(file: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(file, text)
    return caught.value.message.splitlines()


def test_nothing_is_needed(tmp_path: Path) -> None:
    """Without a file at the default place there are defaults, from the machine's figures."""
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    environ["XDG_STATE_HOME"] = "/state"
    got = config.load(uid=STRANGER, environ=environ)
    assert (got.path, got.warnings, got.callers) == (None, (), ())
    assert got.socket == f"{tmp_path}/wasisup/wasisup.sock"
    assert (got.state, got.socket_mode, got.socket_gid) == ("/state/wasisup", 0o660, None)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert got.limits.runs == (1000 if hard < 0 else max(1, min(1000, hard // 8)))
    assert got.limits.memory == int(machine.memory_size() * 0.75)
    assert (got.limits.queued, got.limits.drain) == (1024, 30 * SECOND)


def test_default_places() -> None:
    """root's are the system's; a user's follow XDG, relative paths ignored."""
    assert config.default_path(0) == "/etc/wasisup/wasisup.toml"
    assert config.default_socket(0) == "/run/wasisup/wasisup.sock"
    assert config.default_state(0) == "/var/lib/wasisup"
    environ = {"HOME": "/home/u", "XDG_CONFIG_HOME": "x", "XDG_STATE_HOME": "/s"}
    assert config.default_path(1, environ) == "/home/u/.config/wasisup/wasisup.toml"
    assert config.default_state(1, environ) == "/s/wasisup"
    assert config.default_socket(STRANGER, environ) == "/s/wasisup/wasisup.sock"


def test_an_explicit_file_has_to_be_there(tmp_path: Path) -> None:
    """A slip in --config must not become the defaults."""
    with pytest.raises(ConfigError, match="there is no file"):
        config.load(str(tmp_path / "none.toml"))


def test_every_key(file: Path) -> None:
    """Everything of the form, with units."""
    got = load(
        file,
        """
        socket = "/s"
        socket-mode = "0600"
        state = "/var/x"
        [limits]
        runs = 12
        queued = 0
        memory = "3GiB"
        compiles = 4
        drain = 1.5
        kept-output = "1KiB"
        cache = "2GiB"
        [records]
        keep = "1h"
        size = 1000
        [log]
        level = "debug"
        format = "json"
        [default]
        runs = 3
        serve = false
        [default.ceilings]
        memory = "64MiB"
        cpus = 1.5
        """,
    )
    assert (got.socket, got.socket_mode, got.state) == ("/s", 0o600, "/var/x")
    limits = (12, 0, 3 << 30, 4, 1500000000, 1024, 2 << 30)
    assert tuple(getattr(got.limits, name) for name in got.limits.__struct_fields__) == limits
    assert (got.records.keep, got.records.size) == (3600 * SECOND, 1000)
    assert (got.log.level, got.log.format) == ("debug", "json")
    access = got.access(Caller(STRANGER, STRANGER))
    assert (access.runs, access.queued, access.serve) == (3, 256, False)
    assert access.ceilings == {"memory": 64 * MIB, "cpus": 1.5}


def test_the_shipped_example_is_the_defaults(file: Path) -> None:
    """systemd/wasisup.toml, as it is and with every setting switched on."""
    text = (Path(__file__).parents[2] / "systemd/wasisup.toml").read_text()
    assert not load(file, text).callers
    lines = [line.removeprefix("#") for line in text.splitlines() if line[:2] != "# "]
    got = load(file, "\n".join(line for line in lines if "socket-group" not in line), 0)
    plain = config.load(str(file), uid=0)
    assert got.limits == plain.limits
    assert got.records == config.Records()
    assert got.log == config.Log()
    assert got.default.runs == 64
    assert len(got.callers) == 1


def test_all_problems_at_once(file: Path) -> None:
    """Each with its line and key, in the order of the file."""
    text = (
        'socket-mode = "0999"\nsockt = "/x"\nstate = "here"\n'
        '[limits]\nruns = "many"\nmemory = "2 parsecs"\nkept-output = -1\n'
        "[[caller]]\nuids = [1]\n"
        '[[caller]]\nusers = ["root", "no-such-user"]\nsees = "everything"\nuids = ["x"]\n'
        '[caller.ceilings]\ntimeout = "1x"\nrun = 1\n'
        '[[caller]]\ngroups = ["no-such-group"]\nruns = true\n'
        "[[caller]]\nserve = 1\n"
    )
    first, *rest = problems(file, text)
    assert first == f"{file}: {len(rest)} problems"
    expected = [
        "line 1: socket-mode: '0999' is no mode; write it like \"0660\"",
        "line 2: sockt: there is no such key (did you mean socket?)",
        "line 3: state: 'here' is not an absolute path",
        "line 5: limits.runs: 'many' is not a whole number",
        "line 6: limits.memory: '2 parsecs' is not a size",
        "line 7: limits.kept-output: must be a size such as",
        "line 11: caller.users: there is no user 'no-such-user'",
        'line 12: caller.sees: must be one of "own", "all"',
        "line 13: caller.uids: must be a list of whole numbers",
        "line 15: caller.ceilings.timeout: '1x' is not a time",
        "line 16: caller.ceilings.run: there is no such key",
        "line 18: caller.groups: there is no group 'no-such-group'",
        "line 19: caller.runs: must be a whole number",
        "line 20: caller: is about nobody",
        "line 21: caller.serve: must be true or false",
    ]
    assert len(rest) == len(expected), rest
    for line, start in zip(rest, expected, strict=True):
        assert line.startswith(start), line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("runs = ", "not TOML"),
        ("[caller]\nuids = [1]", r"line 1: caller: must be an array of tables: \[\[caller\]\]"),
        ("limits = 3", r"line 1: limits: must be a table: \[limits\]"),
        ("default = { runs = 0 }", "line 1: default.runs: '0' is too small"),
        ("[default]\nceilings.memory = true", "line 2: default.ceilings.memory: must be a size"),
    ],
)
def test_what_is_no_configuration(file: Path, text: str, words: str) -> None:
    """One problem is one line, with the file in front."""
    with pytest.raises(ConfigError, match=words) as caught:
        load(file, text)
    assert caught.value.message.startswith(f"{file}: ")


def test_files_that_others_can_change(file: Path) -> None:
    """Neither the file nor its directory may be writable by others, and a FIFO is none."""
    load(file, "")
    file.chmod(0o666)
    with pytest.raises(ConfigError, match="other users can change it"):
        config.load(str(file))
    file.chmod(0o600)
    file.parent.chmod(0o777)
    with pytest.raises(ConfigError, match="other users can change it"):
        config.load(str(file))
    file.parent.chmod(0o700)
    file.unlink()
    os.mkfifo(file, 0o600)
    with pytest.raises(ConfigError, match="not a regular file"):
        config.load(str(file))


@pytest.mark.skipif(ME != 0, reason="only root can give a file away")
def test_somebody_elses_file(file: Path) -> None:
    """It is not used, by root least of all."""
    load(file, "")
    os.chown(file, STRANGER, STRANGER)
    with pytest.raises(ConfigError, match="can change it") as caught:
        config.load(str(file), uid=0)
    assert "must belong to root" in str(caught.value.hint)


def test_not_utf8_and_too_large(file: Path) -> None:
    """Both are said plainly."""
    file.write_bytes(b"# \xff")
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="not UTF-8 at byte 2"):
        config.load(str(file))
    file.write_bytes(b"#" * (config_file.MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="is no configuration"):
        config.load(str(file))


def test_first_caller_that_fits(file: Path) -> None:
    """By uid, user, primary or supplementary group; what is left out is the default's."""
    got = load(
        file,
        """
        [default]
        runs = 7
        policies = ["pure"]
        [default.ceilings]
        memory = "1GiB"
        timeout = "1h"
        [[caller]]
        uids = [1000]
        runs = 1
        [[caller]]
        users = ["root"]
        groups = [2000]
        runs = 2
        policies = ["*"]
        [caller.ceilings]
        memory = "none"
        fds = 10
        [[caller]]
        uids = [1000, 1001]
        runs = 3
        sees = "all"
        net = "policies"
        """,
        uid=0,
    )
    runs = {
        Caller(1000, 5): 1,
        Caller(1001, 5): 3,
        Caller(1001, 5, (6, 2000)): 2,
        Caller(1002, 2000): 2,
        Caller(0, 0): 2,
        Caller(1003, 5): 7,
    }
    assert {caller: got.access(caller).runs for caller in runs} == runs
    second = got.access(Caller(1002, 2000))
    assert second.ceilings == {"timeout": 3600 * SECOND, "fds": 10}
    assert second.allows_policy("anything")
    default = got.access(Caller(1003, 5))
    assert default.ceilings == {"memory": 1 << 30, "timeout": 3600 * SECOND}
    assert default.allows_policy("pure")
    assert not default.allows_policy("default")
    assert got.access(Caller(1001, 5)).sees == "all"
    assert (got.access(Caller(1001, 5)).net, default.net) == ("policies", "any")
    assert got.access(Caller(1001, 5)).kills == "own"


def test_access_is_remembered(file: Path) -> None:
    """It is asked for each request; the pid makes no difference."""
    got = load(file, "")
    assert got.access(Caller(1, 2, (3,), 4)) is got.access(Caller(1, 2, (3,), 5))


def test_who_sees_all(file: Path) -> None:
    """root and the daemon's own user, whatever [default] says, unless a [[caller]] does."""
    got = load(file, '[default]\nsees = "own"\nkills = "own"\n', uid=0)
    assert got.access(Caller(0, 0)).sees == got.access(Caller(0, 0)).kills == "all"
    assert got.access(Caller(1000, 0)).sees == "own"
    got = load(file, '[[caller]]\nuids = [0]\nkills = "own"\n', uid=0)
    assert (got.access(Caller(0, 0)).sees, got.access(Caller(0, 0)).kills) == ("all", "own")


def test_a_users_daemon_serves_nobody_else(tmp_path: Path) -> None:
    """Not even root: it could not run workers as anybody else."""
    got = config.load(uid=STRANGER, environ={"XDG_CONFIG_HOME": str(tmp_path), "HOME": "/h"})
    assert got.access(Caller(STRANGER, 1)).serve
    assert got.access(Caller(STRANGER, 1)).sees == "all"
    assert not got.access(Caller(0, 0)).serve
    assert not got.access(Caller(STRANGER + 1, 1)).serve


def test_unknown_policies_are_a_warning(file: Path) -> None:
    """They may be written later."""
    got = load(file, '[default]\npolicies = ["pure", "nope", "*"]\n')
    assert got.warnings == ("there is no policy 'nope'",)


def test_what_a_reload_cannot_change(file: Path) -> None:
    """The names of the keys, as in the file."""
    old = load(file, 'socket = "/a"\n')
    assert old.needs_restart(load(file, 'socket = "/a"\n[limits]\nruns = 1\n')) == []
    assert old.needs_restart(load(file, 'socket = "/b"\nsocket-mode = "0600"\n')) == [
        "socket",
        "socket-mode",
    ]


def test_memory_of_the_machine(tmp_path: Path) -> None:
    """The machine's, when no control group leaves less."""
    (tmp_path / "meminfo").write_text("MemTotal:       1024 kB\nMemFree:  1 kB\n")
    assert machine.memory_size(str(tmp_path / "meminfo"), str(tmp_path)) == MIB
