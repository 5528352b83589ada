"""Nodes with simulated GPUs for `hook_time.py`, and their agents."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from process_use import tree_cpu_s

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fake-nvml"))

from fake_nvml import FakeState, install

GPUS = 8
CONFIG = """\
[store]
url = "embedded"
embedded_dir = "{store}"

[validation]
nvml_library = "{root}/fake/libnvidia-ml.so.1"

[node]
state_dir = "{root}/run"
marker_dir = "{root}/lib"

[slurm]
bin_dir = "{root}/bin"

[agent]
driver_idle_s = 600.0
"""
SQUEUE = "#!/bin/sh\necho 1 RUNNING\n"
"""The health check asks whether the job is still there: a shell's start is part of its row."""
COLD, WARM = "cold", "warm"
FIND_CLIENT = "import importlib.util as u; print(u.find_spec('canhazgpu.agent.hook_client').origin)"
START_WAIT_S = 60.0

Row = tuple[list[str], dict[str, str]]
"""Arguments of Python, and the environment."""


def prepare(root: Path, store: Path, *, has_agent: bool = False) -> None:
    """Make a node."""
    root.mkdir()
    install(root / "fake")
    FakeState(root / "fake" / "state").add_node("n1", gpus=GPUS)
    config = CONFIG.format(root=root, store=store)
    # A revision without an agent refuses its keys.
    (root / "config.toml").write_text(config if has_agent else config.partition("[agent]")[0])
    (root / "gres.conf").write_text(f"Name=gpu File=/dev/nvidia[0-{GPUS - 1}]\n")
    (root / "bin").mkdir()
    (root / "bin" / "squeue").write_text(SQUEUE)
    (root / "bin" / "squeue").chmod(0o755)


def environments(root: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the environment of a job's hook with two GPUs, and of the health check."""
    node = {
        "SLURMD_NODENAME": "n1",
        "SLURM_CONF": str(root / "slurm.conf"),
        "SLURM_CLUSTER_NAME": "bench",
        "CANHAZGPU_CONFIG": str(root / "config.toml"),
    }
    job = {"SLURM_JOB_ID": "1", "SLURM_JOB_UID": "0", "SLURM_JOB_GPUS": "0,1"}
    return {**node, **job}, node


class Agents:
    """The agents of two nodes: one is started anew for each request, one is not."""

    def __init__(self, python: str, root: Path) -> None:
        self._python = python
        self._root = root
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> dict[str, Row]:
        """Start them; return the rows that ask them, none where there are no agents."""
        found = subprocess.run(
            [self._python, "-I", "-c", FIND_CLIENT], capture_output=True, text=True, check=False
        )
        if found.returncode != 0:
            return {}
        rows: dict[str, Row] = {}
        for state in (COLD, WARM):
            root = self._root / state
            prepare(root, self._root / "store", has_agent=True)
            self._start(state)
            gpus, node = environments(root)
            ask = ["-S", found.stdout.strip(), str(_socket(root))]
            rows[f"prolog, two GPUs: agent, {state}"] = ([*ask, "JobStart"], gpus)
            rows[f"health check: agent, {state}"] = ([*ask, "Check"], node)
            rows[f"epilog, two GPUs: agent, {state}"] = ([*ask, "JobEnd"], gpus)
        return rows

    def before(self, name: str) -> None:
        """Prepare a row: the agent of a cold one is started anew."""
        if _state_of(name) == COLD and COLD in self._processes:
            self._stop(COLD)
            self._start(COLD)

    def cpu_s(self, name: str) -> float:
        """Return the CPU time of the row's agent and of all its processes."""
        process = self._processes.get(_state_of(name))
        return 0.0 if process is None else tree_cpu_s(process.pid)

    def stop(self) -> None:
        """End them."""
        for state in self._processes:
            self._stop(state)

    def _start(self, state: str) -> None:
        root = self._root / state
        command = [str(Path(self._python).with_name("canhazgpu")), "agent", "run"]
        self._processes[state] = subprocess.Popen(command, env=environments(root)[1])
        ends_at = time.monotonic() + START_WAIT_S
        while not _socket(root).exists() and time.monotonic() < ends_at:
            time.sleep(0.02)

    def _stop(self, state: str) -> None:
        self._processes[state].terminate()
        self._processes[state].wait()


def _state_of(name: str) -> str:
    return name.rpartition(", ")[2]


def _socket(root: Path) -> Path:
    return root / "run" / "agent" / "hooks.sock"
