"""The directory of the embedded server: what lies in it, and when it can be trusted."""

from __future__ import annotations

import os
import socket
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from canhazgpu.errors import ConfigError, StoreError

# sockaddr_un.sun_path of Linux holds 108 bytes with the final zero: unix(7).
SOCKET_PATH_LIMIT = 107
DIRECTORY_MODE = 0o755

WRITER = "canhazgpu"
"""The server's user that may change the ledger; the default user may read it."""


@dataclass(frozen=True, slots=True)
class ServerDirectory:
    """The directory and the names in it."""

    path: Path

    @classmethod
    def at(cls, path: str) -> ServerDirectory:
        """Refuse, with a `ConfigError`, what no server could listen in or be told in a file."""
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
        """Where the server is reached; appears when it is ready."""
        return self.path / "server.sock"

    @property
    def starting_socket(self) -> Path:
        """Where the server listens until it has read its data; renamed to `socket` then."""
        return self.path / "starting.sock"

    @property
    def secret(self) -> Path:
        """The writer's password, for the owner alone."""
        return self.path / "secret"

    @property
    def start_lock(self) -> Path:
        """Held by whoever starts or stops the server."""
        return self.path / "start.lock"

    @property
    def server_lock(self) -> Path:
        """Held by the server itself as long as it lives."""
        return self.path / "server.lock"

    @property
    def config(self) -> Path:
        """The server's configuration, written anew with each start."""
        return self.path / "server.conf"

    @property
    def log(self) -> Path:
        """What the server has to say."""
        return self.path / "server.log"

    @property
    def pid_file(self) -> Path:
        """The server's process id, for people and for `stop` when the sockets are gone."""
        return self.path / "server.pid"

    def exists(self) -> bool:
        """Return False for a directory yet to be made; raise `StoreError` for one not to be used.

        It must be a directory in its own right, of root or of the caller, and nobody else may
        write to it: whoever may can put a server of their own there.
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
        """Return the refusal of this directory."""
        return StoreError(f"the embedded store cannot use {self.path}: {reason}")

    def owner_name(self) -> str:
        """Return who may start the server: the directory's owner, as users call them."""
        try:
            uid = self.path.lstat().st_uid
        except OSError:
            return "root"
        return f"uid {uid}" if uid else "root"


def is_listening(path: Path) -> bool:
    """Say whether a process listens at the socket, by connecting to it once."""
    with socket.socket(socket.AF_UNIX) as probe:
        return _try_connect(probe, path)


def listener_pid(path: Path) -> int | None:
    """Return the process that listens at the socket, as the kernel has it; None if it is unseen."""
    with socket.socket(socket.AF_UNIX) as probe:
        if not _try_connect(probe, path):
            return None
        try:
            answer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return None
        # 0 stands for a process of another pid namespace.
        return int(struct.unpack("3i", answer)[0]) or None


def _try_connect(probe: socket.socket, path: Path) -> bool:
    probe.setblocking(False)
    try:
        probe.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except BlockingIOError:
        # Too many others wait for the same listener: there is one.
        return True
    except OSError as exc:
        raise StoreError(f"cannot connect to the embedded store at {path}: {exc.strerror}") from exc
    return True
