"""`wasisup install`: what is placed where, and what is left alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.needs import unavailable
from wasisup.supervisor.cli import install as module
from wasisup.supervisor.cli.install import find_command, install, sources
from wasisup.supervisor.errors import UsageError

UNITS = {
    "etc/systemd/system/wasisup.service",
    "etc/systemd/system/wasisup.socket",
    "etc/systemd/system/wasisup.slice",
    "etc/sysusers.d/wasisup.conf",
    "etc/tmpfiles.d/wasisup.conf",
    "etc/wasisup/wasisup.toml",
}
SERVICE = "etc/systemd/system/wasisup.service"


def place(
    root: Path,
    *,
    user: bool = False,
    dry_run: bool = False,
    uninstall: bool = False,
    force: bool = False,
) -> None:
    assert install(user, str(root), dry_run, uninstall, force) == 0


def placed(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_everything_in_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Readable for all, with the path of this very command, and what to do next."""
    old = os.umask(0o077)
    try:
        place(tmp_path)
    finally:
        os.umask(old)
    assert placed(tmp_path) == UNITS
    for name in UNITS:
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o644
    text = (tmp_path / SERVICE).read_text()
    assert re.findall("^ExecStart=(.*)$", text, re.M) == [f"{find_command()} daemon"]
    printed = capsys.readouterr().out
    assert f"placed     {tmp_path / SERVICE}" in printed
    assert "systemctl enable --now wasisup.socket" in printed


def test_a_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below their configuration directory."""
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/u/.config")
    place(tmp_path, user=True)
    assert placed(tmp_path) == {
        "home/u/.config/systemd/user/wasisup.service",
        "home/u/.config/systemd/user/wasisup.socket",
        "home/u/.config/wasisup/wasisup.toml",
    }


def test_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second time nothing is written; an older version's file that nobody changed is replaced."""
    place(tmp_path)
    service = tmp_path / SERVICE
    before = service.stat().st_ino
    place(tmp_path)
    assert service.stat().st_ino == before
    assert f"unchanged  {service}" in capsys.readouterr().out
    old = "[Service]\nExecStart=/old\n"
    service.write_text(f"{module._mark(old)}\n{old}")
    place(tmp_path)
    assert "/old" not in service.read_text()
    assert f"replaced   {service}" in capsys.readouterr().out


@pytest.mark.parametrize("own", [False, True])
def test_changed_files(tmp_path: Path, own: bool) -> None:
    """Somebody's changes are kept, and nothing else is done, until --force."""
    place(tmp_path)
    service = tmp_path / SERVICE
    text = "[Service]\n" if own else service.read_text() + "Nice=1\n"
    service.write_text(text)
    (tmp_path / "etc/systemd/system/wasisup.slice").unlink()
    with pytest.raises(UsageError, match=r"wasisup\.service: changed"):
        place(tmp_path)
    assert service.read_text() == text
    assert placed(tmp_path) == UNITS - {"etc/systemd/system/wasisup.slice"}
    place(tmp_path, force=True)
    assert "ExecStart" in service.read_text()


def test_settings_are_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even by --force, and not by removing."""
    config = tmp_path / "etc/wasisup/wasisup.toml"
    config.parent.mkdir(parents=True)
    config.write_text("[limits]\nruns = 1\n")
    place(tmp_path, force=True)
    place(tmp_path, uninstall=True, force=True)
    assert config.read_text() == "[limits]\nruns = 1\n"
    assert capsys.readouterr().out.count(f"kept       {config}") == 2
    assert placed(tmp_path) == {"etc/wasisup/wasisup.toml"}


def test_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Says what it would do, and does nothing."""
    place(tmp_path, dry_run=True)
    assert placed(tmp_path) == set()
    assert f"would be placed     {tmp_path / SERVICE}" in capsys.readouterr().out
    place(tmp_path)
    place(tmp_path, dry_run=True, uninstall=True)
    assert placed(tmp_path) == UNITS
    assert "would be removed" in capsys.readouterr().out


def test_uninstall(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was changed stays, unless it is forced; a second time there is nothing to do."""
    place(tmp_path)
    service = tmp_path / SERVICE
    service.write_text("mine")
    place(tmp_path, uninstall=True)
    assert placed(tmp_path) == {SERVICE}
    assert "systemctl disable --now wasisup.socket" in capsys.readouterr().out
    place(tmp_path, uninstall=True, force=True)
    place(tmp_path, uninstall=True)
    assert placed(tmp_path) == set()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_without_rights(tmp_path: Path) -> None:
    """Said with both ways out."""
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="cannot write") as caught:
        place(tmp_path)
    assert "--user" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/opt/v/bin/wasisup", "/opt/v/bin/wasisup"),
        ("/opt/a b/wasisup", '"/opt/a b/wasisup"'),
        ("/opt/100%/$x/wasisup", '"/opt/100%%/$$x/wasisup"'),
    ],
)
def test_paths_of_the_command(path: str, word: str) -> None:
    """Spaces, percent and dollar signs mean something in a unit."""
    assert module._quoted(path) == word


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's files can be root's")
def test_a_command_that_others_can_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """root's service would run what they put there."""
    command = tmp_path / "wasisup"
    command.touch()
    module._warn_of_command(str(command))
    assert capsys.readouterr().err == ""
    tmp_path.chmod(0o777)
    module._warn_of_command(str(command))
    assert "can be changed by others than root" in capsys.readouterr().err


@pytest.mark.parametrize("user", [False, True])
def test_units_are_as_systemd_has_them(
    tmp_path: Path, user: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No unknown key or section, no path that is not there: `systemd-analyze verify`."""
    if not shutil.which("systemd-analyze"):
        unavailable("systemd-analyze (Debian: systemd)")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/config")
    place(tmp_path, user=user)
    folder = tmp_path / ("config/systemd/user" if user else "etc/systemd/system")
    units = [str(path) for path in sorted(folder.iterdir())]
    done = subprocess.run(
        ["systemd-analyze", "verify", *(["--user"] if user else []), *units],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        check=False,
    )
    # About other units of the machine it has its own opinions.
    assert not [line for line in done.stderr.splitlines() if "wasisup" in line], done.stderr


def test_exposure(tmp_path: Path) -> None:
    """No worse than it was: every directive that is dropped has to be missed by somebody."""
    if not shutil.which("systemd-analyze"):
        unavailable("systemd-analyze (Debian: systemd)")
    unit = os.path.join(sources(), "wasisup.service")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=40", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
