"""The node's agent as a process of its own, and hooks that ask it as their scripts do."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forking_python import ForkedProcess, agents_interpreter
from polling import poll_until
from process_details import open_files
from servers.private_redis import ENDS_WITH_TESTS

from canhazgpu.agent.client import call
from canhazgpu.agent.hook_client import is_stopped
from canhazgpu.agent.socket_files import HOOKS_SOCKET, agent_directory, people_socket
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import decode

METHODS = {"prolog": "JobStart", "epilog": "JobEnd", "health_check": "Check"}
READY_S = 60.0
PATIENT_CLIENT = """
import sys
sys.path.insert(0, {directory!r})
import hook_client
hook_client.READY_WAIT_S = {ready_s}
hook_client.posix._exit(hook_client.main(*sys.argv[1:]))
"""
"""The client of hooks where the agent, or the client, may get no CPU for as long."""
PACKETS = "0005"
"""SOCK_SEQPACKET in /proc/net/unix."""


def hook_client() -> str:
    """The program by which hooks ask the agent."""
    found = importlib.util.find_spec("canhazgpu.agent.hook_client")
    assert found is not None and found.origin is not None
    return found.origin


class RunningAgent:
    """An agent, from its READY=1 on; a context manager, whose end ends it.

    Hooks of any node may ask it: each request brings its own configuration. `changes` is Python
    that it runs first, to change what its handlers do; `preload` is a library for its processes.
    """

    def __init__(
        self,
        directory: Path,
        node: str = "n1",
        changes: str = "",
        preload: str = "",
        **config: Mapping[str, object],
    ) -> None:
        self._preload = {"LD_PRELOAD": preload} if preload else {}
        self.state_dir = directory / "agent-state"
        directory.mkdir(parents=True, exist_ok=True)
        self._node = node
        self._content: dict[str, Mapping[str, object]]
        self._config = directory / "agent.toml"
        # Most tests have no store that lets an order reader wait.
        agent_section = {"orders": "check", **config.pop("agent", {})}
        self._content = {"node": self._node_section(directory), "agent": agent_section, **config}
        self._write_config()
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.bind("")
        self.notified.settimeout(READY_S)
        self._address = "@" + self.notified.getsockname()[1:].decode()
        self._changes = changes
        self.process = self._forked() or self._started()
        try:
            assert b"READY=1" in self.notified.recv(4096)
        except BaseException:
            self.end()
            raise

    @property
    def python(self) -> str:
        """The interpreter of its environment."""
        return sys.executable

    @property
    def starter(self) -> list[str]:
        """A program that becomes the agent, with its first words."""
        return []

    @property
    def passed(self) -> tuple[int, ...]:
        """The descriptors that it gets."""
        return ()

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *(*ENDS_WITH_TESTS, *self.starter),
                *(self.python, "-I", *_program(self._changes), "agent", "run"),
            ],
            env={**self.environ, **self._preload},
            stdin=subprocess.DEVNULL,
            stderr=None,
            pass_fds=self.passed,
        )

    def start_again(self) -> bool:
        """Start it anew after its end; returns whether it served before it ended again."""
        self.process.wait()
        self._forget_notices()
        self.process = self._forked() or self._started()
        self.notified.settimeout(0.1)
        try:
            while self.process.poll() is None:
                with contextlib.suppress(TimeoutError):
                    if b"READY=1" in self.notified.recv(4096):
                        return True
            return False
        finally:
            self.notified.settimeout(READY_S)

    def _forget_notices(self) -> None:
        """Take what an earlier start said and nobody read."""
        self.notified.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while self.notified.recv(4096):
                pass

    def _forked(self) -> ForkedProcess | None:
        """Start it by forking, where it differs from others by its own words alone."""
        if self._preload or type(self) is not RunningAgent:
            return None
        words = [*_program(self._changes), "agent", "run"]
        return agents_interpreter().start(words, self.environ)

    def _node_section(self, directory: Path) -> dict[str, str]:
        return {"state_dir": str(self.state_dir), "marker_dir": str(directory / "agent-lib")}

    @property
    def environ(self) -> dict[str, str]:
        """The environment of the agent, and of commands about it."""
        return {
            "CANHAZGPU_CONFIG": str(self._config),
            "NOTIFY_SOCKET": self._address,
            "SLURMD_NODENAME": self._node,
        }

    @property
    def config_environ(self) -> dict[str, str]:
        """The environment of a command that has the agent's configuration."""
        return {name: self.environ[name] for name in ("CANHAZGPU_CONFIG", "SLURMD_NODENAME")}

    def hide_config(self) -> None:
        """From now on only root reads the configuration."""
        self._config.chmod(0o600)

    @property
    def hooks_socket(self) -> Path:
        return agent_directory(self.state_dir) / HOOKS_SOCKET

    @property
    def people_socket(self) -> Path:
        return people_socket(self.state_dir)

    def __enter__(self) -> RunningAgent:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End it, whatever it does, and those of its children that are stopped."""
        children: list[int] = []
        with contextlib.suppress(OSError):  # it has ended
            children = self.all_children()
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        for pid in filter(is_stopped, children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.notified.close()

    def hook_arguments(self, hook: str) -> list[str]:
        """The arguments of Python with which a hook's script asks the agent."""
        return ["-I", "-S", hook_client(), str(self.hooks_socket), METHODS[hook]]

    def status(self) -> dict[str, Any]:
        return call(self.state_dir, interface.STATUS, wait_s=READY_S)

    def served(self, method: str) -> int:
        """How many requests of this method it has served."""
        return int(self.status()["served"].get(method, 0))

    def wait_until_idle(self) -> None:
        poll_until(lambda: self.status()["children"] <= 0)

    def children(self) -> list[int]:
        """The pids of its children that do something: handlers, the scanner, the watcher."""
        return [pid for pid in self.all_children() if not waits_for_request(pid)]

    def helper(self) -> int:
        """The pid of its scanner, watcher or order reader, once one of them waits.

        A handler that was forked just now looks the same, but does not wait yet.
        """
        return poll_until(
            lambda: next(
                (pid for pid in self.all_children() if waits(pid) and not waits_for_request(pid)), 0
            )
        )

    def spare_handler(self) -> int:
        """The pid of the handler that waits for its request, once there is one."""
        return poll_until(
            lambda: next((pid for pid in self.all_children() if waits_for_request(pid)), 0)
        )

    def all_children(self) -> list[int]:
        """The pids of its children, with the handler that waits for a request."""
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in task.read_text().split()]

    def change_config(self, **sections: Mapping[str, object]) -> None:
        """Add keys to the configuration, or change them; the agent reads it for each request."""
        for section, values in sections.items():
            self._content[section] = {**self._content.get(section, {}), **values}
        self._write_config()

    def _write_config(self) -> None:
        lines = []
        for section, values in self._content.items():
            lines.append(f"[{section}]")
            lines += [f"{name} = {json.dumps(value)}" for name, value in values.items()]
        self._config.write_text("\n".join(lines) + "\n")


