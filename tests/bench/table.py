"""The rows that come out, as a markdown table for people and as JSON for programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .measure import Sample


@dataclass
class Row:
    """One line of the table.

    key: short and stable, for programs.  group: the letter of the question it answers.  unit: of
    every sample.  ours, peer: None where it could not be measured; `note` then says why.
    goal: what ours/peer is to be at most, None where nothing is asked for.  others: figures that
    are there to compare with.
    """

    key: str
    group: str
    what: str
    unit: str
    ours: Sample | None
    peer_name: str
    peer: Sample | None
    goal: float | None = None
    goal_text: str = ""
    others: dict[str, Sample] = field(default_factory=dict)
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's, of the medians; None when one of them is missing."""
        if self.ours is None or self.peer is None or self.peer.median == 0:
            return None
        return self.ours.median / self.peer.median

    @property
    def met(self) -> bool | None:
        """Whether the goal was met; None when there is none or it could not be measured."""
        if self.goal is None or self.ratio is None:
            return None
        return self.ratio <= self.goal

    def as_dict(self) -> dict[str, Any]:
        """Everything in the row, ready for JSON."""
        return {
            "key": self.key,
            "group": self.group,
            "what": self.what,
            "unit": self.unit,
            "wasisup": _sample(self.ours),
            "peer_name": self.peer_name,
            "peer": _sample(self.peer),
            "ratio": self.ratio,
            "goal": self.goal,
            "met": self.met,
            "others": {name: _sample(sample) for name, sample in self.others.items()},
            "note": self.note,
        }


_HEAD = ("", "what", "wasisup", "peer", "ratio", "goal", "for comparison")


def markdown(rows: list[Row]) -> str:
    """The table, with its columns lined up."""
    lines = [_HEAD, *[_cells(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    rule = tuple("-" * width for width in widths)
    return "\n".join(_line(cells, widths) for cells in (lines[0], rule, *lines[1:]))


def verdict(rows: list[Row]) -> str:
    """One line that says which goals were missed, if any."""
    missed = [f"{row.key} ({row.ratio:.2f})" for row in rows if row.met is False]
    asked = sum(row.goal is not None for row in rows)
    unknown = [row.key for row in rows if row.goal is not None and row.met is None]
    text = f"{asked - len(missed) - len(unknown)} of {asked} goals met."
    if missed:
        text += f"  Missed: {', '.join(missed)}."
    if unknown:
        text += f"  Not measured: {', '.join(unknown)}."
    return text


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
    return f"| {' | '.join(padded)} |"


def _cells(row: Row) -> tuple[str, ...]:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    if row.met is not None:
        ratio += "" if row.met else " (missed)"
    others = [f"{name} {_text(sample, row.unit)}" for name, sample in row.others.items()]
    if row.note:
        others.append(row.note)
    peer = f"{row.peer_name}: {_text(row.peer, row.unit)}" if row.peer_name else ""
    ours = _text(row.ours, row.unit)
    return (row.group, row.what, ours, peer, ratio, row.goal_text, "; ".join(others))


def _text(sample: Sample | None, unit: str) -> str:
    if sample is None:
        return "-"
    figure = _number(sample.median)
    if sample.count > 1:
        figure += f" ({_number(sample.low)}-{_number(sample.high)})"
    return f"{figure} {unit}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _sample(sample: Sample | None) -> dict[str, float] | None:
    if sample is None:
        return None
    return {
        "median": sample.median,
        "q1": sample.low,
        "q3": sample.high,
        "count": sample.count,
    }
