"""Finds the engine's library and the compiled core, without importing either.

`import wasmtime` costs a hundred times what starting the core does, and all that is wanted is the
path of one file in its wheel.  The core checks the release again when it has loaded the library.
"""

import os
import sys

from ..supervisor.errors import SetupError

# The release of the wheel `wasmtime` that the core's header was generated from (pyproject.toml
# pins it); artifacts of another release would not load, and its C interface may differ.
ENGINE_RELEASE = "50.0.1"

_LIBRARY = "wasmtime/linux-x86_64/_libwasmtime.so"
_CORE = "wasisup/runtime/bin/wasisup-core"


def find_library() -> str:
    """The path of the pinned release's shared library.

    Raises SetupError when the wheel is not installed for this interpreter or is another release.
    """
    for folder in sys.path:
        path = f"{folder}/{_LIBRARY}"
        if not _is_file(path):
            continue
        if _is_folder(f"{folder}/wasmtime-{ENGINE_RELEASE}.dist-info"):
            return path
        found = _release_in(folder)
        raise SetupError(
            f"wasmtime {found} is installed, and wasisup needs exactly {ENGINE_RELEASE}",
            f"pip install wasmtime=={ENGINE_RELEASE}",
            step="find the engine",
        )
    raise SetupError(
        f"the engine is not installed: no {_LIBRARY} on the module path",
        f"pip install wasmtime=={ENGINE_RELEASE} (64-bit x86 Linux)",
        step="find the engine",
    )


def find_core() -> str:
    """The path of the compiled core.  Raises SetupError when it was not built."""
    beside = os.path.dirname(os.path.abspath(__file__)) + "/bin/wasisup-core"
    if _is_file(beside):
        return beside
    # An editable install leaves the Python files in the checkout and puts the core elsewhere.
    for folder in sys.path:
        if _is_file(f"{folder}/{_CORE}"):
            return f"{folder}/{_CORE}"
    raise SetupError(
        "the compiled core is not installed",
        "install with pip, which builds it; a source checkout alone cannot run",
        step="find the core",
    )


def _release_in(folder: str) -> str:
    try:
        names = os.listdir(folder)
    except OSError:
        return "(unknown release)"
    for name in names:
        if name.startswith("wasmtime-") and name.endswith(".dist-info"):
            return name[len("wasmtime-") : -len(".dist-info")]
    return "(unknown release)"


def _is_file(path: str) -> bool:
    try:
        return os.stat(path).st_mode & 0o170000 == 0o100000
    except (OSError, ValueError):
        return False


def _is_folder(path: str) -> bool:
    try:
        return os.stat(path).st_mode & 0o170000 == 0o040000
    except (OSError, ValueError):
        return False


def engine_key(engine: str, *, fuel: bool) -> str:
    """What an artifact depends on beside its module, as the name of a folder of the cache.

    engine: "cranelift" or "pulley".  fuel: whether the code counts fuel.
    """
    target = f"{engine}+fuel" if fuel else engine
    # Pulley's bytecode is the same on every processor.
    processor = "any" if engine == "pulley" else _processor()
    return f"{ENGINE_RELEASE}_{target}_{processor}"


def _processor() -> str:
    """A short name for this processor's features, for a cache that several machines share.

    It need not be exact: the engine itself refuses code for features that are not there.
    """
    import binascii

    for path, wanted in (
        ("/sys/devices/system/cpu/modalias", b""),
        ("/proc/cpuinfo", b"flags"),  # where sysfs is not mounted; slower
    ):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            text = os.read(fd, 8192)
        finally:
            os.close(fd)
        at = text.find(wanted)
        if text and at >= 0:
            line = text[at:].split(b"\n", 1)[0]
            return f"{binascii.crc32(line):08x}"
    return "unknown"
