"""The network of a component: nothing without --net, and with it exactly what was named.

The guest calls wasi:sockets by itself (guests/components/c/network.c); its `try` makes one attempt
for each address and prints what came of it.  Witnesses listen at every address that is not granted:
that an attempt was answered with an error is one thing, that nothing arrived another.

`test_thin_run.py` has the same tests again, through a daemon.
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from support.command import Command
from support.needs import unavailable
from support.network import Capture, free_port, needs_ipv6, upper_tcp, upper_udp, witnesses

# What the engine itself refuses, before it asks for anything: mapped and unspecified addresses.
REFUSED = {"access-denied", "invalid-argument"}


@pytest.fixture(scope="session")
def guest(guests):
    return guests.made_by("c")


def tried(result) -> dict[str, str]:
    """What came of each attempt."""
    lines = (line.partition(" ") for line in result.ok().text.splitlines())
    return {address: answer for address, _, answer in lines}


def denied(result, kind: str = "network") -> dict[str, int]:
    """The report's denials of one kind, with how often each was."""
    return {d["path"]: d["count"] for d in result.report["denials"] if d["kind"] == kind}


# --- nothing by default ---


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
def test_without_a_grant(wasisup, guest, engine):
    """Without --net nothing arrives anywhere, no name is known, and the report says what was tried
    and what would have allowed it."""
    listen = f"listen:tcp:127.0.0.1:{free_port()}"
    with witnesses(("tcp", "127.0.0.1", 0), ("udp", "127.0.0.1", 0)) as (tcp, udp):
        result = wasisup.run(
            f"--engine={engine}", guest, "try", tcp.address, udp.address, listen, "name:localhost"
        )
        assert not tcp.heard
        assert not udp.heard
    answers = tried(result)
    assert [answers[a] for a in (tcp.address, udp.address, listen)] == ["access-denied"] * 3
    assert answers["name:localhost"] != "ok"
    assert denied(result) == {tcp.address: 1, udp.address: 1, listen: 1}
    assert denied(result, "name") == {"localhost": 1}


def test_no_packet_leaves(wasisup, guest):
    """Nothing is on the wire but what a grant let out: not even a first packet."""
    if os.geteuid() != 0:
        pytest.skip("only root sees packets")
    places = [("tcp", "127.0.0.1", 0), ("udp", "127.0.0.1", 0), ("tcp", "127.0.0.1", 0)]
    with Capture() as capture, witnesses(*places) as (tcp, udp, granted):
        answers = tried(
            wasisup.run(
                "--net", granted.address, guest, "try", tcp.address, udp.address, granted.address
            )
        )
        assert [*answers.values()] == ["access-denied", "access-denied", "ok"]
        seen = capture.ports()
    assert granted.port in seen
    assert not {tcp.port, udp.port} & seen


def test_the_hint_of_a_denial(wasisup, guest):
    """A program that fails for a refused connection or look-up is told the flag for it."""
    with witnesses(("tcp", "127.0.0.1", 0)) as (tcp,):
        result = wasisup.run(guest, "ask", tcp.address, "x")
        assert not tcp.heard
    assert result.status == 1
    assert f"--net {tcp.address}" in result.errors


def test_every_attempt_is_counted(wasisup, guest):
    """The same attempt again is the same denial, counted."""
    address = "tcp:192.0.2.1:80"  # documentation, RFC 5737: nobody is there
    result = wasisup.run(guest, "try", *[address] * 5)
    assert result.ok().text == f"{address} access-denied\n" * 5
    assert denied(result) == {address: 5}


# --- exactly what was named ---


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
def test_a_client(wasisup, guest, engine):
    """A component connects to the address that was granted, sends, receives and sees the end."""
    with upper_tcp() as port:
        address = f"tcp:127.0.0.1:{port}"
        result = wasisup.run(f"--engine={engine}", "--net", address, guest, "ask", address, "words")
    assert result.ok().text == f"connected to 127.0.0.1:{port}\nWORDS\n"
    assert denied(result) == {}


