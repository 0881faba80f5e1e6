"""Grants as text, and requests built from defaults, a policy and flags."""

from pathlib import Path

import pytest

from wasisup.policies.build import Given, build
from wasisup.policies.grants import (
    GrantError,
    guest_key,
    parse_dir,
    parse_env,
    parse_listen,
    parse_tmpfs,
    parse_walls,
)
from wasisup.supervisor.errors import UsageError
from wasisup.supervisor.model import DirGrant, ListenGrant, Quotas, RunRequest, TmpfsGrant

MIB = 1 << 20


def request(**flags: list[str]) -> RunRequest:
    """A request from flags, written with underscores."""
    given = {
        key.replace("_", "-"): [Given(text, f"--{key.replace('_', '-')}") for text in texts]
        for key, texts in flags.items()
    }
    return build("m.wasm", [], given, environ={"HOME": "/home/me"}).request


@pytest.mark.parametrize(
    ("text", "grant"),
    [
        (".", DirGrant(".", ".", False)),
        ("/tmp", DirGrant("/tmp", "/tmp", False)),
        ("/tmp::ro", DirGrant("/tmp", "/tmp", True)),
        ("/tmp::rw", DirGrant("/tmp", "/tmp", False)),
        ("a::/b", DirGrant("a", "/b", False)),
        ("a::/b::ro", DirGrant("a", "/b", True)),
        ("a::./ro", DirGrant("a", "./ro", False)),
        ("a:b", DirGrant("a:b", "a:b", False)),
    ],
)
def test_directories(text: str, grant: DirGrant) -> None:
    """HOST[::GUEST][::ro|::rw], and the guest's name is HOST as typed."""
    assert parse_dir(text) == grant


@pytest.mark.parametrize("text", ["", "::/b", "a::", "a::b::c", "a::b::ro::rw", "::ro"])
def test_bad_directories_show_the_form(text: str) -> None:
    """Each message shows how to write it."""
    with pytest.raises(GrantError, match="write it like HOST"):
        parse_dir(text)


def test_tmpfs() -> None:
    """GUEST[:SIZE], 64 MiB unless said otherwise."""
    assert parse_tmpfs("/tmp") == TmpfsGrant("/tmp", 64 * MIB)
    assert parse_tmpfs("/tmp:1MiB") == TmpfsGrant("/tmp", MIB)
    with pytest.raises(GrantError, match="not a size"):
        parse_tmpfs("/tmp:big")
    with pytest.raises(GrantError, match="names no guest directory"):
        parse_tmpfs(":1MiB")


def test_listeners() -> None:
    """HOST:PORT, brackets for IPv6."""
    assert parse_listen("127.0.0.1:80") == ListenGrant("127.0.0.1", 80)
    assert parse_listen("[::1]:8080") == ListenGrant("::1", 8080)
    for text in ("80", ":80", "h:", "h:x", "h:0", "h:65536", "::1:80", "[::1]", "h:-1", "[h]:80"):
        with pytest.raises(GrantError):
            parse_listen(text)


def test_variables_and_walls() -> None:
    """K=V keeps everything after the first `=`; walls go by name."""
    assert parse_env("A=b=c") == ("A", "b=c")
    assert parse_env("A=") == ("A", "")
    assert parse_env("A") == ("A", None)
    with pytest.raises(GrantError, match="names no variable"):
        parse_env("=x")
    assert parse_walls("landlock, cache") == ["landlock", "cache"]
    with pytest.raises(GrantError, match="what can is namespaces, network"):
        parse_walls("landlok")


def test_no_grant_has_a_nul() -> None:
    """A NUL would cut the name short in the kernel."""
    for parse in (parse_dir, parse_tmpfs, parse_env):
        with pytest.raises(GrantError, match="NUL"):
            parse("a\0b")


def test_guest_names_that_are_the_same() -> None:
    """However they are written."""
    assert guest_key("/tmp/") == guest_key("//tmp") == guest_key("/tmp/./") == "/tmp"
    assert guest_key(".") == guest_key("./") == "."


def test_defaults() -> None:
    """What a run gets when nothing is said."""
    got = request()
    assert got.quotas == Quotas(
        memory=256 * MIB,
        cpu_time=10 * 10**9,
        timeout=30 * 10**9,
        fds=64,
        file_size=64 * MIB,
        output=16 * MIB,
        fuel=None,
    )
    assert (got.engine, got.policy, got.clock_resolution) == ("cranelift", "default", 0)
    assert not got.dirs
    assert not got.env


def test_quotas_take_none() -> None:
    """But for descriptors, which always have a limit."""
    got = request(memory=["none"], cpu_time=["unlimited"], timeout=["none"], output=["none"])
    assert got.quotas.memory is got.quotas.cpu_time is got.quotas.timeout is None
    with pytest.raises(UsageError, match="--fds: there is always a limit"):
        request(fds=["none"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"memory": ["64"]}, "--memory: '64' is too small: one page of .* is 64KiB"),
        ({"memory": ["64QB"]}, "--memory: '64QB' is not a size; write it like 64MiB"),
        ({"memory": ["0"]}, "'none' takes the limit away"),
        ({"timeout": ["0s"]}, "--timeout: '0s' leaves no time to run in"),
        ({"cpu_time": ["1ns"]}, "--cpu-time: '1ns' is too small: the least .* is 1ms"),
        ({"fds": ["2"]}, "--fds: '2' is too small: stdin, stdout and stderr are 3"),
        ({"fds": ["99999999"]}, "--fds: '99999999' is too large"),
        ({"engine": ["v8"]}, "--engine: 'v8' is not an engine"),
        ({"invoke": [""]}, "--invoke: it is empty"),
        ({"dir": ["/no/such"]}, "--dir: there is no directory '/no/such'"),
        ({"dir": ["/dev/null"]}, "--dir: '/dev/null' is not a directory"),
        ({"dir": [".", "./"]}, "two directories would have the name"),
        ({"dir": ["."], "tmpfs": ["."]}, "two directories would have the name"),
        ({"dir": ["."], "fds": ["3"]}, "--fds: 3 descriptors are too few: .* takes 4"),
        ({"allow_missing": ["moat"]}, "--allow-missing: 'moat' cannot be missing"),
    ],
)
def test_what_makes_no_sense_is_refused(flags: dict[str, list[str]], message: str) -> None:
    """With the flag and the reason."""
    with pytest.raises(UsageError, match=message):
        request(**flags)


def test_scalars_are_replaced_and_the_last_variable_wins() -> None:
    """A flag given twice counts once."""
    got = request(memory=["1MiB", "2MiB"], env=["A=1", "B=2", "A=3"])
    assert got.quotas.memory == 2 * MIB
    assert got.env == [("A", "3"), ("B", "2")]


def test_the_callers_variables_are_passed_by_name_only() -> None:
    """One that the caller lacks is left out, and the plan says so."""
    given = {"env": [Given("HOME", "--env"), Given("NOPE", "--env")]}
    plan = build("m.wasm", [], given, environ={"HOME": "/h", "SECRET": "x"})
    assert plan.request.env == [("HOME", "/h")]
    assert plan.missing_env == ["NOPE"]


def test_a_file_for_a_directory_names_its_directory(tmp_path: Path) -> None:
    """Only directories can be granted, and the hint says which."""
    file = tmp_path / "foo.txt"
    file.touch()
    with pytest.raises(UsageError) as caught:
        request(dir=[str(file)])
    assert caught.value.hint is not None
    assert f"--dir {tmp_path}" in caught.value.hint
