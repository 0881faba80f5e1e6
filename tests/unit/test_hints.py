"""From how a run ended to the flag that would have helped."""

from pathlib import Path
from typing import Any

import pytest

from wasisup.runtime.describe import Import
from wasisup.supervisor import upkeep
from wasisup.supervisor.cli.hints import hints
from wasisup.supervisor.cli.words import ending
from wasisup.supervisor.model import (
    Denial,
    DirGrant,
    ListenGrant,
    NetGrant,
    Outcome,
    Quotas,
    RunRequest,
    Usage,
)

MIB = 1 << 20
SECOND = 10**9
NO_PREOPEN = Denial("no_preopen", 1, 8, "")


def outcome(reason: str = "exit", status: int = 1, **fields: Any) -> Outcome:
    return Outcome(reason=reason, status=status, **fields)


def request(*args: str, **fields: Any) -> RunRequest:
    fields.setdefault("quotas", Quotas(memory=256 * MIB, cpu_time=10 * SECOND, timeout=30 * SECOND))
    return RunRequest(module="m.wasm", args=args, **fields)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a file, a directory and a link out of it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foo.txt").touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "etc").symlink_to("/etc")
    return tmp_path


def test_a_run_that_ended_well_has_no_hints(here: Path) -> None:
    """Whatever it was denied on the way."""
    assert hints(outcome(status=0, denials=[NO_PREOPEN]), request("foo.txt")) == []


def test_the_classic(here: Path) -> None:
    """A file here, and nothing granted."""
    found = hints(outcome(denials=[NO_PREOPEN]), request("foo.txt", "bar.txt"))
    assert found == ["it was granted no directory; for 'foo.txt': --dir ."]


def test_no_flag_that_the_policy_refuses(here: Path) -> None:
    """`--policy pure --dir .` would be an error."""
    ended = outcome(denials=[NO_PREOPEN])
    assert hints(ended, request("foo.txt"), forbidden=("dir", "tmpfs")) == []


def test_two_places_in_one_hint(here: Path) -> None:
    """The copy of the tutorial, from here to /tmp."""
    found = hints(outcome(denials=[NO_PREOPEN]), request("foo.txt", "/tmp/bar.txt"))
    assert found == [
        "it was granted no directory; for 'foo.txt' and '/tmp/bar.txt': --dir . --dir /tmp"
    ]


def test_a_path_outside_of_what_was_granted(here: Path) -> None:
    """With `--dir .` the file here is not the trouble."""
    found = hints(outcome(), request("foo.txt", "/tmp/bar.txt", dirs=[DirGrant(".", ".")]))
    assert found == ["'/tmp/bar.txt' is outside of what it was granted: --dir /tmp"]


def test_nothing_is_missing(here: Path) -> None:
    """All paths are granted: the trouble is elsewhere, and no hint is better than a wrong one."""
    dirs = [DirGrant(".", "."), DirGrant("/tmp", "/tmp/")]
    assert hints(outcome(), request("foo.txt", "sub/new", "/tmp/x", dirs=dirs)) == []
    assert hints(outcome(), request("foo.txt", dirs=[DirGrant(".", "/")])) == []


@pytest.mark.parametrize(
    ("arg", "flags"),
    [
        ("--file=foo.txt", "--dir ."),
        ("in=/usr/lib", "--dir /usr/lib"),
        ("../x", "--dir .."),
        ("/usr/lib/x", "--dir /usr/lib"),
        ("./foo.txt", "--dir ."),
        ("sub", "--dir ."),
    ],
)
def test_what_counts_as_a_path(here: Path, arg: str, flags: str) -> None:
    """Files that exist, and new ones in directories that do."""
    (hint,) = hints(outcome(denials=[NO_PREOPEN]), request(arg))
    assert hint.endswith(f": {flags}")


@pytest.mark.parametrize("arg", ["-v", "hello", "http://x/y", "/nowhere/x", "/x", "", "3/4"])
def test_what_does_not(here: Path, monkeypatch: pytest.MonkeyPatch, arg: str) -> None:
    """Then the hint says "if", and only to a module that imports what opens files."""
    imports = [Import("wasi_snapshot_preview1", "path_open", "function", "")]
    monkeypatch.setattr(upkeep, "stored_description", lambda *_, **__: imports)
    ended = outcome(denials=[NO_PREOPEN], digest="d")
    found = hints(ended, request(arg))
    assert found == ["it was granted no directory; if it needs files: --dir ."]
    imports[0].name = "fd_prestat_get"
    assert hints(ended, request(arg)) == []
    assert hints(outcome(denials=[NO_PREOPEN]), request(arg)) == []


def test_a_guest_that_never_looked_for_files_is_not_told_of_them(here: Path) -> None:
    """Its exit status is its own."""
    assert hints(outcome(), request("foo.txt")) == []


