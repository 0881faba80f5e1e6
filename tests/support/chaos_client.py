"""A client of the chaos test: runs guests of every kind until its stdin ends, or it is killed.

Every line on stdout is one write: what was begun, and every id and every end that the daemon told.
"""

from __future__ import annotations

import json
import os
import random
import select
import sys
from collections.abc import Callable
from typing import Any

from wasisup.supervisor import wire
from wasisup.supervisor.client.options import PIPE
from wasisup.supervisor.client.sync import Client
from wasisup.supervisor.errors import ApiError, Conflict, DaemonUnavailable, NotFound, WasisupError
from wasisup.supervisor.shapes import Dir

from .chaos import Wire


class Chaotic:
    """Does one thing after the other, as its random numbers say."""

    def __init__(self, name: str, socket: str, folder: str) -> None:
        self.name = name
        self.socket = socket
        self.folder = folder
        self.random = random.Random(name)
        self.client = Client(socket)
        self.count = 0

    def run(self) -> None:
        over = select.poll()
        over.register(0, select.POLLIN)
        kinds: list[Callable[[], None]] = [
            self.waited, self.waited, self.once, self.once, self.flood, self.killed_by_quota,
            self.detached, self.fed, self.ended_by_me, self.left_behind, self.attached, self.bytes,
        ]  # fmt: skip
        while not over.poll(0):
            self.count += 1
            kind = self.random.choice(kinds)
            self.say(begins=kind.__name__)
            try:
                kind()
            except (DaemonUnavailable, Conflict) as error:
                self.say(lost=type(error).__name__)
            except NotFound as error:
                self.say(wrong=f"{kind.__name__}: {error}")
            except ApiError as error:
                # A daemon that was killed has no say; a living one may be without a zygote.
                self.say(refused=f"{error.status} {error}")
            except WasisupError as error:
                self.say(failed=f"{kind.__name__}: {error}")

    def say(self, **what: Any) -> None:
        os.write(1, json.dumps(what).encode() + b"\n")

    def told(self, run: wire.Run | None) -> wire.Run:
        """Reports what the daemon said of a run."""
        assert run is not None
        end = None if run.outcome is None else [run.outcome.reason, run.outcome.status]
        self.say(run=run.id, end=end)
        return run

    def module(self, name: str = "stdio") -> str:
        return f"{self.folder}/{name}.wasm"

    # --- what it does ---

    def waited(self) -> None:
        code = self.random.randrange(64)
        result = self.client.run(self.module(), ["exit", str(code)])
        self.told(result.run)
        if result.reason == "exit" and result.exit_code != code:
            self.say(wrong=f"exit code {result.exit_code}, not {code}")

    def once(self) -> None:
        """Leaves one byte for each run."""
        mark = f"/m/{self.name}-{self.count}"
        marks = Dir(f"{self.folder}/marks", "/m")
        self.told(self.client.run(self.module("append"), [mark], dirs=[marks]).run)

    def flood(self) -> None:
        size = self.random.choice([100, 70_000, 1_000_000])
        result = self.client.run(self.module(), ["pour", str(size)])
        self.told(result.run)
        if result.reason == "exit" and len(result.stdout) != size:
            self.say(wrong=f"{len(result.stdout)} bytes of {size}")

    def killed_by_quota(self) -> None:
        what, quota = self.random.choice([
            ("trap", {}), ("spin", {"timeout": "30ms"}), ("spin", {"cpu_time": "20ms"}),
            ("pour", {"output": "10KiB"}),
        ])  # fmt: skip
        self.told(self.client.run(self.module(), [what, "1000000"], **quota).run)

    def detached(self) -> None:
        size = str(self.random.choice([10, 100_000]))
        run = self.told(self.client.start(self.module(), ["pour", size]))
        self.told(self.client.wait(run.id))
        for _ in self.client.logs(run.id):
            pass

    def fed(self) -> None:
        run = self.told(self.client.start(self.module(), ["cat"], stdin=PIPE))
        self.client.write_stdin(run.id, bytes(5000))
        self.client.write_stdin(run.id, close=True)
        self.told(self.client.wait(run.id))

    def ended_by_me(self) -> None:
        run = self.told(self.client.start(self.module(), ["spin"]))
        if self.random.random() < 0.5:
            self.client.signal(run.id, "STOP")
        self.told(self.client.kill(run.id))

    def left_behind(self) -> None:
        self.told(self.client.start(self.module(), ["sleep", "200"], timeout="1s"))

    def attached(self) -> None:
        """Sees the output itself; sometimes it goes away in the middle."""
        reader, writer = os.pipe()
        with Wire(self.socket) as wire_, open(reader, "rb") as output:
            try:
                request = {
                    "module": {"path": self.module()}, "args": ["sleep", "20"], "attach": True,
                    "stdout": {"fd": 0},
                }  # fmt: skip
                wire_.send("POST", "/v1/runs", request, [writer])
                os.close(writer)
                status, answer = wire_.receive()
                if status != 201:
                    self.say(refused=f"{status} {answer}")
                    return
                self.say(run=answer["id"], end=None)
                if self.random.random() < 0.5:
                    return
                status, answer = wire_.ask("GET", f"/v1/runs/{answer['id']}/wait")
            except (OSError, EOFError, ValueError) as error:
                self.say(lost=type(error).__name__)
                return
            end = answer["outcome"]
            self.say(run=answer["id"], end=[end["reason"], end["status"]])
            output.read()

    def bytes(self) -> None:
        """A module that nobody has seen before: it is compiled."""
        with open(self.module("append"), "rb") as file:
            module = file.read()
        # A custom section (core specification, 5.5.3) with something of its own in it.
        own = self.name.encode() + b"-%d" % self.count
        module += bytes([0, len(own) + 2, 1]) + b"x" + own
        self.told(self.client.run(module).run)


if __name__ == "__main__":
    name, socket_path, folder_path, uid = sys.argv[1:]
    if int(uid) != os.getuid():
        os.setgroups([])
        os.setgid(int(uid))
        os.setuid(int(uid))
    Chaotic(name, socket_path, folder_path).run()