def test_that_address_and_no_other(wasisup, guest):
    """One address and port, by one protocol, in one direction: all of the others are refused."""
    needs_ipv6()
    with upper_tcp() as port:
        granted = f"tcp:127.0.0.1:{port}"
        with witnesses(
            ("tcp", "127.0.0.1", 0), ("tcp", "127.0.0.2", port), ("tcp", "::1", port),
            ("udp", "127.0.0.1", port), ("udp", "::1", port),
        ) as others:  # fmt: skip
            refused = [one.address for one in others]
            refused += [f"listen:tcp:127.0.0.1:{free_port()}", f"listen:tcp:0.0.0.0:{free_port()}"]
            twisted = [f"tcp:[::ffff:7f00:1]:{port}", f"tcp:0.0.0.0:{port}", f"tcp:[::]:{port}"]
            twisted += [f"udp:[::ffff:7f00:1]:{port}", f"udp:0.0.0.0:{port}"]
            result = wasisup.run("--net", granted, guest, "try", granted, *refused, *twisted)
            assert [one.address for one in others if one.heard] == []
    answers = tried(result)
    assert answers.pop(granted) == "ok"
    assert {answers[address] for address in refused} == {"access-denied"}
    assert {answers[address] for address in twisted} <= REFUSED
    assert denied(result).keys() >= set(refused)
    assert granted not in denied(result)


def test_datagrams(wasisup, guest):
    """A component sends to the address that was granted and receives the answer; the same port by
    TCP, and other ports, are refused."""
    with upper_udp() as port, witnesses(("udp", "127.0.0.1", 0), ("tcp", "127.0.0.1", port)) as ws:
        address = f"udp:127.0.0.1:{port}"
        result = wasisup.run("--net", address, guest, "ask", address, "words").ok()
        assert result.text == f"WORDS from 127.0.0.1:{port}\n"
        result = wasisup.run("--net", address, guest, "try", *(one.address for one in ws))
        assert set(tried(result).values()) == {"access-denied"}
        assert not any(one.heard for one in ws)


def test_ports_and_networks(wasisup, guest):
    """A range of ports, all ports, and a CIDR reach what they name, to both of their ends."""
    first, last = free_port(), 65535
    with witnesses(("tcp", "127.0.0.2", 0), ("tcp", "127.0.0.1", 0)) as (second, other):
        ranged = wasisup.run(
            "--net", f"tcp:127.0.0.1:{other.port}-{other.port}", guest, "try", other.address,
            f"tcp:127.0.0.1:{other.port + 1 if other.port < last else first}", second.address,
        )  # fmt: skip
        assert list(tried(ranged).values()) == ["ok", "access-denied", "access-denied"]
        assert not second.heard
        every = wasisup.run("--net", "tcp:127.0.0.2:*", guest, "try", second.address, other.address)
        assert list(tried(every).values()) == ["ok", "access-denied"]
        network = wasisup.run(
            "--net", "tcp:127.0.0.0/8:*", guest, "try", second.address, other.address,
            "tcp:126.255.255.255:80", "tcp:128.0.0.0:80",
        )  # fmt: skip
        assert list(tried(network).values()) == ["ok", "ok", "access-denied", "access-denied"]


def test_a_wide_network_is_its_public_part(wasisup, guest):
    """Everything, as a CIDR, is not loopback, nor a private or link-local address."""
    with witnesses(("tcp", "127.0.0.1", 0)) as (local,):
        addresses = [local.address, "tcp:10.0.0.1:80", "tcp:192.168.0.1:80", "tcp:172.16.0.1:80",
                     "tcp:169.254.169.254:80", "tcp:[fe80::1]:80", "tcp:[fd00::1]:80"]  # fmt: skip
        result = wasisup.run(
            "--net", "tcp:0.0.0.0/0:*", "--net", "tcp:[::/0]:*", guest, "try", *addresses
        )
        assert not local.heard
    assert set(tried(result).values()) == {"access-denied"}
    assert denied(result).keys() == set(addresses)


def test_ipv6(wasisup, guest):
    """An IPv6 address is granted in brackets, and is not its IPv4 counterpart."""
    needs_ipv6()
    with upper_tcp("::1") as port, witnesses(("tcp", "127.0.0.1", port)) as (v4,):
        address = f"tcp:[::1]:{port}"
        result = wasisup.run("--net", address, guest, "ask", address, "six").ok()
        assert result.text == f"connected to [0:0:0:0:0:0:0:1]:{port}\nSIX\n"
        result = wasisup.run("--net", address, guest, "try", v4.address)
        assert list(tried(result).values()) == ["access-denied"]
        assert not v4.heard


def test_nobody_there(wasisup, guest):
    """That nobody listens at a granted address is said by the kernel, and is no denial."""
    address = f"tcp:127.0.0.1:{free_port()}"
    result = wasisup.run("--net", address, guest, "try", address)
    assert tried(result) == {address: "connection-refused"}
    assert denied(result) == {}