def test_escapes(here: Path) -> None:
    """The directory that was wanted, or where the link leads."""
    dirs = [DirGrant(".", ".")]
    for path, words in (
        ("../x.txt", "'../x.txt' is outside of what it was granted: --dir .."),
        ("/usr/x", "'/usr/x' is outside of what it was granted: --dir /usr"),
        ("/", "'/' is outside of what it was granted"),
        ("etc/passwd", "'etc/passwd' is a symbolic link out of '.'; grant where it leads and use"),
        ("gone", "'gone' leads out of the directory it was granted"),
    ):
        found = hints(outcome(denials=[Denial("escape", 1, 63, path)]), request(dirs=dirs))
        assert found[0].startswith(words)


def test_read_only(here: Path) -> None:
    """The same grant, with ::rw."""
    denial = Denial("read_only", 1, 69, "./bar.txt")
    dirs = [DirGrant(".", ".", read_only=True)]
    (hint,) = hints(outcome(denials=[denial]), request(dirs=dirs))
    assert hint.endswith("--dir .::rw")
    denial = Denial("read_only", 1, 69, "./usr/lib/new")
    (hint,) = hints(outcome(denials=[denial]), request("/usr/lib/new", dirs=dirs))
    assert hint == "'/usr/lib/new' is outside of what it was granted: --dir /usr/lib"
    denial = Denial("read_only", 1, 69, "/data/x")
    dirs = [DirGrant("/srv/my data", "/data", read_only=True)]
    (hint,) = hints(outcome(denials=[denial]), request(dirs=dirs))
    assert hint.endswith("--dir '/srv/my data::/data::rw'")


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("timeout", "if it needs longer: --timeout 2m"),
        ("cpu_time", "if it needs longer: --cpu-time 40s --timeout 1m20s"),
        ("output", "if it has that much to say: --output 64MiB"),
        ("file_size", "if its files are that large: --file-size 256MiB"),
        ("fuel", "if it needs more: --fuel 400"),
        ("memory", "its memory quota is 256MiB; for more: --memory 512MiB"),
    ],
)
def test_each_quota_names_its_flag_with_a_larger_value(reason: str, hint: str) -> None:
    """A value that can be typed as it stands; a CPU quota must fit in the wall clock's."""
    quotas = Quotas(
        memory=256 * MIB,
        cpu_time=10 * SECOND,
        timeout=30 * SECOND,
        output=16 * MIB,
        file_size=64 * MIB,
        fuel=100,
    )
    ended = outcome(reason, 124, usage=Usage(cpu_user_ns=30 * SECOND, wall_ns=30 * SECOND))
    assert hints(ended, request(quotas=quotas))[0] == hint
    assert (ending(ended, request(quotas=quotas)) or "").startswith("stopped: ")


def test_a_sleeper_is_told_that_it_slept() -> None:
    """More time may not be what it needs."""
    found = hints(outcome("timeout", 124, usage=Usage(wall_ns=30 * SECOND)), request())
    assert "waiting" in found[1]


def test_memory_that_was_refused_or_full() -> None:
    """A guest that dies near its quota probably died of it."""
    near = Usage(memory=250 * MIB)
    refused = [Denial("memory", 3, 0, "")]
    for ended in (outcome("trap", 134, usage=near), outcome(denials=refused)):
        assert hints(ended, request())[0].endswith("--memory 512MiB")
    assert hints(outcome(usage=Usage(memory=9 * MIB)), request()) == []
    assert len(hints(outcome("timeout", 124, denials=refused), request())) == 1


def test_a_module_that_starts_too_large() -> None:
    """Twice what it starts with, and not twice what was too little."""
    message = "memory minimum size of 8192 pages exceeds memory limits"
    (hint,) = hints(outcome("memory", 137, message=message), request())
    assert hint == "its memory quota is 256MiB and it starts with 512MiB; for more: --memory 1GiB"


def test_descriptors_sockets_and_permissions() -> None:
    """The other denials."""
    denials = [
        Denial("fds", 1, 33, ""),
        Denial("socket", 1, 57, "sock_accept"),
        Denial("permission", 1, 2, "secret"),
    ]
    found = hints(outcome(denials=denials), request())
    assert found[0].endswith("--fds 256")
    assert found[1].endswith("--tcplisten 127.0.0.1:8080")
    assert "'secret'" in found[2]
    with_socket = request(listens=[ListenGrant("127.0.0.1", 80)])
    assert len(hints(outcome(denials=denials), with_socket)) == 2


def test_a_forbidden_call_is_to_be_reported() -> None:
    """No flag would have granted it."""
    ended = outcome("syscall", 159, syscall="ptrace")
    assert "ptrace" in hints(ended, request())[0]
    assert "ptrace" in (ending(ended, request()) or "")


def test_at_most_three(here: Path) -> None:
    """The likeliest first."""
    denials = [NO_PREOPEN, Denial("fds", 1, 33, ""), Denial("memory", 1, 0, "")]
    denials += [Denial("escape", 1, 63, f"../{n}") for n in range(5)]
    assert len(hints(outcome(denials=denials), request("foo.txt"))) == 3


