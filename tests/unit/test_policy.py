"""Policy files: where they are found, what may stand in them, and whom they bind."""

import itertools
import os
from pathlib import Path

import pytest

from wasisup.policies import policy as policies
from wasisup.policies import settings
from wasisup.policies.build import Given, build
from wasisup.policies.settings import SETTINGS
from wasisup.supervisor.errors import PolicyError, UsageError
from wasisup.supervisor.model import RunRequest

SHIPPED = ("default", "pure", "service")


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment whose own policies are in an empty directory."""
    (tmp_path / "wasisup" / "policies").mkdir(parents=True)
    return {"XDG_CONFIG_HOME": str(tmp_path)}


def write(home: dict[str, str], name: str, text: str) -> Path:
    path = Path(home["XDG_CONFIG_HOME"], "wasisup", "policies", f"{name}.toml")
    path.write_text(text)
    path.chmod(0o600)
    return path


def request(wanted: str, environ: dict[str, str] | None = None, **flags: str) -> RunRequest:
    given = {key: [Given(text, f"--{key}")] for key, text in flags.items()}
    environ = environ or {}
    return build("m.wasm", [], given, policies.load(wanted, environ), environ).request


def test_without_a_home_there_are_no_policies_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """And none from a directory that is called `~`."""
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert policies.directories({}) == [policies.SYSTEM, policies.SHIPPED]


def test_default_says_what_is_built_in() -> None:
    """A run without --policy reads no file: the file and the constants must agree."""
    assert request("default") == build("m.wasm", [], {}).request


def test_default_spells_out_every_setting() -> None:
    """It is what people copy; only what has no default is left out."""
    loaded = policies.load("default", {})
    assert set(SETTINGS) - set(loaded.values) == {"invoke", "argv0"}
    assert settings.TMPFS_SIZE == 64 << 20


@pytest.mark.parametrize("name", SHIPPED)
def test_every_line_of_a_shipped_policy_has_a_comment(name: str) -> None:
    """A reader learns from the file why it says what it says."""
    lines = Path(policies.SHIPPED, f"{name}.toml").read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if line and not line.startswith("#"):
            assert before.startswith("#"), line
    assert policies.load(name, {}).description


def test_pure_refuses_files_by_name() -> None:
    """Also when a flag asks for them."""
    got = request("pure")
    assert got.clock_resolution == 10**6
    assert not got.dirs
    for key, text in (("dir", "."), ("tmpfs", "/tmp"), ("tcplisten", "127.0.0.1:80")):
        with pytest.raises(UsageError, match=f"--{key}: policy 'pure' allows none"):
            request("pure", None, **{key: text})


def test_service_has_no_time_quotas() -> None:
    """It runs until it is told to stop."""
    got = request("service")
    assert got.quotas.cpu_time is None
    assert got.quotas.timeout is None
    assert got.policy == "service"


def test_flags_override_scalars_and_add_to_lists(home: dict[str, str]) -> None:
    """Defaults, then the policy, then the flags."""
    write(home, "mine", 'dir = ["/usr::ro"]\nmemory = "1MiB"\nfds = 7\nenv = ["A=1", "B=1"]\n')
    got = request("mine", home, dir="/tmp", memory="2MiB", env="A=2")
    assert [grant.host for grant in got.dirs] == ["/usr", "/tmp"]
    assert got.quotas.memory == 2 << 20
    assert got.quotas.fds == 7
    assert got.env == [("A", "2"), ("B", "1")]


def test_numbers_are_bytes_and_seconds(home: dict[str, str]) -> None:
    """TOML has numbers, so they may be used."""
    write(home, "mine", "memory = 1048576\ntimeout = 2\ncpu-time = 0.5\n")
    got = request("mine", home)
    assert (got.quotas.memory, got.quotas.timeout) == (1 << 20, 2 * 10**9)
    assert got.quotas.cpu_time == 5 * 10**8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\nmemroy = 1\n", r"mine\.toml: line 2: memroy: there is no such key"),
        ("dir = true\n", "line 1: dir: must be a list of strings, or false"),
        ("dir = [1]\n", "line 1: dir: must be a list of strings"),
        ("memory = [1]\n", "line 1: memory: must be a size"),
        ("memory = true\n", "line 1: memory: must be a size"),
        ("memory = false\n", "line 1: memory: must be a size"),
        ("memory = -1\n", "line 1: memory: must be a size"),
        ("timeout = inf\n", "line 1: timeout: must be a time"),
        ("engine = 1\n", "line 1: engine: must be a string"),
        ("description = 1\n", "description: must be a string"),
        ('[memory]\nx = "1"\n', "line 1: memory: must be a size"),
        ("memory = \n", "not TOML: .*line 1"),
        ('memory = "64XB"\n', "line 1: memory: '64XB' is not a size"),
        ('timeout = "0s"\n', "line 1: timeout: '0s' leaves no time"),
        ('engine = "v8"\n', "line 1: engine: 'v8' is not an engine"),
        ('dir = ["/no/such"]\n', "line 1: dir: there is no directory"),
    ],
)
def test_mistakes_name_file_line_and_key(home: dict[str, str], text: str, message: str) -> None:
    """A policy that is wrong is an error, and never half a policy."""
    write(home, "mine", text)
    with pytest.raises(PolicyError, match=message):
        request("mine", home)


def test_a_near_miss_is_suggested(home: dict[str, str]) -> None:
    """cpu_time is what a programmer types."""
    write(home, "mine", 'cpu_time = "1s"\n')
    with pytest.raises(PolicyError) as caught:
        request("mine", home)
    assert caught.value.hint == "did you mean cpu-time?"


def test_the_users_own_policy_comes_first(home: dict[str, str]) -> None:
    """A name stands for the first file on the way."""
    path = write(home, "service", 'description = "mine"\n')
    assert policies.names(home)["service"] == str(path)
    assert policies.load("service", home).description == "mine"


def test_an_unknown_name_lists_the_known(home: dict[str, str]) -> None:
    """And says how a file is named."""
    with pytest.raises(PolicyError, match="no policy 'nope'") as caught:
        policies.load("nope", home)
    assert caught.value.hint is not None
    assert "default, pure, service" in caught.value.hint


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    """Each with its own words."""
    with pytest.raises(PolicyError, match="No such file"):
        policies.load(str(tmp_path / "x.toml"))
    (tmp_path / "x.toml").write_bytes(b"\xff")
    (tmp_path / "x.toml").chmod(0o600)
    with pytest.raises(PolicyError, match="not UTF-8"):
        policies.load(str(tmp_path / "x.toml"))
    with pytest.raises(PolicyError, match=r"cannot read|not a regular file"):
        policies.load(f"{tmp_path}/")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root refuses")
def test_root_refuses_a_policy_that_others_can_change(home: dict[str, str]) -> None:
    """Whoever can write the file could grant himself root's files."""
    path = write(home, "mine", "fds = 7\n")
    path.chmod(0o664)
    with pytest.raises(PolicyError, match="other users can change it"):
        policies.load("mine", home)
    path.chmod(0o644)
    path.parent.chmod(0o777)
    with pytest.raises(PolicyError, match="other users can change it"):
        policies.load("mine", home)


def test_others_are_warned(home: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is their own files that are at stake."""
    write(home, "mine", "fds = 7\n").chmod(0o666)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert "can be changed by other users" in policies.load("mine", home).warnings[0]
