"""The parts of the host that Python's standard library has no call for: IPC, keys, file handles."""

from __future__ import annotations

import ctypes
import os
import struct

from .steps import number

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

IPC_CREAT, IPC_RMID = 0o1000, 0
SESSION_KEYRING = -3
KEYCTL_UNLINK = 9
HANDLE_BYTES = 128


def syscall(name: str, *arguments: int | bytes) -> int:
    """A raw system call; raises OSError."""
    words = [arg if isinstance(arg, bytes) else ctypes.c_long(arg) for arg in arguments]
    result = int(_libc.syscall(ctypes.c_long(number(name)), *words))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)
    return result


def file_handle(path: str) -> bytes:
    """The struct file_handle that open_by_handle_at takes; empty where the file system has none."""
    handle = ctypes.create_string_buffer(struct.pack("<Ii", HANDLE_BYTES, 0), 8 + HANDLE_BYTES)
    mount = ctypes.c_int()
    result = _libc.name_to_handle_at(-100, path.encode(), handle, ctypes.byref(mount), 0)
    return bytes(8) if result < 0 else handle.raw


def io_priority() -> int:
    """This process's own I/O class and priority."""
    return syscall("ioprio_get", 1, 0)


class Ipc:
    """One object of each kind that the host's IPC has, all of them holding `secret`."""

    def __init__(self, secret: bytes, name: str) -> None:
        self.key = 0x5741_0000 | os.getpid() & 0xFFFF
        self.queue_name = name
        self.shm = syscall("shmget", self.key, 4096, IPC_CREAT | 0o666)
        _libc.shmat.restype = ctypes.c_void_p
        at = _libc.shmat(self.shm, None, 0)
        ctypes.memmove(at, secret, len(secret))
        _libc.shmdt(ctypes.c_void_p(at))
        self.sem = syscall("semget", self.key, 1, IPC_CREAT | 0o666)
        self.messages = syscall("msgget", self.key, IPC_CREAT | 0o666)
        syscall("msgsnd", self.messages, struct.pack("<q", 1) + secret, len(secret), 0)
        self.queue = syscall("mq_open", name.encode(), os.O_CREAT | os.O_RDWR, 0o666, 0)
        self.user_key = syscall(
            "add_key", b"user", name.encode(), secret, len(secret), SESSION_KEYRING
        )

    def untouched(self) -> bool:
        """Whether the segment is still there and the message still in its queue."""
        status = ctypes.create_string_buffer(256)
        return (
            int(_libc.shmctl(self.shm, 2, status)) >= 0
            and int(_libc.msgctl(self.messages, 2, status)) >= 0
            # struct msqid_ds: a 48-byte ipc_perm, three times, the byte count, then msg_qnum
            and int.from_bytes(status.raw[80:88], "little") == 1
        )

    def close(self) -> None:
        """Removes them all from the host."""
        syscall("shmctl", self.shm, IPC_RMID, 0)
        syscall("semctl", self.sem, 0, IPC_RMID, 0)
        syscall("msgctl", self.messages, IPC_RMID, 0)
        os.close(self.queue)
        syscall("mq_unlink", self.queue_name.encode())
        syscall("keyctl", KEYCTL_UNLINK, self.user_key, SESSION_KEYRING)