def test_endings_in_words() -> None:
    """One line each; none for what is the guest's own business or was asked for."""
    assert ending(outcome(), request()) is None
    assert ending(outcome("killed", 130, signal=2), request()) is None
    trapped = outcome("trap", 134, trap="unreachable", message="wasm backtrace:\n  0: f")
    assert ending(trapped, request()) == "the guest trapped: unreachable\nwasm backtrace:\n  0: f"
    said = "backtrace:\n  0: f\nnote: WASMTIME_BACKTRACE_DETAILS\n\nCaused by:\n  unreachable"
    trapped = outcome("trap", 134, trap="unreachable", message=said)
    assert ending(trapped, request()) == "the guest trapped: unreachable\nbacktrace:\n  0: f"
    assert ending(outcome("trap", 134), request()) == "the guest trapped"
    assert ending(outcome("killed", 137, signal=9), request()) == "the run was killed by SIGKILL"
    assert ending(outcome("killed", 139, message="crashed"), request()) == "crashed"


def test_the_network() -> None:
    """The flag that would have allowed it, and for a name the port that others were granted."""
    denials = [
        Denial("network", 1, 2, "tcp:192.0.2.1:80"),
        Denial("network", 1, 2, "listen:tcp:0.0.0.0:8080"),
        Denial("name", 3, 2, "example.org"),
    ]
    assert hints(outcome(denials=denials), request()) == [
        "it looked up 'example.org'; to let it connect there: --net tcp:example.org:PORT",
        "it may not connect there; to allow it: --net tcp:192.0.2.1:80",
        "it may not listen there; to allow it: --net listen:tcp:0.0.0.0:8080",
    ]
    granted = request(net=[NetGrant("connect", "tcp", "example.com", 443, 443)])
    assert hints(outcome(denials=denials[2:]), granted)[0].endswith("--net tcp:example.org:443")
    six = [Denial("network", 1, 2, "udp:[2001:db8::1]:53")]
    assert hints(outcome(denials=six), request())[0].endswith("--net 'udp:[2001:db8::1]:53'")
    assert hints(outcome(denials=denials), request(), forbidden=("net",)) == []
    listen = hints(outcome(denials=denials), request(), forbidden=("tcplisten",))
    assert [hint.rpartition(" ")[2] for hint in listen] == [
        "tcp:example.org:PORT",
        "tcp:192.0.2.1:80",
    ]
    accepts = [Denial("socket", 1, 2, "")]
    assert hints(outcome(denials=accepts), request(), forbidden=("net",)) == []


@pytest.mark.parametrize("path", ["", "x; rm -rf ~", "tcp:$(reboot):80", "--dir /", "a b"])
def test_no_flag_of_a_hostile_worker(path: str) -> None:
    """What a denial is about may be anybody's words; what is no grant is no hint."""
    denials = [Denial("network", 1, 2, path), Denial("name", 1, 2, path)]
    assert hints(outcome(denials=denials), request()) == []


def test_a_component_that_may_only_read(here: Path) -> None:
    """It is not known what it was refused, so it is the last guess, and one about what can open
    files, failed and was granted directories to read; those that its arguments name, if any."""
    binary = b"\0asm\x0d\0\x01\0" + b"[method]descriptor.open-at"
    (here / "m.wasm").write_bytes(binary)
    dirs = [
        DirGrant("/srv/a", "/a", read_only=True),
        DirGrant(".", ".", read_only=True),
        DirGrant("/srv/b", "/b", read_only=False),
    ]
    failed = {"digest": "0" * 64}

    def found(*args: str, dirs: Any = dirs, forbidden: Any = (), **how: Any) -> list[str]:
        return hints(outcome(**{**failed, **how}), request(*args, dirs=dirs), forbidden)

    assert found("to", "--out=/a/x") == ["if it had to write: --dir /srv/a::/a::rw --dir .::rw"]
    assert found("/a/x") == ["if it had to write: --dir /srv/a::/a::rw"]
    assert found("/c/x", reason="trap", status=134) == [
        "if it had to write: --dir /srv/a::/a::rw --dir .::rw"
    ]
    assert found("/a/x", status=0) == []
    assert found("/a/x", forbidden=["dir"]) == []
    assert found("/a/x", dirs=dirs[2:]) == []
    assert found("/a/x", reason="killed", status=137) == []
    (other,) = found("/a/x", denials=[Denial("escape", 1, 63, "../x")])
    assert "had to write" not in other
    (here / "m.wasm").write_bytes(binary.replace(b"open-at", b"shut-at"))
    assert found("/a/x") == []
    (here / "m.wasm").write_bytes(b"\0asm\x01\0\0\0" + b"path_open")
    assert found("/a/x") == []
