"""The directory of the embedded server: its files, and the checks of its owner and mode."""

from __future__ import annotations

import os
import socket
import stat
import struct
from pathlib import Path

from canhazgpu.errors import ConfigError, StoreError
from canhazgpu.frozen_dataclass import dataclass

# sun_path holds 108 bytes on Linux, the terminating zero included: unix(7).
SOCKET_PATH_LIMIT = 107
DIRECTORY_MODE = 0o755

WRITER = "canhazgpu"
"""The ACL user that may change the ledger; the default user may only read it."""


@dataclass(frozen=True, slots=True)
class ServerDirectory:
    """The directory and the paths of its files."""

    path: Path

    @classmethod
    def at(cls, path: str) -> ServerDirectory:
        """Raise `ConfigError` for a path that no socket or configuration file can contain."""
        directory = cls(Path(path))
        name = f"store.embedded_dir {path!r}"
        if not directory.path.is_absolute() or any(ord(letter) < 32 for letter in path):
            raise ConfigError(f"{name} is not an absolute path of printable characters")
        excess = len(os.fsencode(directory.starting_socket)) - SOCKET_PATH_LIMIT
        if excess > 0:
            raise ConfigError(
                f"{name} is {excess} bytes too long: the path of a Unix socket in it would exceed"
                f" {SOCKET_PATH_LIMIT}"
            )
        return directory

    @property
    def socket(self) -> Path:
        """The socket that clients connect to; it exists once the server is ready."""
        return self.path / "server.sock"

    @property
    def starting_socket(self) -> Path:
        """The socket while the server loads its data; then it is renamed to `socket`."""
        return self.path / "starting.sock"

    @property
    def secret(self) -> Path:
        """The file with the writer's password; only the owner can read it."""
        return self.path / "secret"

    @property
    def start_lock(self) -> Path:
        """The lock of the process that starts or stops the server."""
        return self.path / "start.lock"

    @property
    def server_lock(self) -> Path:
        """The lock that the server holds as long as it runs."""
        return self.path / "server.lock"

    @property
    def config(self) -> Path:
        """The server's configuration file, rewritten at each start."""
        return self.path / "server.conf"

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.path / "server.log"

    @property
    def pid_file(self) -> Path:
        """The server's pid file, for administrators, and for `stop` if the sockets are missing."""
        return self.path / "server.pid"

    def exists(self) -> bool:
        """Return whether the directory exists; raise `StoreError` if it is unsafe.

        It must be a directory and no symbolic link. It must belong to root or to the caller, and
        nobody else may write to it: a user who may could replace the server.
        """
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise self.unusable_error(exc.strerror) from exc
        if not stat.S_ISDIR(found.st_mode):
            link = stat.S_ISLNK(found.st_mode)
            raise self.unusable_error("it is a symbolic link" if link else "it is no directory")
        if found.st_uid not in (0, os.geteuid()):
            raise self.unusable_error(f"it belongs to uid {found.st_uid}, neither root nor you")
        if found.st_mode & 0o022:
            raise self.unusable_error("others may write to it; end that with 'chmod go-w'")
        return True

    def unusable_error(self, reason: str | None) -> StoreError:
        """Return the error that says why this directory cannot be used."""
        return StoreError(
            f"the embedded store cannot use {self.path}: {reason}",
            next_step="correct the directory, or name another as store.embedded_dir",
        )

    def owner_name(self) -> str:
        """Return the name of the directory's owner, who may start the server."""
        try:
            uid = self.path.lstat().st_uid
        except OSError:
            return "root"
        return f"uid {uid}" if uid else "root"


def is_listening(path: Path) -> bool:
    """Return whether a process listens on the socket, by connecting to it once."""
    with socket.socket(socket.AF_UNIX) as probe:
        return _try_connect(probe, path)


def listener_pid(path: Path) -> int | None:
    """Return the pid of the process that listens on the socket, None if it is not visible."""
    with socket.socket(socket.AF_UNIX) as probe:
        if not _try_connect(probe, path):
            return None
        try:
            answer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return None
        # The pid is 0 for a process of another pid namespace.
        return int(struct.unpack("3i", answer)[0]) or None


def _try_connect(probe: socket.socket, path: Path) -> bool:
    probe.setblocking(False)
    try:
        probe.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except BlockingIOError:
        # The backlog of the socket is full: somebody listens.
        return True
    except OSError as exc:
        raise StoreError(
            f"cannot connect to the embedded store at {path}: {exc.strerror}",
            next_step="everybody must be able to enter the socket's directory",
        ) from exc
    return True