def test_many_connections(wasisup, guest):
    """Connections come and go: more of them than a run may have descriptors."""
    with upper_tcp() as port:
        address = f"tcp:127.0.0.1:{port}"
        result = wasisup.run("--net", address, "--fds=16", guest, "flood", address, "300").ok()
    assert result.text == "done\n"


def test_large_transfers(wasisup, guest):
    """Bytes pass both ways whole, past every buffer on the way."""
    size = 8 << 20
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"tcp:127.0.0.1:{listener.getsockname()[1]}"
    with listener:
        with wasisup.popen("run", "--net", address, guest, "pump", address, str(size)) as process:
            listener.settimeout(30)
            connection, _ = listener.accept()
            with connection:
                received = 0
                while part := connection.recv(1 << 16):
                    received += len(part)
            assert process.communicate(timeout=30) == (b"done\n", b"")
        assert received == size
        with wasisup.popen("run", "--net", address, guest, "drain", address) as process:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(bytes(size))
            assert process.communicate(timeout=30) == (f"{size}\n".encode(), b"")


# --- listening ---


def first_line(process) -> str:
    line = process.stdout.readline().decode()
    assert line, process.stderr.read()
    return line


@pytest.mark.parametrize("engine", ["cranelift", "pulley"])
def test_a_server(wasisup, guest, engine):
    """A component listens where it was allowed to, and answers who connects."""
    address = f"listen:tcp:127.0.0.1:{free_port()}"
    port = int(address.rpartition(":")[2])
    with wasisup.popen(
        "run", f"--engine={engine}", "--net", address, guest, "serve", address, "2"
    ) as process:
        assert first_line(process) == f"listening 127.0.0.1:{port}\n"
        for words in (b"one", b"two"):
            with socket.create_connection(("127.0.0.1", port), 10) as peer:
                peer.sendall(words)
                peer.shutdown(socket.SHUT_WR)
                assert peer.recv(100) == words.upper()
                assert peer.recv(100) == b""
        assert process.communicate(timeout=30) == (b"", b"")
        assert process.returncode == 0


def test_a_server_of_datagrams(wasisup, guest):
    """A component that may receive datagrams answers who sent them, who is nobody that it could
    have named."""
    port = free_port(kind=socket.SOCK_DGRAM)
    address = f"listen:udp:127.0.0.1:{port}"
    with wasisup.popen("run", "--net", address, guest, "serve", address, "1") as process:
        assert first_line(process) == f"listening 127.0.0.1:{port}\n"
        with socket.socket(type=socket.SOCK_DGRAM) as peer:
            peer.settimeout(10)
            peer.sendto(b"words", ("127.0.0.1", port))
            rest = process.communicate(timeout=30)[0]
    assert rest.startswith(b"WORDS")


def test_listening_is_not_connecting(wasisup, guest):
    """A grant to listen allows neither another address or port, nor a connection to its own."""
    port = free_port()
    granted = f"listen:tcp:127.0.0.1:{port}"
    with witnesses(("tcp", "127.0.0.1", 0)) as (other,):
        refused = [f"listen:tcp:127.0.0.1:{free_port()}", f"listen:tcp:127.0.0.2:{port}",
                   f"listen:tcp:0.0.0.0:{port}", f"listen:udp:127.0.0.1:{port}",
                   f"tcp:127.0.0.1:{port}", other.address]  # fmt: skip
        result = wasisup.run("--net", granted, guest, "try", granted, *refused)
        assert not other.heard
    answers = tried(result)
    assert answers.pop(granted) == "ok"
    assert set(answers.values()) == {"access-denied"}
    assert denied(result).keys() == set(refused)


def test_the_port_of_a_server_is_free_afterwards(wasisup, guest):
    """However a server ends, its port and its connections end with it."""
    address = f"listen:tcp:127.0.0.1:{free_port()}"
    port = int(address.rpartition(":")[2])
    with wasisup.popen(
        "run", "--timeout=700ms", "--net", address, guest, "serve", address, "9"
    ) as process:
        first_line(process)
        with socket.create_connection(("127.0.0.1", port), 10) as peer:
            peer.settimeout(20)
            assert peer.recv(1) == b""  # the run's end, while the guest waited for us
        assert process.wait(30) == 124
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 10)


# --- names ---


