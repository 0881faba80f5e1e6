"""Real programs that nobody here wrote, unchanged."""

from __future__ import annotations

import json
import struct
import zlib

import pytest


@pytest.fixture(scope="module")
def cpython(guests):
    return guests.foreign("python")


@pytest.fixture(scope="module")
def quickjs(guests):
    return guests.foreign("quickjs")


def test_cpython_evaluates(wasisup, cpython):
    """CPython starts without any grant and imports from its own standard library."""
    result = wasisup.run(
        cpython, "-c", "import sys, json; print(json.dumps([sys.platform, 6 * 7]))"
    )
    assert json.loads(result.ok().out) == ["wasi", 42]


def test_cpython_runs_a_script_from_a_directory(wasisup, cpython, room):
    """A script in a mounted directory imports its neighbour, reads and writes files and JSON."""
    (room / "helper.py").write_text("def double(n):\n    return 2 * n\n")
    (room / "in.json").write_text('{"n": 21, "word": "\u00e9t\u00e9"}')
    (room / "main.py").write_text(
        "import json, os, pathlib, sys\n"
        "sys.dont_write_bytecode = True\n"
        "from helper import double\n"
        "data = json.load(open('/data/in.json', encoding='utf-8'))\n"
        "data['n'] = double(data['n'])\n"
        "data['args'] = sys.argv[1:]\n"
        "data['env'] = os.environ.get('COLOUR')\n"
        "pathlib.Path('/data/sub').mkdir()\n"
        "with open('/data/sub/out.json', 'w', encoding='utf-8') as f:\n"
        "    json.dump(data, f)\n"
        "os.rename('/data/sub/out.json', '/data/out.json')\n"
        "os.rmdir('/data/sub')\n"
        "print(sorted(os.listdir('/data')), os.stat('/data/out.json').st_size > 10)\n"
    )
    room.chmod(0o777)
    result = wasisup.run(
        f"--dir={room}::/data", "--env", "COLOUR=blue", cpython, "/data/main.py", "a", "b c"
    ).ok()
    assert result.text == "['helper.py', 'in.json', 'main.py', 'out.json'] True\n"
    assert json.loads((room / "out.json").read_text()) == {
        "n": 42,
        "word": "\u00e9t\u00e9",
        "args": ["a", "b c"],
        "env": "blue",
    }


def test_cpython_reads_its_program_from_stdin(wasisup, cpython):
    """A program on standard input runs, and its exit status comes out."""
    result = wasisup.run(cpython, "-", stdin=b"import sys\nprint('from stdin')\nsys.exit(3)\n")
    assert (result.status, result.out) == (3, b"from stdin\n")


def test_cpython_traceback(wasisup, cpython):
    """An uncaught exception is the program's own failure, not the sandbox's."""
    result = wasisup.run(cpython, "-c", "1/0")
    assert result.status == 1
    assert "ZeroDivisionError" in result.errors
    assert result.report["reason"] == "exit"


def test_cpython_tempfile_in_a_tmpfs(wasisup, cpython):
    """A scratch file system holds temporary files and is gone afterwards."""
    program = (
        "import tempfile, os\n"
        "with tempfile.NamedTemporaryFile(dir='/tmp') as f:\n"
        "    f.write(b'x' * 100000); f.flush()\n"
        "    print(os.stat(f.name).st_size, len(os.listdir('/tmp')))\n"
    )
    for _ in range(2):
        result = wasisup.run("--tmpfs=/tmp:1MiB", cpython, "-c", program).ok()
        assert result.text == "100000 1\n"


def test_cpython_fills_its_tmpfs(wasisup, cpython):
    """Scratch space ends where it was said to end."""
    program = (
        "import errno\n"
        "try:\n"
        "    open('/tmp/big', 'wb').write(b'x' * (2 << 20))\n"
        "except OSError as e:\n"
        "    print(errno.errorcode[e.errno])\n"
    )
    assert wasisup.run("--tmpfs=/tmp:1MiB", cpython, "-c", program).ok().text == "ENOSPC\n"


def test_quickjs_evaluates(wasisup, quickjs):
    """QuickJS evaluates an expression given on its command line."""
    result = wasisup.run(quickjs, "-e", "print([1, 2, 3].map(x => x * x).join())").ok()
    assert result.text == "1,4,9\n"


def test_quickjs_runs_modules_and_files(wasisup, quickjs, room):
    """QuickJS loads an ES module from a mounted directory and writes a file."""
    (room / "lib.js").write_text("export const name = 'module';\n")
    (room / "main.js").write_text(
        "import { name } from './lib.js';\n"
        "import * as std from 'qjs:std';\n"
        "const f = std.open('out.json', 'w');\n"
        "f.puts(JSON.stringify({ name, n: 2n ** 64n + '' }));\n"
        "f.close();\n"
        "console.log('done');\n"
    )
    result = wasisup.run("--dir=.", quickjs, "--std", "-m", "main.js", cwd=room).ok()
    assert result.text == "done\n"
    written = json.loads((room / "out.json").read_text())
    assert written == {"name": "module", "n": "18446744073709551616"}


def pixels(png: bytes) -> tuple[int, int, bytes]:
    """Width, height and the first row of an RGBA picture whose rows use no or the Sub filter."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    data, at = b"", 8
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        if kind == b"IDAT":
            data += png[at + 8 : at + 8 + size]
        at += 12 + size
    return width, height, zlib.decompress(data)[: 1 + 4 * width]


def test_resvg_draws(wasisup, guests, room):
    """resvg turns a drawing into a picture of the right size and colour."""
    (room / "in.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30">'
        '<rect width="40" height="30" fill="#102030"/>'
        '<circle cx="20" cy="15" r="5" fill="red"/></svg>'
    )
    wasisup.run("--dir=.", guests.foreign("resvg"), "in.svg", "out.png", cwd=room).ok()
    width, height, row = pixels((room / "out.png").read_bytes())
    assert (width, height) == (40, 30)
    assert row[1:5] == bytes([0x10, 0x20, 0x30, 0xFF])


def test_graphviz_is_described(wasisup, guests):
    """graphviz, a reactor, is inspected: its exports are its interface."""
    result = wasisup("inspect", "--json", guests.foreign("graphviz")).ok()
    names = {f["name"] for f in json.loads(result.out)["exported_functions"]}
    assert {"graphviz_render", "malloc"} <= names


def test_go_goroutines(wasisup, guests, room):
    """Go's scheduler, timers and locks work on one thread; files and JSON too."""
    program = guests.go("routines")
    result = wasisup.run("--dir=.::/", program, "sum.json", cwd=room).ok()
    assert result.text.splitlines() == ["sum 328350 seen 100 args [sum.json]", "1 <nil>"]
    assert json.loads((room / "sum.json").read_text()) == {"sum": 328350}


def test_the_programs_run_under_pulley(wasisup, quickjs):
    """A real program runs on the interpreter as well, where nothing is ever executable."""
    assert wasisup.run("--engine=pulley", quickjs, "-e", "print(1 + 2)").ok().text == "3\n"
