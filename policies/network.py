"""The network in words: what `--net`, the key `net` of a policy and the API's field `net` take.

    tcp:HOST:PORT   udp:HOST:PORT       connect (UDP: send) to HOST
    listen:tcp:ADDRESS:PORT   listen:udp:ADDRESS:PORT
    host                                everything that the host's network gives

HOST is a name, an address or a CIDR; IPv6 goes in brackets, the prefix too: `[2001:db8::/32]`.
PORT is a number, a range such as `8000-8010`, or `*`.  What a grant comes to is said in
`supervisor/network.py`; these functions read text and ask nobody.
"""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from ..supervisor.model import NetGrant
from .addresses import PUBLIC, has_public_part, kind_of
from .grants import GrantError

HOST = "host"
FORM = "tcp:HOST:PORT, udp:HOST:PORT, listen:tcp:ADDRESS:PORT or host"
FIRST_PORT, LAST_PORT = 1, 65535
PROTOCOLS = ("tcp", "udp")

_URL_PORTS = {"http": "80", "ws": "80", "https": "443", "wss": "443"}
# RFC 1123, 2.1; and the underscore, which names inside of container networks often have.
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")
_MOST_LABEL, _MOST_NAME = 63, 253
_EVERY = str(IPv4Address(0))
_MAPPED = IPv6Network("::ffff:0:0/96")


def parse_net(text: str) -> "NetGrant | str":
    """The grant that `text` stands for, or HOST for the host's whole network.

    Raises GrantError, whose text says what would have been right.
    """
    if text == HOST:
        return HOST
    if not text.isprintable() or any(c.isspace() for c in text):
        raise GrantError(f"{text!r}: there is a space or a control character in it")
    if "://" in text:
        raise GrantError(f"{text!r} is a URL; a grant is written like {_of_url(text)}")
    action, rest = "connect", text
    if text.startswith("listen:"):
        action, rest = "listen", text.removeprefix("listen:")
    protocol, colon, rest = rest.partition(":")
    if protocol not in PROTOCOLS or not colon:
        raise GrantError(_no_protocol(text, action, protocol, rest))
    start = f"{text[: len(text) - len(rest)]}"
    host, port = _split(text, start, rest)
    low, high = _ports(text, port)
    if action == "listen":
        return NetGrant(action, protocol, _listening(text, host, start, port), low, high)
    return NetGrant(action, protocol, _reached(text, host, start, port), low, high)


def format_net(grant: NetGrant) -> str:
    """The grant as `parse_net` takes it."""
    host = f"[{grant.host}]" if ":" in grant.host else grant.host
    if (grant.low, grant.high) == (FIRST_PORT, LAST_PORT):
        ports = "*"
    else:
        ports = str(grant.low) if grant.low == grant.high else f"{grant.low}-{grant.high}"
    listen = "listen:" if grant.action == "listen" else ""
    return f"{listen}{grant.protocol}:{host}:{ports}"


def is_name(host: str) -> bool:
    """Whether the host of a grant is a name, and neither an address nor a CIDR."""
    return ":" not in host and not _ends_in_number(host.partition("/")[0])


