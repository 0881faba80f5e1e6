"""The table of run's options, and the two parsers that are made from it."""

import pytest

from wasisup.policies.settings import SETTINGS
from wasisup.supervisor.cli import app, fast, options, run
from wasisup.supervisor.cli.fast import Parsed

GOOD = [
    ["m.wasm"],
    ["m.wasm", "--dir", "x", "-v", "--", "--help"],
    ["--dir", ".", "--dir=/tmp::ro", "m.wasm", "a"],
    ["--", "m.wasm", "--memory", "1"],
    ["--", "--odd.wasm"],
    ["--env", "A=b=c", "--env", "-x", "m.wasm"],
    ["--memory=1MiB", "--memory", "2MiB", "m.wasm"],
    ["--explain", "--json", "m.wasm"],
    ["--no-daemon", "--report", "-", "m.wasm", ""],
    ["--dir=", "m.wasm"],
    ["-", "x"],
    ["--invoke", "--dir", "m.wasm"],
]
BAD = [
    [],
    ["--"],
    ["--dir"],
    ["--dir", "."],
    ["--help"],
    ["--memory", "1MiB"],
    ["--nope", "m.wasm"],
    ["--mem", "1MiB", "m.wasm"],
    ["--explain=yes", "m.wasm"],
    ["-x", "m.wasm"],
    ["--=x", "m.wasm"],
]


def shape(parsed: Parsed) -> tuple[dict[str, list[str]], str, list[str]]:
    return parsed.values, parsed.module, parsed.args


@pytest.mark.parametrize("words", GOOD)
def test_both_parsers_agree(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick one may be quick, and never different."""
    seen: list[Parsed] = []

    def keep(parsed: Parsed) -> int:
        seen.append(parsed)
        return 0

    monkeypatch.setattr(run, "run", keep)
    quick = fast.parse(words)
    assert app.main(["run", *words]) == 0
    assert quick is not None
    assert shape(quick) == shape(seen[0])


@pytest.mark.parametrize("words", BAD)
def test_the_quick_parser_leaves_errors_to_click(words: list[str]) -> None:
    """Whatever needs an explanation."""
    assert fast.parse(words) is None


def test_the_table_and_the_settings_agree() -> None:
    """Every flag's key is a setting, and every setting has a flag."""
    keys = {option.key for option in options.OPTIONS if option.key is not None}
    assert keys == set(SETTINGS)
    for option in options.OPTIONS:
        if option.key is not None:
            assert option.repeatable == SETTINGS[option.key].is_list
            assert option.metavar is not None


def test_every_option_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Under its group."""
    app.main(["run", "--help"])
    text = capsys.readouterr().out
    for option in options.OPTIONS:
        short = f"{option.short}, " if option.short else ""
        assert f"  {short}{option.flag}" in text
        assert option.group in options.GROUPS
        assert option.group.split(" (")[0] in text
