"""What is said about the network besides system calls (core/network/protocol.h): a broker's first
word, and a worker's questions for the addresses of names.  Everything here is untrusted bytes.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAGIC = 0x4B4F5242
VERSION = 1
HELLO_SIZE = 8
MAX_HOST = 253
MAX_ADDRESSES = 64

_LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def is_hello(message: bytes) -> bool:
    """Whether it is a broker's word that all its walls stand."""
    return message == MAGIC.to_bytes(4, "little") + VERSION.to_bytes(4, "little")


def host_of(question: bytes) -> "str | None":
    """The host name that a worker asks for; None for what cannot be one.

    What is handed to the C library's resolver is letters, digits, and `-_.`: no `%`, no `/`, no
    escapes.
    """
    if 1 <= len(question) <= MAX_HOST and _LETTERS.issuperset(question):
        return question.decode("ascii")
    return None


def encode_addresses(found: "Iterable[tuple[int, bytes]]") -> bytes:
    """The answer: (4 or 6, the address in network order) each; those beyond MAX_ADDRESSES go."""
    entries = [
        family.to_bytes(4, "little") + address.ljust(16, b"\0") for family, address in found
    ][:MAX_ADDRESSES]
    return len(entries).to_bytes(4, "little") + b"".join(entries)
