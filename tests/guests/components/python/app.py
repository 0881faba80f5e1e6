"""A command for wasi:cli/run, made into a component by componentize-py.

cat FILES, write FILE TEXT, append FILE TEXT, list DIRECTORY, remove FILE, move OLD NEW, stat FILE,
words, env, upper, grow MEBIBYTES, spin, chatter, fail, raise, resolve NAME, get URLS,
post URL TEXT, tcp HOST PORT TEXT, serve HOST PORT, udp HOST PORT TEXT.  HOST is an IPv4 address.
"""

import os
import sys
from urllib.parse import urlsplit

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import (
    instance_network,
    ip_name_lookup,
    network,
    outgoing_handler,
    streams,
    tcp,
    tcp_create_socket,
    udp,
    udp_create_socket,
)
from wit_world.imports import wasi_http_types as http

WOULD_BLOCK = network.ErrorCode.WOULD_BLOCK
V4 = network.IpAddressFamily.IPV4


# --- files and the rest of wasi:cli, through Python's own library ---


def cat(*names):
    for name in names:
        with open(name, encoding="utf-8") as file:
            print(file.read(), end="")


def write(name, text, mode="w"):
    with open(name, mode, encoding="utf-8") as file:
        file.write(text)


def append(name, text):
    write(name, text, "a")


def list_(name):
    for entry in sorted(os.scandir(name), key=lambda entry: entry.name):
        print(entry.name + ("/" if entry.is_dir() else ""))


def stat(name):
    print(os.stat(name).st_size)


def words(*args):
    print(list(args))


def env():
    print(sorted(os.environ.items()))


def upper():
    for line in sys.stdin:
        sys.stdout.write(line.upper())


def grow(mebibytes):
    held = bytearray(int(mebibytes) << 20)
    print("held", len(held) >> 20)


def spin():
    while True:
        pass


def chatter():
    line = "x" * 4095 + "\n"
    while True:
        sys.stdout.write(line)


def fail():
    print("failing", file=sys.stderr)
    raise Err(None)


def raise_():
    raise RuntimeError("not caught")


# --- wasi:sockets ---


def address(host, port):
    octets = tuple(int(part) for part in host.split("."))
    return network.IpSocketAddress_Ipv4(network.Ipv4SocketAddress(int(port), octets))


def shown(where):
    return ".".join(map(str, where.value.address)) + f":{where.value.port}"


def awaited(thing, call):
    """What `call` answers once it does not say any more that it would block."""
    while True:
        try:
            return call()
        except Err as error:
            if error.value != WOULD_BLOCK:
                raise
        with thing.subscribe() as pollable:
            pollable.block()


def read_all(stream):
    data = b""
    while True:
        try:
            data += stream.blocking_read(65536)
        except Err as error:
            if isinstance(error.value, streams.StreamError_Closed):
                return data
            raise


def resolve(name):
    found = ip_name_lookup.resolve_addresses(instance_network.instance_network(), name)
    while (one := awaited(found, found.resolve_next_address)) is not None:
        print(".".join(map(str, one.value)) if len(one.value) == 4 else one.value)


def tcp_(host, port, text):
    with tcp_create_socket.create_tcp_socket(V4) as sock:
        sock.start_connect(instance_network.instance_network(), address(host, port))
        incoming, outgoing = awaited(sock, sock.finish_connect)
        with incoming, outgoing:
            outgoing.blocking_write_and_flush(text.encode())
            sock.shutdown(tcp.ShutdownType.SEND)
            print(read_all(incoming).decode())


def serve(host, port):
    with tcp_create_socket.create_tcp_socket(V4) as listener:
        listener.start_bind(instance_network.instance_network(), address(host, port))
        awaited(listener, listener.finish_bind)
        listener.start_listen()
        awaited(listener, listener.finish_listen)
        print("listening", shown(listener.local_address()), flush=True)
        sock, incoming, outgoing = awaited(listener, listener.accept)
        with sock, incoming, outgoing:
            outgoing.blocking_write_and_flush(read_all(incoming).upper())


def udp_(host, port, text):
    with udp_create_socket.create_udp_socket(V4) as sock:
        sock.start_bind(instance_network.instance_network(), address("0.0.0.0", 0))
        awaited(sock, sock.finish_bind)
        incoming, outgoing = sock.stream(address(host, port))
        with incoming, outgoing:
            outgoing.check_send()
            outgoing.send([udp.OutgoingDatagram(text.encode(), None)])
            while not (got := incoming.receive(1)):
                with incoming.subscribe() as pollable:
                    pollable.block()
            print(got[0].data.decode(), "from", shown(got[0].remote_address))


# --- wasi:http ---


def exchange(method, url, text=""):
    parts = urlsplit(url)
    length = str(len(text.encode())).encode()
    request = http.OutgoingRequest(http.Fields.from_list([("content-length", length)]))
    request.set_method(method)
    request.set_scheme(http.Scheme_Http())
    request.set_authority(parts.netloc)
    request.set_path_with_query(parts.path or "/")
    body = request.body()
    if text:
        with body.write() as stream:
            stream.blocking_write_and_flush(text.encode())
    answer = outgoing_handler.handle(request, None)
    http.OutgoingBody.finish(body, None)
    with answer.subscribe() as pollable:
        pollable.block()
    outcome = answer.get().value
    if isinstance(outcome, Err):
        raise outcome
    with outcome.value as response, response.consume() as content:
        with content.stream() as stream:
            data = read_all(stream)
        location = response.headers().get("location")
        return response.status(), data.decode(), location[0].decode() if location else None


def get(*urls):
    for url in urls:
        try:
            status, text, location = exchange(http.Method_Get(), url)
            if location:
                print(status, location)
                status, text, location = exchange(http.Method_Get(), location)
            print(status, text)
        except Err as error:
            print("error", type(error.value).__name__.removeprefix("ErrorCode_"))


def post(url, text):
    print(*exchange(http.Method_Post(), url, text)[:2])


COMMANDS = {
    "cat": cat, "write": write, "append": append, "list": list_, "remove": os.remove,
    "move": os.rename, "stat": stat, "words": words, "env": env, "upper": upper, "grow": grow,
    "spin": spin, "chatter": chatter, "fail": fail, "raise": raise_, "resolve": resolve,
    "tcp": tcp_, "serve": serve, "udp": udp_, "get": get, "post": post,
}  # fmt: skip


class Run(exports.Run):
    def run(self):
        try:
            COMMANDS[sys.argv[1]](*sys.argv[2:])
        except OSError as error:
            print(f"{error.strerror}: {error.filename}", file=sys.stderr)
            raise Err(None) from None
        except Err as error:
            if error.value is not None:
                print(getattr(error.value, "name", error.value))
            raise Err(None) from None
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