def _of_url(text: str) -> str:
    """What may have been meant by a URL."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "HOST", parts.port
    except ValueError:
        return FORM
    host = f"[{host}]" if ":" in host else host
    return f"tcp:{host}:{port or _URL_PORTS.get(parts.scheme, 'PORT')}"


def _no_protocol(  # noqa: PLR0911  (one for each slip)
    text: str, action: str, protocol: str, rest: str
) -> str:
    listen = "listen:" if action == "listen" else ""
    if not text:
        return f"it is empty; write it like {FORM}"
    if protocol.lower() in PROTOCOLS and rest:
        return f"{text!r}: the protocol is in small letters: {listen}{protocol.lower()}:{rest}"
    if protocol == "listen" and rest:
        return f"{text!r}: `listen` comes once, and first: listen:{rest}"
    if protocol.lower() in (*PROTOCOLS, "listen"):
        return f"{text!r} is not whole; write it like {FORM}"
    if text.lower() == HOST:
        return f"{text!r}: for the host's whole network write {HOST!r}, in small letters"
    if rest and not protocol.isdigit():
        whole = text.removeprefix("listen:")
        return f"{text!r} does not say which protocol: {listen}tcp:{whole}, or {listen}udp:{whole}"
    return f"{text!r} is no grant; write it like {FORM}"


def _split(text: str, start: str, rest: str) -> "tuple[str, str]":
    """Host and port of `HOST:PORT`, the host without brackets."""
    if rest.startswith("["):
        host, bracket, after = rest[1:].partition("]")
        if not bracket:
            raise GrantError(f"{text!r}: the bracket is not closed; write it like {start}[::1]:80")
        if after.startswith("/"):
            prefix = after[1:].partition(":")
            port = prefix[2] or "PORT"
            raise GrantError(
                f"{text!r}: the prefix goes inside of the brackets:"
                f" {start}[{host}/{prefix[0]}]:{port}"
            )
        if ":" not in host:
            raise GrantError(
                f"{text!r}: brackets are for IPv6 addresses: {start}{host}{after or ':PORT'}"
            )
        if not after.startswith(":"):
            raise GrantError(_no_port(text, f"{start}[{host}]"))
        return host, after[1:]
    host, colon, port = rest.rpartition(":")
    if not colon:
        raise GrantError(_no_port(text, f"{start}{rest}" if rest else f"{start}HOST"))
    if ":" in host:
        raise GrantError(_too_many_colons(text, start, rest, host, port))
    if not host:
        raise GrantError(f"{text!r} names no host; write it like {start}HOST:{port or 'PORT'}")
    if not port:
        raise GrantError(_no_port(text, f"{start}{host}"))
    return host, port


def _no_port(text: str, so_far: str) -> str:
    return f"{text!r} has no port; write it like {so_far}:443, or {so_far}:* for every port"


def _too_many_colons(text: str, start: str, rest: str, host: str, port: str) -> str:
    brackets = "an IPv6 address goes in brackets"
    if _is_ip6(host):
        return f"{text!r}: {brackets}: {start}[{host}]:{port}"
    if _is_ip6(rest):
        return f"{text!r}: {brackets}: {start}[{rest}]:PORT"
    return f"{text!r} has too many parts; write it like {start}HOST:PORT"


def _is_ip6(text: str) -> bool:
    try:
        IPv6Address(text.partition("/")[0])
    except ValueError:
        return False
    return True


def _ports(text: str, port: str) -> "tuple[int, int]":
    if port == "*":
        return FIRST_PORT, LAST_PORT
    low_text, dash, high_text = port.partition("-")
    low = _port(text, low_text)
    high = _port(text, high_text) if dash else low
    if high < low:
        raise GrantError(f"{text!r}: the range is the wrong way round: {high}-{low}")
    return low, high


def _port(text: str, port: str) -> int:
    if not (port.isascii() and port.isdigit()):
        raise GrantError(
            f"{text!r}: {port!r} is no port; it is a number, a range like 8000-8010, or *"
        )
    number = int(port) if len(port) < 20 else LAST_PORT + 1
    if number > LAST_PORT:
        raise GrantError(f"{text!r}: ports end at {LAST_PORT}")
    if number < FIRST_PORT:
        raise GrantError(f"{text!r}: there is no port 0; for every port write *")
    return number


def _listening(text: str, host: str, start: str, port: str) -> str:
    """The address to listen on."""
    if "/" in host:
        every = "[::]" if ":" in host else _EVERY
        raise GrantError(
            f"{text!r}: a socket listens on one address, or on all: {start}{every}:{port}"
        )
    if ":" not in host and not _ends_in_number(host):
        one = "127.0.0.1" if host == "localhost" else _EVERY
        raise GrantError(
            f"{text!r}: a socket listens on an address, and {host!r} is none: {start}{one}:{port}"
        )
    return str(_address(text, host))


def _reached(text: str, host: str, start: str, port: str) -> str:
    """The name, address or CIDR to connect to."""
    if host == "*":
        raise GrantError(
            f"{text!r}: for every public address write {start}0.0.0.0/0:{port} and"
            f" {start}[::/0]:{port}"
        )
    address, slash, _ = host.partition("/")
    if not (":" in address or _ends_in_number(address)):
        if slash:
            raise GrantError(
                f"{text!r}: nothing but a port follows a name: {start}{address}:{port}"
            )
        return _name(text, host, start, port)
    found = _network(text, host, start, port) if slash else str(_address(text, address))
    if found.removesuffix("/32").removesuffix("/128") in (_EVERY, "::"):
        loopback, every = ("[::1]", "[::/0]") if ":" in found else ("127.0.0.1", "0.0.0.0/0")
        raise GrantError(
            f"{text!r}: nobody has this address; this machine is {start}{loopback}:{port}, every"
            f" public address {start}{every}:{port}"
        )
    return found


def _address(text: str, host: str) -> "IPv4Address | IPv6Address":
    if "%" in host:
        raise GrantError(f"{text!r}: an address is granted without its zone (%...)")
    try:
        found = ip_address(host)
    except ValueError:
        what = "IPv6 address" if ":" in host else "IPv4 address, which has four decimal numbers"
        raise GrantError(f"{text!r}: {host!r} is no {what}") from None
    # The same place by another name: the kernel connects to the IPv4 address.
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return found if mapped is None else mapped


def _network(text: str, host: str, start: str, port: str) -> str:
    address, _, prefix = host.partition("/")
    _address(text, address)
    if not (prefix.isascii() and prefix.isdigit()):
        raise GrantError(f"{text!r}: {prefix!r} is no length of a prefix, such as 24")
    most = 128 if ":" in address else 32
    if len(prefix) > 3 or int(prefix) > most:
        raise GrantError(f"{text!r}: a prefix has at most {most} bits")
    network = ip_network(f"{address}/{int(prefix)}", strict=False)
    if network.network_address != ip_address(address):
        whole = f"[{network}]" if most == 128 else str(network)
        one = f"[{address}]" if most == 128 else address
        raise GrantError(
            f"{text!r}: the address has bits beyond the prefix; the range is {start}{whole}:{port},"
            f" the one address {start}{one}:{port}"
        )
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        network = ip_network(f"{mapped}/{network.prefixlen - _MAPPED.prefixlen}")
    if kind_of(network)[1] == PUBLIC and not has_public_part(network):
        raise GrantError(
            f"{text!r}: no address in there is public, and ranges that are not are granted each by"
            " itself"
        )
    return str(network)


def _ends_in_number(host: str) -> bool:
    """Whether getaddrinfo(3) may take it for an IPv4 address: 127.1, 0x7f000001, 2130706433."""
    last = host.lower().removesuffix(".").rpartition(".")[2]
    if last.startswith("0x"):
        return all(c in "0123456789abcdef" for c in last[2:])
    return last.isascii() and last.isdigit()


def _is_label(label: str) -> bool:
    inside = 0 < len(label) <= _MOST_LABEL and _LETTERS.issuperset(label)
    return inside and label[0] != "-" and label[-1] != "-"


def _name(text: str, host: str, start: str, port: str) -> str:
    name = host.lower().removesuffix(".")
    if not name.isascii():
        try:
            plain = name.encode("idna").decode()
        except UnicodeError:
            raise GrantError(f"{text!r}: {host!r} is no name of a host") from None
        raise GrantError(f"{text!r}: names are ASCII: {start}{plain}:{port}")
    if "@" in name:
        raise GrantError(f"{text!r}: no user belongs here: {start}{name.rpartition('@')[2]}:{port}")
    if "*" in name:
        raise GrantError(f"{text!r}: each name is granted by itself, without *")
    if len(name) > _MOST_NAME or not all(map(_is_label, name.split("."))):
        raise GrantError(f"{text!r}: {host!r} is no name of a host")
    return name
