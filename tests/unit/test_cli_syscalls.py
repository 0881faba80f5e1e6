"""`wasisup policy syscalls`, and the page that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wasisup.policies import syscalls
from wasisup.supervisor.cli import syscalls as body
from wasisup.supervisor.errors import UsageError

PAGE = Path(__file__).parents[2] / "policies/SYSCALLS.md"


def test_the_page_is_the_table_s() -> None:
    """policies/SYSCALLS.md is what `wasisup policy syscalls --markdown` prints."""
    assert PAGE.read_text() == body.markdown()


def test_the_sets_make_up_the_profiles() -> None:
    """No profile has a rule that the page does not show."""
    shown = [rule for rules in syscalls.SETS.values() for rule in rules]
    for profile in syscalls.PROFILES:
        for stage in (1, 2):
            assert all(rule in shown for rule in syscalls.rules(profile, stage))


@pytest.mark.parametrize("profile", syscalls.PROFILES)
def test_each_call_has_its_reason(profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON: what is admitted is what the filter admits, and why."""
    body.show(profile, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    assert sorted({row["call"] for row in rows if row["admitted"]}) == syscalls.admitted(profile)
    assert all(row["reason"] for row in rows)


@pytest.mark.parametrize("profile", ["", "run", "run-cranelift-nothing", "x-y"])
def test_no_such_profile(profile: str) -> None:
    """What is no profile is told, with how to see those that are."""
    with pytest.raises(UsageError, match="there is no profile"):
        body.show(profile, as_json=False)
