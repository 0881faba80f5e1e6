"""What is said about the network outside of the core: the layout, and questions for names."""

from __future__ import annotations

import resource
import socket
from pathlib import Path

import pytest

from support import brokers, mirror
from wasisup.runtime import network, spec
from wasisup.supervisor import broker


def test_layout_is_the_header_s(tmp_path: Path) -> None:
    """Magic, version and bounds are those of core/network/protocol.h and core/spec/spec.h."""
    if mirror.compiler() is None:
        pytest.skip("needs a C compiler")
    expected = {
        "NET_MAGIC": network.MAGIC,
        "NET_VERSION": network.VERSION,
        "sizeof(struct net_hello)": network.HELLO_SIZE,
        "NET_MAX_ADDRESSES": network.MAX_ADDRESSES,
        "WS_SPEC_MAX_HOST": network.MAX_HOST,
        "WS_SPEC_MAX_HOST + 0": spec.MAX_HOST,
        "WS_SPEC_MAX_RULES": spec.MAX_RULES,
        "WS_SPEC_MAX_NAMES": spec.MAX_NAMES,
        "WS_KIND_BROKER": spec.KIND_BROKER,
        "sizeof(struct ws_rule)": 32,
        "sizeof(struct net_request)": 32,
        "sizeof(struct net_answer)": 16,
    }
    headers = ["network/protocol.h", "spec/spec.h"]
    assert mirror.values(list(expected), headers, tmp_path) == expected


@pytest.mark.parametrize(
    "question",
    [
        *(
            b"",
            b"a" * 254,
            b"a b",
            b"a\0b",
            b"a/b",
            b"../etc/hosts",
            b"%eth0",
            b"a\nb",
            b"\xc3\xa4",
        ),
        *(b"fe80::1%1", b"[::1]", b"a;b", b"a$b", b"\x1b[0m"),
    ],
)
def test_what_is_no_name_is_not_looked_up(question: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library's resolver never sees it, and the answer is: no addresses."""

    def never(*_: object) -> None:
        raise AssertionError("it was looked up")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    assert broker.look_up(question) == bytes(4)


def test_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses in their order, of the two families, without zones, and not too many."""
    found = [
        (socket.AF_INET6, 1, 6, "", ("fe80::1%lo", 0, 0, 1)),
        (socket.AF_INET, 1, 6, "", ("192.0.2.1", 0)),
        (socket.AF_UNIX, 1, 0, "", "/a"),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
    six, four = socket.inet_pton(socket.AF_INET6, "fe80::1"), b"\xc0\0\2\1" + bytes(12)
    expected = b"\2\0\0\0" + b"\6\0\0\0" + six + b"\4\0\0\0" + four
    assert broker.look_up(b"host.example") == expected
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found[1:2] * 1000)
    assert broker.look_up(b"host.example") == b"\x40\0\0\0" + (b"\4\0\0\0" + four) * 64


def test_a_name_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """No addresses: what the resolver said is not the guest's to know."""

    def unknown(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert broker.look_up(b"host.example") == bytes(4)


def test_rules_and_names_in_a_spec() -> None:
    """As core/spec/spec.h has them."""
    writer = spec.SpecWriter(spec.KIND_BROKER, "cranelift")
    writer.rule(brokers.wire(brokers.Rule("2001:db8::", 80, 90, actions=3, protocol=2, prefix=32)))
    writer.name("host.example", [(4, b"\xc0\0\2\1".ljust(16, b"\0"))])
    fields = dict(spec.decode_fields(writer.encode()))
    address = socket.inet_pton(socket.AF_INET6, "2001:db8::")
    assert fields[spec.TAG_RULE] == bytes([1, 3, 2, 6, 32, 0, 0, 0]) + address + b"P\0Z\0" + bytes(
        4
    )
    entry = b"\4\0\0\0\xc0\0\2\1" + bytes(12)
    assert fields[spec.TAG_NAME] == b"\1\0\0\0" + entry + b"host.example"


@pytest.mark.parametrize("host", ["", "a" * 254, "h\xe4st.example", "a\0b"])
def test_names_that_no_worker_is_told(host: str) -> None:
    """They are refused where the launch is written, not where it is read."""
    with pytest.raises(spec.SpecError):
        spec.SpecWriter(spec.KIND_RUN, "cranelift").name(host, [])


def test_answers_end_with_the_worker() -> None:
    """The thread goes when the other end is closed, and closes its own."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.send(b"127.0.0.1")
    theirs.send(b"no name")
    theirs.shutdown(socket.SHUT_WR)
    broker.answer_questions(ours)
    assert ours.fileno() == -1
    assert theirs.recv(100) == b"\1\0\0\0\4\0\0\0\x7f\0\0\1" + bytes(12)
    assert theirs.recv(100) == bytes(4)
    theirs.close()


def test_the_account_of_two_processes() -> None:
    """Times are added up; everything else is the worker's."""
    worker = resource.struct_rusage((1.5, 0.25, 1000, *range(13)))
    other = resource.struct_rusage((0.5, 0.5, 9000, *[7] * 13))
    both = broker.total(worker, other)
    assert (both.ru_utime, both.ru_stime, both.ru_maxrss) == (2.0, 0.75, 1000)
    assert tuple(both)[2:] == tuple(worker)[2:]
