"""A Debian 12 virtual machine, emulated: its image, the disk with the project, and one boot.

The image holds nothing of the project and is kept outside the checkout.  It is never written to:
the emulator keeps the changes of a boot to itself.  No KVM: where tests run there is often none.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from support import guests

CHECKOUT = Path(__file__).resolve().parents[2]
RELEASE = "bookworm"
PACKAGES = "systemd,systemd-sysv,libpam-systemd,dbus,python3,procps,libseccomp2"
KERNEL = "linux-image-cloud-amd64"  # NVMe and ext4 are built in: no initramfs, no modules
PYTHON = "/usr/bin/python3.11"  # of Debian 12, here as there
PROGRAMS = ("qemu-system-x86_64", "mmdebstrap", "mke2fs", "debugfs", "dpkg", "apt-get", PYTHON)
BOOT_TIMEOUT = 1200  # seconds
DONE = "VMTEST-RC="

SERVICE = """\
[Unit]
Description=The suite's cases
Wants=basic.target
Requires=dbus.socket
After=basic.target dbus.socket
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStartPre=/bin/mount /dev/nvme1n1 /mnt
ExecStart=/bin/sh /mnt/start
"""

# The disk appears where the virtual environment was made: its scripts name their interpreter.
START = """\
mkdir -p {folder} && mount --bind /mnt {folder}
{folder}/venv/bin/python {folder}/inside.py {folder} >/dev/ttyS0 2>&1
code=$?
sync
echo "{done}$code" >/dev/ttyS0
"""

# (module that prints "ready" and waits until its stdin has something to say or ends)
WAIT = r"""
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read"
    (func $read (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "ready\n")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 16))
    (i32.store (i32.const 4) (i32.const 6))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))))
"""


# (module that never ends)
SPIN = '(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))'


class Image(NamedTuple):
    """root: an ext4 file system; kernel: a bzImage."""

    root: Path
    kernel: Path


class BootError(Exception):
    """The machine did not come to the end of its task; the text is what it printed."""


def missing() -> list[str]:
    """The programs that are needed and not there."""
    return [program for program in PROGRAMS if not shutil.which(program)]


def image() -> Image:
    """The machine's image, made when it is not cached yet.  Needs root and Debian's mirror."""
    recipe = f"{RELEASE} {PACKAGES} {KERNEL} {SERVICE}"
    folder = guests.cache_dir() / f"vm-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    made = Image(folder / "root.img", folder / "vmlinuz")
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (made.root.exists() and made.kernel.exists()):
            with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="wasisup-vm-image-") as scratch:
                _make_kernel(Path(scratch), made.kernel)
                _make_root(Path(scratch), made.root)
    return made


def _make_kernel(scratch: Path, target: Path) -> None:
    # The package without a version in its name only depends on the newest one with.
    lines = _output("apt-cache", "depends", KERNEL).splitlines()
    package = next(line.split()[-1] for line in lines if "Depends: linux-image-" in line)
    room = scratch / "kernel"
    room.mkdir()
    # As root: apt would drop to a user who may not write here.
    _output("apt-get", "-o", "APT::Sandbox::User=root", "download", "-qq", package, cwd=room)
    _output("dpkg", "-x", str(next(room.glob("*.deb"))), str(room))
    _keep(next((room / "boot").glob("vmlinuz-*")), target)


def _make_root(scratch: Path, target: Path) -> None:
    tree = scratch / "tree"
    service = scratch / "vmtest.service"
    service.write_text(SERVICE)
    hooks = ('chroot "$1" useradd --uid 1000 --create-home tester',
             f'cp {service} "$1/etc/systemd/system/"')  # fmt: skip
    _output(
        "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={PACKAGES}",
        *(f"--customize-hook={hook}" for hook in hooks), RELEASE, str(tree), *_sources(),
    )  # fmt: skip
    draft = scratch / "root.img"
    _make_disk(tree, draft, spare=256)
    _keep(draft, target)


def _sources() -> list[str]:
    """The machine's own list of mirrors, where it is for the same release."""
    for name in ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"):
        path = Path(name)
        if path.exists() and RELEASE in path.read_text():
            return [name]
    return []


def _keep(draft: Path, target: Path) -> None:
    beside = target.with_name(f".{target.name}")  # the cache may be another file system
    _output("cp", "--sparse=always", str(draft), str(beside))
    os.replace(beside, target)


def _make_disk(tree: Path, disk: Path, *, spare: int) -> None:
    """An ext4 file system with what `tree` holds and `spare` MiB of room."""
    size = int(_output("du", "-sm", str(tree)).split()[0])
    features = ("-t", "ext4", "-O", "^has_journal", "-m", "0")
    _output("mke2fs", "-q", *features, "-d", str(tree), str(disk), f"{size * 5 // 4 + spare}M")


def project(folder: Path, modules: dict[str, Path]) -> None:
    """Puts into `folder` what the cases need.  It has to be at the same place inside.

    modules: guest programs by name.
    """
    # Without pip: Debian's Python has ensurepip in a package of its own.
    _output(PYTHON, "-m", "venv", "--without-pip", str(folder / "venv"))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    pip += ("--python", str(folder / "venv/bin/python"))
    _output(*pip, "install", "--quiet", str(CHECKOUT))
    (folder / "guests").mkdir()
    for name, path in modules.items():
        shutil.copy(path, folder / "guests" / f"{name}.wasm")
    for name in ("inside.py", "daemon_cases.py"):
        shutil.copy(Path(__file__).with_name(name), folder)
    (folder / "start").write_text(START.format(folder=folder, done=DONE))
    _output("chmod", "-R", "a+rX", str(folder))


def boot(machine: Image, folder: Path) -> dict[str, str]:
    """Boots once with `folder` inside; returns the results of its cases.  Raises BootError."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="wasisup-vm-disk-") as scratch:
        disk, out = Path(scratch) / "disk.img", Path(scratch) / "results.json"
        _make_disk(folder, disk, spare=64)
        # A machine that printed nothing never started: that is the emulator's, and worth a try.
        printed = _emulate(machine, disk) or _emulate(machine, disk)
        if f"{DONE}0" not in printed:
            raise BootError(f"the machine printed:\n{printed}")
        _output("debugfs", "-R", f"dump results.json {out}", str(disk))
        results: dict[str, str] = json.loads(out.read_text())
        return results


def _emulate(machine: Image, disk: Path) -> str:
    """What the machine printed on its serial line."""
    line = "root=/dev/nvme0n1 rw console=ttyS0 quiet panic=-1"
    line += " systemd.unit=vmtest.service systemd.show_status=0"
    command = [
        "qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max",
        "-smp", "2", "-m", "1024", "-nodefaults", "-no-user-config", "-display", "none",
        "-no-reboot", "-monitor", "none", "-serial", "stdio",
        "-kernel", str(machine.kernel), "-append", line,
        "-drive", f"file={machine.root},format=raw,if=none,id=root,snapshot=on",
        "-drive", f"file={disk},format=raw,if=none,id=project,cache=unsafe",
        "-device", "nvme,drive=root,serial=root", "-device", "nvme,drive=project,serial=project",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=BOOT_TIMEOUT,
            check=False,
        )
        printed: bytes = done.stdout
    except subprocess.TimeoutExpired as late:
        printed = late.stdout or b""
    return printed.decode(errors="replace")


def _output(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}")
    return done.stdout
