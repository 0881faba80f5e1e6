"""stdin, stdout and stderr are the caller's, handed to the worker directly."""

from __future__ import annotations

import os
import pty
import random
import select
import signal
import subprocess
import termios
import tty

import pytest


def test_a_mebibyte_through_cat(wasisup, guests):
    """Binary input comes out unchanged."""
    data = random.Random(1).randbytes(1 << 20)
    result = wasisup.run(guests.c("stdio"), "cat", stdin=data).ok()
    assert result.out == data
    assert result.report["usage"]["output"] == len(data)


def test_an_empty_stdin(wasisup, guests):
    """End of file is end of file."""
    assert wasisup.run(guests.c("stdio"), "cat", stdin=b"").ok().out == b""


def test_streams_are_kept_apart(wasisup, guests):
    """stdout and stderr arrive where they belong."""
    result = wasisup.run(guests.c("stdio"), "both").ok()
    assert (result.out, result.err) == (b"out\n", b"err\n")


def test_files_as_streams(wasisup, guests, room):
    """Streams may be regular files, and appending starts at their end."""
    (room / "in").write_bytes(b"x" * 100_000)
    (room / "out").write_bytes(b"before\n")
    with open(room / "in", "rb") as stdin, open(room / "out", "ab") as stdout:
        done = subprocess.run(
            wasisup.argv("run", guests.c("stdio"), "cat"),
            env=wasisup.env, stdin=stdin, stdout=stdout, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 0
    assert (room / "out").read_bytes() == b"before\n" + b"x" * 100_000


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_stream_that_is_closed(wasisup, guests, closed):
    """A caller that has closed one of its streams gets no other file in its place."""
    script = f'exec "$@" {closed}>&-' if closed else 'exec "$@" 0<&-'
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", *wasisup.argv("run", guests.c("stdio"), "both")],
        env=wasisup.env, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr
    assert done.returncode == 0
    assert done.stdout == (b"" if closed == 1 else b"out\n")
    assert done.stderr == (b"" if closed == 2 else b"err\n")


def test_a_closed_stdout(wasisup, guests):
    """A reader that has gone is EIO in the guest; the command has no traceback."""
    with wasisup.popen("run", guests.c("stdio"), "pour", "10000000") as process:
        process.stdout.read(10)
        process.stdout.close()
        errors = process.stderr.read()
        status = process.wait(60)
    assert b"write: errno 29" in errors  # EIO
    assert b"Traceback" not in errors
    assert status == 1


def test_a_broken_pipe_of_our_own_output(wasisup):
    """`wasisup run --help | true` is no traceback."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        wasisup.argv("run", "--help"),
        env=wasisup.env, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False,
    )  # fmt: skip
    os.close(writer)
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


def test_output_arrives_while_the_guest_runs(wasisup, guests):
    """Nothing is held back: a line is there before the guest ends, and input is taken after."""
    with wasisup.popen("run", guests.c("stdio"), "block") as process:
        assert process.stdout.readline() == b"ready\n"
        process.stdin.write(b"*")
        process.stdin.close()
        assert process.wait(60) == ord("*")


class Terminal:
    """A command on a pseudo terminal of its own, as its session's foreground process."""

    def __init__(self, wasisup, *args) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            argv = wasisup.argv(*args)
            os.execve(argv[0], argv, {**wasisup.env, "TERM": "xterm"})
        self.seen = b""

    def read_until(self, text: bytes, timeout: float = 60) -> bytes:
        """Everything printed so far, once `text` is in it or the terminal is closed."""
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], timeout)
            assert ready, f"waited for {text!r}, saw {self.seen!r}"
            try:
                part = os.read(self.master, 4096)
            except OSError:  # EIO: the last one on the other side has gone
                break
            if not part:
                break
            self.seen += part
        return self.seen

    def wait(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        os.close(self.master)
        return os.waitstatus_to_exitcode(status)


def test_a_terminal_is_a_terminal(wasisup, guests):
    """On a terminal the guest sees a terminal, and not on a pipe."""
    terminal = Terminal(wasisup, "run", guests.c("stdio"), "isatty")
    terminal.read_until(b"never")
    assert terminal.wait() == 0
    assert b"1 1 1" in terminal.seen
    assert wasisup.run(guests.c("stdio"), "isatty").ok().text == "0 0 0\n"


def test_typing_at_a_guest(wasisup, guests):
    """A guest reads lines from the terminal, and Ctrl-D ends its input."""
    terminal = Terminal(wasisup, "run", guests.c("stdio"), "cat")
    os.write(terminal.master, b"typed\n")
    terminal.read_until(b"typed\r\ntyped\r\n")
    os.write(terminal.master, b"\x04")
    terminal.read_until(b"never")
    assert terminal.wait() == 0


@pytest.mark.parametrize("what", ["block", "spin", "sleep"])
def test_ctrl_c(wasisup, guests, what):
    """Ctrl-C on the terminal ends the run with 130, whatever the guest is doing."""
    terminal = Terminal(wasisup, "run", guests.c("stdio"), what, "60000")
    terminal.read_until(b"ready")
    os.write(terminal.master, b"\x03")
    terminal.read_until(b"never")
    assert terminal.wait() in (130, -signal.SIGINT)
    assert b"Traceback" not in terminal.seen


def test_a_raw_terminal_stays_as_it_was(wasisup, guests):
    """The run leaves the terminal's settings alone."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    before = termios.tcgetattr(slave)
    done = subprocess.run(
        wasisup.argv("run", guests.c("stdio"), "isatty"),
        env=wasisup.env, stdin=slave, stdout=slave, stderr=slave, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert termios.tcgetattr(slave) == before
    assert os.get_blocking(slave)
    os.close(slave)
    os.close(master)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_run(wasisup, guests, number):
    """SIGTERM ends with 143, and the others alike, without a traceback."""
    with wasisup.popen("run", guests.c("stdio"), "block") as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        errors = process.stderr.read()
        assert process.wait(60) in (128 + number, -number)
    assert b"Traceback" not in errors


def test_ignored_signals_stay_ignored(wasisup, guests):
    """nohup means what it says: a SIGHUP that the caller ignores does not end the run."""
    argv = ["/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh"]
    process = subprocess.Popen(
        argv + wasisup.argv("run", guests.c("stdio"), "block"),
        env=wasisup.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGHUP)
        process.stdin.write(b"A")
        process.stdin.close()
        assert process.wait(60) == ord("A")


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_a_socket_as_a_stream(wasisup, guests, stream):
    """A socket in a stream's place works as a pipe does."""
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, stream: theirs}
        process = subprocess.Popen(
            wasisup.argv("run", guests.c("stdio"), "cat"), env=wasisup.env, **streams
        )
        with process:
            theirs.close()
            if stream == "stdin":
                ours.sendall(b"through")
                ours.shutdown(socket.SHUT_WR)
                assert process.stdout.read() == b"through"
            else:
                process.stdin.write(b"through")
                process.stdin.close()
                assert ours.recv(100) == b"through"
            assert process.wait(60) == 0
