"""Waiting for a child: its end, the clock, signals; and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from wasisup.supervisor import child


class Process(NamedTuple):
    pid: int
    pidfd: int


@pytest.fixture
def signals() -> Iterator[child.Signals]:
    with child.Signals() as made:
        yield made


def start(code: str) -> Process:
    """A child of this process that runs `code`."""
    pid = os.posix_spawn(sys.executable, [sys.executable, "-S", "-E", "-c", code], os.environ)
    return Process(pid, os.pidfd_open(pid))


def sleeper() -> Process:
    return start("import signal; signal.pause()")


def wait(process: Process, signals: child.Signals, timeout: float | None = None) -> child.Ended:
    try:
        return child.wait(
            process.pid,
            process.pidfd,
            signals,
            started=time.monotonic_ns(),
            timeout_ns=None if timeout is None else int(timeout * 1e9),
        )
    finally:
        os.close(process.pidfd)


def is_reaped(pid: int) -> bool:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def test_it_ends_by_itself(signals: child.Signals) -> None:
    """Status and usage are the kernel's."""
    process = start("raise SystemExit(7)")
    ended = wait(process, signals, 60)
    assert (os.waitstatus_to_exitcode(ended.status), ended.cause) == (7, None)
    assert ended.usage.ru_maxrss > 0
    assert ended.wall_ns > 0
    assert is_reaped(process.pid)


def test_the_clock(signals: child.Signals) -> None:
    """A sleeping child is killed when its time is over, within 50 ms."""
    ended = wait(sleeper(), signals, 0.2)
    assert (os.waitstatus_to_exitcode(ended.status), ended.cause) == (-signal.SIGKILL, "timeout")
    assert 0.2 <= ended.wall_ns / 1e9 < 0.25


def test_no_time_at_all(signals: child.Signals) -> None:
    """A timeout that is over before the wait begins."""
    assert wait(sleeper(), signals, 0).cause == "timeout"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_it(signals: child.Signals, number: signal.Signals) -> None:
    """One that came before the wait is not lost, and the first one counts."""
    os.kill(os.getpid(), number)
    os.kill(os.getpid(), signal.SIGTERM)
    ended = wait(sleeper(), signals)
    assert ended.cause == number


def test_a_signal_during_the_wait(signals: child.Signals) -> None:
    """From another process, while nothing happens here."""
    process = sleeper()
    subprocess.Popen(["kill", "-TERM", str(os.getpid())]).wait()
    assert wait(process, signals).cause == signal.SIGTERM


def test_handlers_are_put_back() -> None:
    """Before and after, the caller's handlers and wake-up descriptor are in force."""

    def handler(*_: object) -> None: ...

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with child.Signals():
            assert signal.getsignal(signal.SIGTERM) is not handler
        assert signal.getsignal(signal.SIGTERM) is handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGTERM, before)


def test_ignored_signals_stay_ignored() -> None:
    """nohup, and jobs that a shell put into the background."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with child.Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.take() == []
            assert signals.asked is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ignored_children() -> None:
    """SIGCHLD inherited as ignored: exit statuses are not lost, and afterwards it is as before."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with child.Signals() as signals:
            ended = wait(start("raise SystemExit(7)"), signals, 60)
        assert os.waitstatus_to_exitcode(ended.status) == 7
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_outside_the_main_thread() -> None:
    """There are no signals, and waiting works all the same."""
    found: list[child.Ended] = []

    def body() -> None:
        with child.Signals() as signals:
            found.append(wait(start("raise SystemExit(3)"), signals))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert os.waitstatus_to_exitcode(found[0].status) == 3


def test_an_exception_leaves_nothing(signals: child.Signals) -> None:
    """Whatever is raised while waiting, the child is killed and reaped."""
    process = sleeper()

    def tick(_: float) -> None:
        raise RuntimeError("display broke")

    with pytest.raises(RuntimeError):
        child.wait(
            process.pid,
            process.pidfd,
            signals,
            started=time.monotonic_ns(),
            timeout_ns=None,
            tick=tick,
        )
    os.close(process.pidfd)
    assert is_reaped(process.pid)


def test_asked_before_there_is_a_worker(signals: child.Signals) -> None:
    """`check` says so by an exception, and `pause` wakes up for it."""
    signals.check()
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(child.Interrupted) as caught:
        signals.pause(60_000)
    assert caught.value.signal == signal.SIGINT


def test_one_stop_for_many_requests(
    signals: child.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker in the background asks for the terminal dozens of times before it is stopped; what
    asked for the end meanwhile still counts."""
    stops: list[int] = []
    real = os.kill

    def kill(pid: int, number: int) -> None:
        stops.append(number)
        real(pid, signal.SIGTERM)

    for _ in range(300):
        os.write(signals._write, bytes([signal.SIGTTIN]))
    monkeypatch.setattr(os, "kill", kill)
    with pytest.raises(child.Interrupted) as caught:
        signals.check()
    assert stops == [signal.SIGTTIN]
    assert caught.value.signal == signal.SIGTERM
    assert signals.take() == []


STOPPED = """
import os, sys, time
from wasisup.supervisor import child
pid = os.posix_spawn(sys.executable, [sys.executable, "-c", "while True: pass"], os.environ)
with child.Signals() as signals:
    print(pid, flush=True)
    ended = child.wait(pid, os.pidfd_open(pid), signals, started=time.monotonic_ns(),
                       timeout_ns=None)
print(ended.cause, flush=True)
"""


def state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def wait_for_state(pid: int, wanted: str) -> None:
    deadline = time.monotonic() + 30
    while state(pid) not in wanted:
        assert time.monotonic() < deadline, f"{pid} is {state(pid)} and not {wanted}"


def test_stopping_and_going_on() -> None:
    """Ctrl-Z stops the worker with the command, `fg` lets both go on."""
    command = subprocess.Popen(
        [sys.executable, "-c", STOPPED],
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with command:
        assert command.stdout is not None
        worker = int(command.stdout.readline())
        command.send_signal(signal.SIGTSTP)
        assert os.waitid(os.P_PID, command.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        wait_for_state(worker, "T")
        command.send_signal(signal.SIGCONT)
        wait_for_state(worker, "RS")
        command.send_signal(signal.SIGTERM)
        assert command.stdout.read().split() == [str(int(signal.SIGTERM))]
    assert not os.path.exists(f"/proc/{worker}")
