"""Hostile runs with a network, by the shipped supervisor: the report, and what is left behind.

The core is the hostile one and everything around it is what `wasisup run` is.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.processes import children
from wasisup.policies.network import parse_net
from wasisup.runtime import engine
from wasisup.supervisor import embedded
from wasisup.supervisor.model import NetGrant, Outcome, Quotas, RunRequest

from .network import ATTACKS
from .network_shapes import BROKER, MSG_DONTWAIT, TCP4
from .outside import Outside
from .steps import call, data, number, result, text, words, zeros
from .test_network import EACCES, FLOOD

RESOLVER = 4
EMPTY_COMPONENT = b"\0asm\x0d\0\1\0"
A_SECOND = 10**9
PATIENCE = 5.0


class Runs:
    """Runs hostile components in this process, which has to be as it was after each."""

    def __init__(self, module: Path) -> None:
        self._module = str(module)

    def run(
        self, *steps: str, net: str = "", host: bool = False, timeout: int = 10 * A_SECOND
    ) -> tuple[Outcome, bytes]:
        """Carries out one run; what came of it, and what it said."""
        grants = [parse_net(word) for word in net.split()]
        request = RunRequest(
            module=self._module,
            args=steps,
            net=[grant for grant in grants if isinstance(grant, NetGrant)],
            net_host=host,
            quotas=Quotas(timeout=timeout),
        )
        output = os.memfd_create("output")
        before = self._open(), children(os.getpid())
        try:
            outcome = embedded.run(request, (0, output, output))
            assert children(os.getpid()) == before[1]
            deadline = time.monotonic() + PATIENCE
            # Who answers for names is a thread, which hears of the worker's end by itself.
            while self._open() != before[0]:
                assert time.monotonic() < deadline, self._open() - before[0]
                time.sleep(0.001)
            return outcome, os.pread(output, 1 << 20, 0)
        finally:
            os.close(output)

    @staticmethod
    def _open() -> set[str]:
        return {fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")}


@pytest.fixture(scope="module")
def outside(hostile_folder: Path) -> Iterator[Outside]:
    folder = hostile_folder / "runs"
    folder.mkdir()
    made = Outside(folder)
    yield made
    made.close()


@pytest.fixture
def runs(hostile_core: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.setattr(engine, "find_core", lambda: hostile_core)
    module = tmp_path / "empty.wasm"
    module.write_bytes(EMPTY_COMPONENT)
    return Runs(module)


def errnos(said: bytes) -> list[int]:
    """How each step ended."""
    lines = [line.split() for line in said.decode().splitlines()]
    return [int(words[2]) for words in lines if len(words) == 3 and words[0].isdigit()]


DENIALS = [a for a in ATTACKS if a.denied and not a.reaches and a.closed == a.net]


@pytest.mark.parametrize("net", ["", "tcp:127.0.0.1:<port>"], ids=["closed", "net"])
def test_every_refusal_is_in_the_report(runs: Runs, outside: Outside, net: str) -> None:
    """The run's denials are the calls that were refused, each with what would have allowed it."""
    for first in range(0, len(DENIALS), 12):
        steps: list[str] = []
        wanted: list[str] = []
        for attack in DENIALS[first : first + 12]:
            at = len(steps)
            own = [step.replace(" r0", f" r{at}") for step in attack.steps]
            steps += outside.spell(tuple(own))
            wanted += outside.spell(attack.denied)
        outcome, said = runs.run(*steps, net=outside.spell((net,))[0])
        assert outcome.reason == "exit", said
        assert sum(denial.count for denial in outcome.denials) == errnos(said).count(EACCES)
        paths = [denial.path for denial in outcome.denials if denial.kind == "network"]
        assert len(paths) == len(outcome.denials)
        for start in wanted:
            assert any(path.startswith(start) for path in paths), (start, paths)
        for path in paths:
            assert isinstance(parse_net(path), NetGrant)
    assert not outside.knocks()
    assert not outside.visits()


# The worker's own end, on its way to a broker that is not to have any time for it.
_OWN_END = data(bytes.fromhex("14000000000000000100000001000000") + bytes([BROKER, *bytes(7)]))
OWN_END = f"repeat {number('sendmsg')} {BROKER} " + (
    words(0, 0, words(text("x"), 1), 1, _OWN_END, 24, 0) + f" {MSG_DONTWAIT}"
)
CRASH = call("rt_sigreturn")
ENDS = {
    "an end": (),
    "a flood of descriptors": (FLOOD,) * 10,
    "a flood of its own end": (OWN_END,) * 10,
    "a flood, and a crash": (OWN_END, FLOOD, CRASH),
    "a flood, and a forbidden call": (OWN_END, FLOOD, call("getpid")),
    "a flood, and no end": (OWN_END, FLOOD, "sleep 100"),
    "a conversation that it ends": (call("shutdown", BROKER, 2), TCP4),
    "a conversation that is ended by nothing": (call("sendto", BROKER, zeros(1), 0, 0, 0, 0), TCP4),
    "sockets, all that there are": (f"repeat {number('socket')} 2 1 0",),
}


@pytest.mark.parametrize("how", ENDS)
def test_nothing_is_left(runs: Runs, outside: Outside, how: str) -> None:
    """However a run ends: no process of it is there any more, no descriptor, no connection."""
    net = f"tcp:127.0.0.1:{outside.port}"
    connecting = call("connect", result(0), f"@<127.0.0.1|{outside.port}>", 16)
    steps = outside.spell((TCP4, connecting, *ENDS[how]))
    outcome, said = runs.run(*steps, net=net, timeout=A_SECOND // 2)
    assert errnos(said)[:2] == [0, 115], (outcome, said)
    connection, _ = outside.allowed.accept()
    with connection:
        assert select.select([connection], [], [], 5)[0], "somebody holds the connection"
    assert not outcome.denials


QUESTIONS = {
    "a NUL": zeros(4) + " 4",
    "a path": text("../../etc/passwd") + " 16",
    "a format": text("%s%n%s%n") + " 8",
    "no text": data(bytes(range(128, 256))) + " 128",
    "a name longer than any": data(b"a" * 254) + " 254",
    "very much": zeros(100000) + " 100000",
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_questions_that_are_none(runs: Runs, question: str) -> None:
    """Who answers for names is the supervisor: it says that there is none, and nothing else."""
    steps = (
        f"{number('sendto')} {RESOLVER} {question} 0 0 0",
        call("recvfrom", RESOLVER, ">8", 8, 0, 0, 0),
    )
    outcome, said = runs.run(*steps, host=True)
    assert outcome.reason == "exit", said
    assert b"1> 0000000000000000" in said


def test_question_that_ends_the_conversation(runs: Runs) -> None:
    """Nobody answers it, nor any other: it is the worker's time that runs."""
    steps = (
        call("sendto", RESOLVER, zeros(1), 0, 0, 0, 0),
        call("sendto", RESOLVER, text("localhost"), 9, 0, 0, 0),
        call("recvfrom", RESOLVER, zeros(64), 64, 0, 0, 0),
    )
    outcome, said = runs.run(*steps, host=True, timeout=A_SECOND // 4)
    assert outcome.reason == "timeout" or errnos(said)[1:] != [0, 0], said


def test_questions_without_end(runs: Runs) -> None:
    """A worker that asks and does not listen is the only one to wait."""
    asking = f"repeat {number('sendto')} {RESOLVER} {text('..')} 2 {MSG_DONTWAIT} 0 0"
    outcome, said = runs.run(*[asking] * 20, "sleep 100", host=True, timeout=A_SECOND // 2)
    assert outcome.reason == "timeout", said
