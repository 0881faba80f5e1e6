"""Whether a guest could write to the compile cache, by every name that leads there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wasisup.supervisor import grants, reach
from wasisup.supervisor.errors import UsageError, WallMissing
from wasisup.supervisor.model import DirGrant


class Place:
    """A cache some way down a directory, and grants to try."""

    def __init__(self, top: Path, held: grants.Descriptors) -> None:
        self.top = top
        self.cache = top / "home" / ".cache" / "wasisup"
        self.held = held

    def check(self, path: Path, *, read_only: bool = False, accept: bool = False) -> None:
        grant = DirGrant(str(path), "/", read_only)
        fd = self.held.own(grants.open_directory(grant))
        reach.check([(grant, fd)], [str(self.cache)], accept=accept)

    def refused(self, path: Path) -> None:
        with pytest.raises(WallMissing, match="could write to the compile cache") as caught:
            self.check(path)
        assert caught.value.wall == "cache"
        assert "--allow-missing=cache" in str(caught.value.hint)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with grants.Descriptors() as held:
        made = Place(tmp_path.resolve(), held)
        made.cache.mkdir(parents=True)
        yield made


def test_every_ancestor_is_refused(place: Place) -> None:
    """Whoever may write above the cache can put another in its place."""
    for path in place.cache.parents:
        place.refused(path)


def test_an_ancestor_by_another_name(place: Place) -> None:
    """Through a symlink: the inode counts."""
    link = place.top / "link"
    link.symlink_to(place.cache.parent)
    place.refused(link)


def test_a_cache_behind_a_symlink(place: Place, tmp_path: Path) -> None:
    """What is refused is where the cache really is."""
    real = place.top / "elsewhere" / "real"
    real.mkdir(parents=True)
    place.cache.rmdir()
    place.cache.symlink_to(real)
    place.refused(real.parent)


def test_the_link_to_the_cache_counts(place: Place, tmp_path: Path) -> None:
    """Whoever may replace a symlink on the way decides what is found at its end."""
    real = place.top / "elsewhere"
    (real / "wasisup").mkdir(parents=True)
    links = place.top / "links"
    links.mkdir()
    (links / "second").symlink_to("../elsewhere")
    (place.top / "first").mkdir()
    (place.top / "first" / "cache").symlink_to(links / "second")
    place.cache = place.top / "first" / "cache" / "wasisup"
    for path in (place.top / "first", links, real):
        place.refused(path)
    place.check(place.top / "home")


def test_a_cache_that_is_not_there_yet(place: Place) -> None:
    """The guest could make it before the next run does."""
    place.cache.rmdir()
    place.cache.parent.rmdir()
    place.refused(place.cache.parent.parent)


def test_neighbours_pass(place: Place) -> None:
    """Also one whose name begins like the cache's."""
    for name in ("data", "home/.cache/wasisup2"):
        (place.top / name).mkdir()
        place.check(place.top / name)


def test_what_is_accepted(place: Place) -> None:
    """Read-only, or by name."""
    place.check(place.top, read_only=True)
    place.check(place.top, accept=True)


def test_the_cache_is_granted_to_nobody(place: Place) -> None:
    """Nor a part of it; not read-only and not by name."""
    (place.cache / "artifacts").mkdir()
    for path in (place.cache, place.cache / "artifacts"):
        for options in ({}, {"read_only": True}, {"accept": True}):
            with pytest.raises(UsageError, match="granted to nobody"):
                place.check(path, **options)


def mountinfo(path: Path, *lines: tuple[str, Path | str, Path | str]) -> str:
    """A file like /proc/self/mountinfo, of (device, root, mount point)."""
    path.write_text(
        "".join(
            f"{at} 1 {device} {os.fspath(root)} {escaped(point)} rw - ext4 /dev/x rw\n"
            for at, (device, root, point) in enumerate(lines, 20)
        )
    )
    return str(path)


def escaped(path: Path | str) -> str:
    return os.fspath(path).replace(" ", "\\040")


@pytest.mark.parametrize("shift", ["same root", "other root"])
def test_bind_mounts(place: Place, monkeypatch: pytest.MonkeyPatch, shift: str) -> None:
    """The file system that the cache is on, mounted once more: what overlaps is refused."""
    volume, inner = place.top / "a volume", place.top / "data" / "inner"
    for path in (volume, inner):
        path.mkdir(parents=True)
    cases: list[tuple[Path, tuple[str, str, Path], bool]] = [
        (volume, ("8:1", "/u/.cache", volume), True),  # an ancestor of the cache
        (volume, ("8:1", "/u/.cache/wasisup", volume), True),  # the cache
        (volume, ("8:1", "/u/.cache/wasisup/artifacts", volume), True),  # a part of it
        (inner.parent, ("8:1", "/u", inner), True),  # below the grant
        (volume, ("8:1", "/v", volume), False),
        (volume, ("8:2", "/u/.cache", volume), False),  # the same names on another disk
    ]
    for granted, line, refused in cases:
        base = ("8:1", "/u", place.top / "home")
        if shift == "other root":
            base = ("8:1", "/u/.cache/wasisup", place.cache)
        path = mountinfo(place.top / "mounts", ("8:9", "/", "/"), base, line)
        monkeypatch.setattr(reach, "_MOUNTINFO", path)
        if refused:
            place.refused(granted)
        else:
            place.check(granted)
