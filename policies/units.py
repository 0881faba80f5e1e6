"""Sizes, times and counts as people write them.

Parsed by hand and not with `re`: this is on the road to every run, and importing `re` alone costs
as much as the rest of the command.  All arithmetic is on integers, so `0.1s` is exactly 100 ms.
"""

SIZE_FORM = "64MiB, 512KiB or 1.5GiB"
TIME_FORM = "1.5s, 500ms, 2m or 1h"
COUNT_FORM = "64"

# The largest figure that a signed 64-bit field of the kernel's takes (rlimits, offsets).
MAX_SIZE = 2**63 - 1
# Ten years: longer than any run, and far from where nanoseconds overflow 64 bits.
MAX_TIME = 10 * 365 * 86400 * 10**9
MAX_COUNT = 2**63 - 1

# As coreutils has it: a bare letter and the *iB form are powers of 1024, *B powers of 1000.
_SIZES = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgtpe", 1):
    _SIZES[_letter] = _SIZES[_letter + "ib"] = 1024**_power
    _SIZES[_letter + "b"] = 1000**_power

_TIMES = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "": 10**9,
    "s": 10**9,
    "sec": 10**9,
    "m": 60 * 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
}

UNLIMITED = ("none", "unlimited")


class UnitError(ValueError):
    """Not a size, time or count.  The text is a clause to put after the flag's name."""


def _split(text: str) -> "tuple[str, str, str]":
    """The whole digits, the digits after the point and the rest.  No digits at all: two empties."""
    end = 0
    while end < len(text) and text[end] in "0123456789":
        end += 1
    whole, rest = text[:end], text[end:]
    fraction = ""
    if rest.startswith("."):
        end = 1
        while end < len(rest) and rest[end] in "0123456789":
            end += 1
        fraction, rest = rest[1:end], rest[end:]
        if not fraction:
            return "", "", text
    return whole, fraction, rest


def _scale(whole: str, fraction: str, factor: int) -> int:
    scale: int = 10 ** len(fraction)
    return int(whole or "0") * factor + int(fraction or "0") * factor // scale


def parse_size(text: str) -> int:
    """Bytes.  `64MiB`, `64M` and `64m` are 64 * 2**20, `64MB` is 64 * 10**6, `64` is 64 bytes.

    Raises UnitError for what is no size, is zero, or does not fit 63 bits.
    """
    whole, fraction, unit = _split(text.strip())
    factor = _SIZES.get(unit.strip().lower())
    if factor is None or not (whole or fraction):
        raise UnitError(f"{text!r} is not a size; write it like {SIZE_FORM}")
    if len(whole) + len(fraction) > 40:  # int() of a megabyte of digits takes seconds
        raise UnitError(f"{text[:20]!r}... is too large")
    size = _scale(whole, fraction, factor)
    if size == 0:
        raise UnitError(f"{text!r} is no size to run with; write it like {SIZE_FORM}")
    if size > MAX_SIZE:
        raise UnitError(f"{text!r} is too large: more than {format_size(MAX_SIZE)}")
    return size


def parse_duration(text: str) -> int:
    """Nanoseconds.  `1.5s`, `500ms`, `2m`, `1h30m`; a bare number counts seconds.

    Raises UnitError for what is no time, is zero, or is over ten years.
    """
    rest = text.strip()
    total = 0
    parts = 0
    while rest:
        whole, fraction, rest = _split(rest)
        end = 0
        while end < len(rest) and rest[end] not in "0123456789.":
            end += 1
        unit, rest = rest[:end].strip().lower(), rest[end:]
        factor = _TIMES.get(unit)
        bare_part = not unit and (parts or rest)  # "1h30": thirty what?
        if factor is None or bare_part or not (whole or fraction):
            raise UnitError(f"{text!r} is not a time; write it like {TIME_FORM}")
        if len(whole) + len(fraction) > 40:
            raise UnitError(f"{text[:20]!r}... is too long")
        total += _scale(whole, fraction, factor)
        parts += 1
    if not parts:
        raise UnitError(f"{text!r} is not a time; write it like {TIME_FORM}")
    if total == 0:
        raise UnitError(f"{text!r} leaves no time to run in; write it like {TIME_FORM}")
    if total > MAX_TIME:
        raise UnitError(f"{text!r} is too long: more than ten years; 'none' stands for no limit")
    return total


def parse_count(text: str) -> int:
    """A whole number above zero; underscores may group its digits.  Raises UnitError."""
    digits = text.strip().replace("_", "")
    if not (digits.isascii() and digits.isdigit()):
        raise UnitError(f"{text!r} is not a whole number; write it like {COUNT_FORM}")
    if len(digits) > 40 or int(digits) > MAX_COUNT:
        raise UnitError(f"{text[:20]!r} is too large")
    if int(digits) == 0:
        raise UnitError(f"{text!r} is too small: it must be at least 1")
    return int(digits)


def parse_cpus(text: str) -> float:
    """Processors' worth of time: `0.5` is half of one, `2` all of two.  Raises UnitError.

    The least is a hundredth, as cpu.max gives no less than 1 ms in its period of 100 ms.
    """
    whole, fraction, rest = _split(text.strip())
    if rest or not (whole or fraction) or len(whole) > 6:
        raise UnitError(f"{text!r} is not a number of processors; write it like 0.5 or 2")
    cpus = float(f"{whole or 0}.{fraction or 0}")
    if cpus < 0.01:
        raise UnitError(f"{text!r} is too small: the least is 0.01 of a processor")
    return cpus


def is_unlimited(text: str) -> bool:
    """Whether `text` stands for no limit at all."""
    return text.strip().lower() in UNLIMITED


def format_size(size: "int | None") -> str:
    """Bytes for a person: `64MiB`, `1.5GiB`, `100B`; None is `unlimited`.  At most two decimals."""
    if size is None:
        return "unlimited"
    for power, unit in ((6, "EiB"), (5, "PiB"), (4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size >= 1024**power:
            return f"{_decimal(size, 1024**power)}{unit}"
    return f"{size}B"


def format_duration(ns: "int | None") -> str:
    """Nanoseconds for a person: `10s`, `1m30s`, `1.5ms`; None is `unlimited`."""
    if ns is None:
        return "unlimited"
    second = 10**9
    if ns < 60 * second:
        for factor, unit in ((second, "s"), (10**6, "ms"), (10**3, "us")):
            if ns >= factor:
                return f"{_decimal(ns, factor)}{unit}"
        return f"{ns}ns"
    parts = []
    for factor, unit in ((86400 * second, "d"), (3600 * second, "h"), (60 * second, "m")):
        if ns >= factor:
            parts.append(f"{ns // factor}{unit}")
            ns %= factor
    if ns:
        parts.append(format_duration(ns) if ns < second else f"{_decimal(ns, second)}s")
    return "".join(parts)


def _decimal(value: int, factor: int) -> str:
    whole, rest = divmod(value, factor)
    hundredths = rest * 100 // factor
    return f"{whole}.{hundredths:02d}".rstrip("0").rstrip(".")