def _program(changes: str) -> list[str]:
    """The arguments of Python for canhazgpu's command, after these changes."""
    module = "canhazgpu.cli.main"
    if not changes:
        return ["-m", module]
    run = f"sys.modules.pop({module!r}, None)\nrunpy.run_module({module!r}, run_name='__main__')"
    return ["-c", f"{changes}\nimport runpy, sys\n{run}"]


def run_hook(
    agent: RunningAgent, hook: str, environ: Mapping[str, str], timeout_s: float = 2 * READY_S
) -> subprocess.CompletedProcess[str]:
    """Run a hook through the agent, however busy the machine is; a silent fallback fails."""
    client = PATIENT_CLIENT.format(directory=str(Path(hook_client()).parent), ready_s=READY_S)
    done = subprocess.run(
        [*(sys.executable, "-I", "-S", "-c", client), str(agent.hooks_socket), METHODS[hook]],
        env=dict(environ),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode < 120, f"the agent did not answer: status {done.returncode}"
    return done


def answered(connection: socket.socket) -> dict[str, Any]:
    """The next message on a connection to the agent, empty where the connection ends."""
    found = b""
    while not found.endswith(b"\0"):
        chunk = connection.recv(65536)
        if not chunk:
            return {}
        found += chunk
    return decode(found[:-1])


def waits_for_request(pid: int) -> bool:
    """Whether it has a socket of packets, as handlers of hooks, and no connection of a request."""
    opened = open_files(pid)
    # Read afterwards: it has the sockets of a process that was forked just now.
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    kinds = {row[4] for row in rows if f"socket:[{row[6]}]" in opened}
    return kinds == {PACKETS}


def waits(pid: int) -> bool:
    """Whether it sleeps."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"
    return False


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