def test_names(wasisup, guest):
    """A granted name is resolved before the run: it is known, and its addresses are reachable, by
    that port; no other name is known."""
    with upper_tcp() as port, witnesses(("tcp", "127.0.0.1", 0)) as (other,):
        address = f"tcp:127.0.0.1:{port}"
        result = wasisup.run(
            "--net", f"tcp:localhost:{port}", guest, "try", "name:localhost",
            "name:other.invalid", address, other.address,
        )  # fmt: skip
        assert not other.heard
    answers = tried(result)
    assert "127.0.0.1" in answers["name:localhost"]
    assert answers["name:localhost"].endswith(" ok")
    assert answers["name:other.invalid"] in {"name-unresolvable", "permanent-resolver-failure"}
    assert (answers[address], answers[other.address]) == ("ok", "access-denied")
    assert denied(result, "name") == {"other.invalid": 1}


def test_a_name_that_nobody_has(wasisup, guest):
    """A granted name that cannot be resolved keeps the run from starting, and is named."""
    result = wasisup.run("--net", "tcp:nobody.invalid:80", guest, "try", "name:nobody.invalid")
    assert (result.status, result.out) == (125, b"")
    assert "nobody.invalid" in result.errors


@pytest.fixture
def poisoned(wasisup, room) -> Command:
    """The command where names lead into private networks, by an /etc/hosts of its own."""
    if os.getuid() != 0:
        pytest.skip("mounts an /etc/hosts, which takes root")
    if not shutil.which("unshare"):
        unavailable("unshare (util-linux)")
    hosts = Path(room, "hosts")
    hosts.write_text(
        "127.0.0.1 localhost rebound.example\n10.1.2.3 inside.example\n"
        "169.254.169.254 both.example\n192.0.2.10 both.example\n198.18.0.1 both.example\n"
        "8.8.8.8 both.example\n"
    )
    script = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    prefix = ("unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh")
    return Command(wasisup.env, prefix)


@pytest.mark.parametrize("name", ["rebound.example", "inside.example"])
def test_a_name_that_leads_inside(poisoned, guest, name):
    """A name whose addresses are loopback or private is refused before the run: such addresses are
    granted by themselves."""
    with witnesses(("tcp", "127.0.0.1", 0)) as (local,):
        result = poisoned.run(
            "--net", f"tcp:{name}:{local.port}", guest, "try", f"name:{name}", local.address
        )
        assert not local.heard
    assert (result.status, result.out) == (125, b"")
    assert "no public address" in result.errors


def test_a_name_that_leads_inside_among_others(poisoned, guest):
    """Of a name's addresses only the public ones are answered, and reachable."""
    result = poisoned.run(
        "--net", "tcp:both.example:80", guest, "try", "name:both.example",
        "tcp:169.254.169.254:80", "tcp:127.0.0.1:80",
    )  # fmt: skip
    answers = tried(result)
    assert answers["name:both.example"] == "8.8.8.8:0 ok"
    assert answers["tcp:169.254.169.254:80"] == "access-denied"
    assert answers["tcp:127.0.0.1:80"] == "access-denied"


# --- everything ---


def test_the_hosts_network(wasisup, guest):
    """--net host, spelled out, is the host's whole network: addresses, ports, names."""
    listen = f"listen:tcp:0.0.0.0:{free_port()}"
    with witnesses(("tcp", "127.0.0.1", 0), ("udp", "127.0.0.1", 0)) as (tcp, udp):
        result = wasisup.run(
            "--net=host", guest, "try", tcp.address, udp.address, listen, "name:localhost"
        )
        assert tcp.heard
        assert udp.heard
    answers = tried(result)
    assert [answers[a] for a in (tcp.address, udp.address, listen)] == ["ok"] * 3
    assert answers["name:localhost"].endswith(" ok")
    assert denied(result) == {}


def test_as_an_ordinary_user(as_user, guest, room):
    """An ordinary user's run has the same grants and denials, without any privilege."""
    copy = Path(shutil.copy(guest, room))
    copy.chmod(0o644)
    with upper_tcp() as port, witnesses(("tcp", "127.0.0.1", 0)) as (other,):
        address = f"tcp:127.0.0.1:{port}"
        result = as_user.run("--net", address, copy, "try", address, other.address, cwd="/")
        assert not other.heard
    assert list(tried(result).values()) == ["ok", "access-denied"]
    assert denied(result) == {other.address: 1}
