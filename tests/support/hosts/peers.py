"""Processes of other users, at the other end of a socket."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWUSER = 0x10000000
PR_SET_DUMPABLE = 4


def become(uid: int, groups: Sequence[int] = (), gid: int | None = None) -> None:
    """Be this user for good; a group of the uid's number unless another is given."""
    os.setgroups(list(groups))
    os.setgid(uid if gid is None else gid)
    os.setuid(uid)
    # As after an exec: without it /proc/self stays root's.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def become_in_user_namespace(uid: int, mapping: str) -> None:
    """Be this user in a user namespace of its own, whose map a process of root's writes.

    `mapping` is as in user_namespaces(7): first uid inside, first uid outside, count.
    """
    before, after = os.pipe(), os.pipe()
    child = os.getpid()
    writer = os.fork()
    if writer == 0:
        os.read(before[0], 1)
        Path(f"/proc/{child}/uid_map").write_text(mapping)
        Path(f"/proc/{child}/gid_map").write_text(mapping)
        os.write(after[1], b"x")
        os._exit(0)
    become(uid)
    _unshare()
    os.write(before[1], b"x")
    os.read(after[0], 1)
    os.waitpid(writer, 0)


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "unshare")


def output_of(work: Callable[[], str]) -> str:
    """Return what this returns in a process of its own, which `work` may change for good."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            told = work()
        except BaseException:
            told = traceback.format_exc()
        with os.fdopen(write, "w") as stream:
            stream.write(told)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        told = stream.read()
    os.waitpid(pid, 0)
    return told


@contextmanager
def accepted_from(path: Path, prepare: Callable[[], None]) -> Iterator[socket.socket]:
    """Give the listener's end of a connection by a process that did this before it connected."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0o666)
        pid = os.fork()
        if pid == 0:
            try:
                prepare()
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(str(path))
                    connection.recv(1)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        listening.settimeout(60)
        try:
            accepted, _ = listening.accept()
            with accepted:
                yield accepted
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
