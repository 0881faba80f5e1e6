"""Sizes, times and counts as people write them."""

import pytest

from wasisup.policies.units import (
    MAX_SIZE,
    MAX_TIME,
    UnitError,
    format_duration,
    format_size,
    is_unlimited,
    parse_count,
    parse_duration,
    parse_size,
)

MS = 10**6
SECOND = 10**9


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64MiB", 64 << 20),
        ("64mib", 64 << 20),
        ("64M", 64 << 20),
        ("64m", 64 << 20),
        ("64MB", 64 * 10**6),
        ("64", 64),
        ("64B", 64),
        ("1.5GiB", 3 << 29),
        (".5K", 512),
        (" 2 KiB ", 2048),
        ("1kB", 1000),
        (str(MAX_SIZE), MAX_SIZE),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """Binary units with an i or a bare letter, decimal ones with a B."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", " ", "MiB", "64XB", "-1", "1..5K", "1.K", "64 Mi B", "0x10", "1e6", "6_4", "٣MiB", "inf"],
)
def test_a_bad_size_shows_the_form(text: str) -> None:
    """The message repeats what was typed and shows how to write it."""
    with pytest.raises(UnitError, match="not a size; write it like 64MiB"):
        parse_size(text)


@pytest.mark.parametrize("text", ["0", "0MiB", "0.0001B"])
def test_no_size_is_zero(text: str) -> None:
    """A quota of nothing is a mistake and not a wish."""
    with pytest.raises(UnitError, match="no size to run with"):
        parse_size(text)


@pytest.mark.parametrize("text", ["8EiB", "9223372036854775808", "9" * 100000])
def test_a_size_fits_63_bits(text: str) -> None:
    """What does not is refused, without the time that a megabyte of digits would take."""
    with pytest.raises(UnitError, match="too large"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1.5s", 1500 * MS),
        ("500ms", 500 * MS),
        ("2m", 120 * SECOND),
        ("1h", 3600 * SECOND),
        ("1h30m", 5400 * SECOND),
        ("1m0.5s", 60 * SECOND + 500 * MS),
        ("10", 10 * SECOND),
        ("0.1", 100 * MS),
        ("250us", 250_000),
        ("7ns", 7),
        ("1d", 86400 * SECOND),
    ],
)
def test_durations(text: str, ns: int) -> None:
    """Exact, by integer arithmetic; a bare number counts seconds."""
    assert parse_duration(text) == ns


@pytest.mark.parametrize("text", ["", "s", "1x", "1h30", "30 1m", "-5s", "1,5s", "1e3s", "s1"])
def test_a_bad_duration_shows_the_form(text: str) -> None:
    """The message repeats what was typed and shows how to write it."""
    with pytest.raises(UnitError, match=r"not a time; write it like 1\.5s"):
        parse_duration(text)


def test_durations_have_bounds() -> None:
    """Zero leaves no time to run, and ten years is enough for anybody."""
    with pytest.raises(UnitError, match="leaves no time"):
        parse_duration("0s")
    with pytest.raises(UnitError, match="more than ten years"):
        parse_duration("100000d")
    with pytest.raises(UnitError, match="too long"):
        parse_duration("9" * 100000 + "s")
    assert parse_duration(f"{MAX_TIME}ns") == MAX_TIME


def test_counts() -> None:
    """Whole numbers from one; underscores group the digits."""
    assert parse_count("64") == 64
    assert parse_count("1_000_000") == 1_000_000
    for bad in ("", "6.4", "-1", "64k", "²"):
        with pytest.raises(UnitError, match="not a whole number"):
            parse_count(bad)
    with pytest.raises(UnitError, match="at least 1"):
        parse_count("0")
    with pytest.raises(UnitError, match="too large"):
        parse_count("9" * 30)


@pytest.mark.parametrize("text", ["64MiB", "1.5GiB", "100B", "1KiB", "8GiB"])
def test_a_size_is_shown_as_it_is_written(text: str) -> None:
    """What is printed can be typed."""
    assert format_size(parse_size(text)) == text


@pytest.mark.parametrize("text", ["10s", "1.5s", "500ms", "2m", "1h", "1m30s", "1d1h", "7ns"])
def test_a_duration_is_shown_as_it_is_written(text: str) -> None:
    """What is printed can be typed."""
    assert format_duration(parse_duration(text)) == text


def test_unlimited() -> None:
    """Two words for no limit, and one way to show it."""
    assert is_unlimited("none")
    assert is_unlimited(" Unlimited ")
    assert not is_unlimited("0")
    assert format_size(None) == format_duration(None) == "unlimited"
