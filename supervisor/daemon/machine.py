"""How much memory there is for this process and its children."""

import os

_CGROUPS = "/sys/fs/cgroup"


def memory_size(meminfo: str = "/proc/meminfo", cgroups: str = _CGROUPS) -> int:
    """Bytes: the machine's memory, or what the control groups (v2) of this process leave."""
    with open(meminfo, encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    size = int(fields["MemTotal"].split()[0]) * 1024
    return min([size, *_group_limits(cgroups)])


def _group_limits(cgroups: str) -> list[int]:
    limits = []
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        path = next((line[3:].strip() for line in file if line.startswith("0::")), "/")
    while path != "/":
        try:
            with open(f"{cgroups}{path}/memory.max", encoding="ascii") as file:
                text = file.read().strip()
        except OSError:
            text = "max"  # no such controller here
        if text.isdigit():
            limits.append(int(text))
        path = os.path.dirname(path)
    return limits
