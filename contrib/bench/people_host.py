"""Hosts with simulated GPUs for `run_time.py`: one with an agent, one without."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from process_use import descendants, kept_pss_kb, tree_cpu_s

CONTRIB = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CONTRIB / "fake-nvml"))

from fake_nvml import FakeState, install  # noqa: E402 - where it lies is known only now

CONFIG = """\
[store]
url = "unix://{root}/redis.sock"

[validation]
nvml_library = "{root}/fake/libnvidia-ml.so.1"

[node]
name = "bench"
state_dir = "{root}/run"
marker_dir = "{root}/lib"
"""
AGENT_CONFIG = """
[agent]
driver_idle_s = 600.0
"""
PERSON = "games"
"""Who asks. Root would ask for root's sake: no limits hold for it."""
WAIT_S = 60.0


class Host:
    """A host with a store of its own, and an agent if it is to have one."""

    def __init__(self, root: Path, venv: Path, gpus: int, *, has_agent: bool) -> None:
        self.program = venv / "bin" / "canhazgpu"
        self.python = venv / "bin" / "python"
        self._root = root
        self._config = root / "config.toml"
        root.mkdir(mode=0o755)
        install(root / "fake")
        state = FakeState(root / "fake" / "state")
        state.add_node("bench", gpus=gpus)
        state.set_default_node("bench")
        # A revision without an agent refuses its keys.
        self._config.write_text(CONFIG.format(root=root) + AGENT_CONFIG * has_agent)
        self._processes = [self._start_store()]
        self.agent: subprocess.Popen[bytes] | None = self._start_agent() if has_agent else None

    def _start_store(self) -> subprocess.Popen[bytes]:
        socket = self._root / "redis.sock"
        arguments = ["--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "777"]
        server = subprocess.Popen(
            ["redis-server", *arguments, "--save", "", "--dir", str(self._root)],  # noqa: S607 - from PATH
            stdout=subprocess.DEVNULL,
        )
        await_true(socket.exists, "the store listens")
        return server

    def _start_agent(self) -> subprocess.Popen[bytes]:
        environ = {"PATH": os.defpath, "CANHAZGPU_CONFIG": str(self._config)}
        agent = subprocess.Popen([self.program, "agent", "run"], env=environ)
        self._processes.append(agent)
        await_true(self._socket.exists, "the agent listens")
        return agent

    @property
    def _socket(self) -> Path:
        return self._root / "run" / "agent" / "agent.sock"

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a person: where there is an agent, it says no more than where."""
        where = (
            {"CANHAZGPU_CONFIG": str(self._config)}
            if self.agent is None
            else {"CANHAZGPU_AGENT_SOCKET": str(self._socket)}
        )
        return {"PATH": os.defpath, **where}

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a run; its command's output can be read."""
        command = [str(self.program), "run", *words]
        # Who waits is told why, again and again.
        return self.start_command(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def start_command(
        self, command: list[str], stdout: int = subprocess.DEVNULL, stderr: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command as a person, if this is root; else as who this is."""
        person = pwd.getpwnam(PERSON)
        user, group = (person.pw_uid, person.pw_gid) if os.geteuid() == 0 else (None, None)
        return subprocess.Popen(
            command,
            env=self.environ,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            user=user,
            group=group,
        )

    def agent_cpu_s(self) -> float:
        """Return the CPU time of the agent and its processes, 0 where there is none."""
        return 0.0 if self.agent is None else tree_cpu_s(self.agent.pid)

    def kept_mib(self) -> float:
        """Return the memory (PSS) of the agent's processes, or of those that watch the runs."""
        pids = self.keepers() if self.agent is None else descendants(self.agent.pid)
        return sum(map(kept_pss_kb, pids)) / 1024

    def keepers(self) -> list[int]:
        """Return the processes beside this host's runs whose command sleeps: no other host's."""
        mark = f"CANHAZGPU_CONFIG={self._config}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                ours = mark in (entry / "environ").read_bytes().split(b"\0")
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if ours and b"run" in words and any(b"sleep" in word for word in words):
                found.append(int(entry.name))
        return found

    def watches_runs(self) -> bool:
        """Return whether a run has not been released yet."""
        return bool(self.keepers()) or any((self._root / "run" / "runs").glob("*.json"))

    def stop(self) -> None:
        """End its agent and its store, once all runs are released: what is left would wait."""
        await_true(lambda: not self.watches_runs(), "all runs end")
        pids = [] if self.agent is None else list(descendants(self.agent.pid))
        for process in reversed(self._processes):
            process.terminate()
            process.wait()
        await_true(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the agent ends")


def await_true(is_true: Callable[[], bool], what: str) -> None:
    """Wait until it is true."""
    ends_at = time.monotonic() + WAIT_S
    while not is_true():
        if time.monotonic() > ends_at:
            raise RuntimeError(f"in {WAIT_S:g} s it did not come to this: {what}")
        time.sleep(0.01)
