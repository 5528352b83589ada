"""Who is at the other end of a Unix socket: the kernel says it, the peer does not.

The facts are those at the time of its connect(2) (unix(7)).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct

from canhazgpu.frozen_dataclass import dataclass

SO_PEERGROUPS = getattr(socket, "SO_PEERGROUPS", 59)
SO_PEERPIDFD = getattr(socket, "SO_PEERPIDFD", 77)
"""Linux 6.5 (asm-generic/socket.h)."""
OVERFLOW_UID_FILE = "/proc/sys/kernel/overflowuid"
DEFAULT_OVERFLOW_UID = 65534
_CREDENTIALS = struct.Struct("3i")
GROUP_BYTES = struct.calcsize("I")
FEW_GROUPS = 1024 // GROUP_BYTES
MAX_GROUPS = 65536
"""NGROUPS_MAX of Linux (limits.h)."""


class UnknownPeerError(Exception):
    """The kernel does not say who the peer is: it is of another namespace, or has ended."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer's process and its effective user and group when it connected."""

    pid: int
    uid: int
    gid: int

    @property
    def is_root(self) -> bool:
        """Whether it is root of this machine, not of a user namespace."""
        return self.uid == 0


def overflow_uid() -> int:
    """Return the uid by which the kernel shows users that it cannot show (user_namespaces(7))."""
    try:
        with open(OVERFLOW_UID_FILE, encoding="ascii") as stream:  # noqa: PTH123 - before Path is needed
            return int(stream.read())
    except (OSError, ValueError):
        return DEFAULT_OVERFLOW_UID


def peer_of(connection: socket.socket, overflow: int = DEFAULT_OVERFLOW_UID) -> Peer:
    """Return the peer. Raises `UnknownPeerError` for a process or a user that cannot be named."""
    pid, uid, gid = _credentials(connection)
    if pid == 0:
        raise UnknownPeerError("its process is of another pid namespace")
    if uid in (overflow, 0xFFFFFFFF):
        raise UnknownPeerError("its user is of another user namespace")
    return Peer(pid, uid, gid)


def peer_uid(connection: socket.socket) -> int:
    """Return the user who listens at a socket, wherever its process is; raises `UnknownPeerError`.

    For clients: to them root is root, also where the process has no number in their namespace.
    """
    return _credentials(connection)[1]


def _credentials(connection: socket.socket) -> tuple[int, int, int]:
    try:
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, gid = _CREDENTIALS.unpack(found)
    except (OSError, struct.error) as exc:
        raise UnknownPeerError(f"no credentials: {exc}") from exc
    # uids have no sign.
    return pid & 0xFFFFFFFF, uid & 0xFFFFFFFF, gid & 0xFFFFFFFF


def peer_groups(connection: socket.socket) -> tuple[int, ...]:
    """Return the peer's supplementary groups; raises `UnknownPeerError`."""
    try:
        found = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, FEW_GROUPS * GROUP_BYTES)
    except OSError as exc:
        if exc.errno != errno.ERANGE:
            raise UnknownPeerError(f"no groups: {exc}") from exc
        found = _many_groups(connection)
    return struct.unpack(f"{len(found) // GROUP_BYTES}I", found)


def _many_groups(connection: socket.socket) -> bytes:
    """Return the groups; the standard library asks for 1024 bytes of an option at most."""
    import ctypes  # noqa: PLC0415 - clients do not need it

    found = ctypes.create_string_buffer(MAX_GROUPS * GROUP_BYTES)
    size = ctypes.c_uint32(len(found))
    level, option = socket.SOL_SOCKET, SO_PEERGROUPS
    failed = ctypes.CDLL(None).getsockopt(
        connection.fileno(), level, option, found, ctypes.byref(size)
    )
    if failed:
        raise UnknownPeerError("no groups")
    return found.raw[: size.value]


def peer_pidfd(connection: socket.socket, peer: Peer) -> int:
    """Return a descriptor of the peer's process. Raises `UnknownPeerError` if it has ended.

    Before Linux 6.5 it is opened by the pid: the process may have ended and another have its
    number, unless the peer has shown since that it lives.
    """
    try:
        found = connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4)
        descriptor: int = struct.unpack("i", found)[0]
    except OSError:
        try:
            descriptor = os.pidfd_open(peer.pid)
        except OSError as exc:
            raise UnknownPeerError(f"its process has ended: {exc.strerror}") from exc
    if has_ended(descriptor):
        # A process that was reaped has a descriptor too.
        os.close(descriptor)
        raise UnknownPeerError("its process has ended")
    return descriptor


def has_ended(pidfd: int) -> bool:
    """Return whether the process has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
