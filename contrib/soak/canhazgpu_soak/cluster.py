"""The world of a soak: a private Slurm of two nodes with agents, a store, Unix users."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

from canhazgpu_demo.users import create_user, delete_users
from canhazgpu_soak.store import Store
from demo_cluster import ClusterSpec, PrivateSlurm, new_directory
from fake_nvml import FakeState, install

USERS = 4
GPUS_PER_NODE = 8
HEALTH_CHECK_S = 10
HEARTBEAT_S = 5
SPEC = ClusterSpec(
    nodes=2, gpus_per_node=GPUS_PER_NODE, cpus_per_node=64, memory_mb_per_node=64_000
)
CONFIG = """\
[store]
url = "{store}"
retry_after_s = 5.0

[validation]
nvml_library = "{root}/fake/libnvidia-ml.so.1"

[node]
state_dir = "{root}/run/%n"
marker_dir = "{root}/lib"

[slurm]
on_conflict = "wait:5,swap,requeue"

[run]
heartbeat_s = {heartbeat_s}
lease_s = 20
"""
# It notes its begin before canhazgpu's own script begins.
HOOK = """\
#!/bin/sh
read -r uptime rest </proc/uptime
echo {hook} "$SLURMD_NODENAME" "$SLURM_JOB_ID" "$uptime" >>{root}/hooks
exec {program}
"""


def now() -> float:
    """The time of all records; see `records`."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SoakCluster:
    """Everything lies in one directory and is undone by `close`."""

    def __init__(self, venv: Path) -> None:
        self.root = new_directory()
        self.program = venv / "bin" / "canhazgpu"
        self.notes = self.root / "notes"
        self.task = self.root / "gpu-task"
        self.gpu_process = self.root / "fake" / "gpu-process"
        self.config = self.root / "config.toml"
        self.store = Store(self.root / "store")
        self.slurm = PrivateSlurm(self.root / "slurm", SPEC)
        self.users: list[str] = []
        self.rogue_user = ""
        self.gpus: dict[str, list[str]] = {}

    @property
    def nodes(self) -> tuple[str, ...]:
        return SPEC.node_names()

    def boot(self) -> None:
        """Make all of it and start it."""
        self.notes.mkdir()
        self.notes.chmod(0o1777)
        source = Path(__file__).resolve().parents[1] / "gpu-task"
        self.task.write_text(source.read_text())
        self.task.chmod(0o755)
        self._make_gpus()
        for number in range(USERS):
            self.users.append(create_user(f"soak{number}"))
        self.rogue_user = create_user("soak-rogue")
        self.config.write_text(
            CONFIG.format(root=self.root, store=self.store.url, heartbeat_s=HEARTBEAT_S)
        )
        self.store.start()
        self.slurm = PrivateSlurm(self.root / "slurm", self._installed())
        self.slurm.start()

    def close(self) -> None:
        """End and remove everything, each part whatever becomes of the others."""
        with contextlib.ExitStack() as undo:
            undo.callback(shutil.rmtree, self.root, ignore_errors=True)
            undo.callback(delete_users, [*self.users, *filter(None, [self.rogue_user])])
            undo.callback(self.store.kill)
            undo.callback(self.slurm.stop)

    def person_environ(self, node: str) -> dict[str, str]:
        """The environment of a person on the node, who asks its agent."""
        socket = self.root / "run" / node / "agent" / "agent.sock"
        return {
            "CANHAZGPU_AGENT_SOCKET": str(socket),
            "FAKE_NVML_NODE": node,
            "PATH": "/usr/bin:/bin",
        }

    def hook_lines(self) -> list[str]:
        """What the hooks' scripts have written."""
        path = self.root / "hooks"
        return path.read_text().splitlines() if path.exists() else []

    def agent_pid(self, node: str) -> int:
        """The agent's main process, 0 where none runs."""
        process = self.slurm.agent_process(node)
        return 0 if process is None else process.pid

    def _make_gpus(self) -> None:
        install(self.root / "fake")
        state = FakeState(self.root / "fake" / "state")
        for node in SPEC.node_specs():
            made = state.add_node(node.name, gpus=GPUS_PER_NODE, minors=node.minors)
            self.gpus[node.name] = [gpu.uuid for gpu in made.gpus]

    def _installed(self) -> ClusterSpec:
        """Install canhazgpu's hooks; return the cluster that has them."""
        etc = self.root / "etc"
        command = (str(self.program), "--config", str(self.config))
        hooks = [*command, "hooks", "install", "--slurm-dir", str(etc)]
        environ = {"PATH": os.defpath}
        subprocess.run(hooks, env=environ, check=True, stdout=subprocess.DEVNULL, timeout=120)
        scripts = {}
        for hook in ("prolog", "epilog"):
            (program,) = (etc / f"{hook}.d").iterdir()
            scripts[hook] = self.root / f"{hook}.sh"
            scripts[hook].write_text(HOOK.format(hook=hook, root=self.root, program=program))
            scripts[hook].chmod(0o755)
        return replace(
            SPEC,
            prolog=scripts["prolog"],
            epilog=scripts["epilog"],
            task_prolog=etc / "canhazgpu" / "task_prolog.sh",
            health_check_program=etc / "canhazgpu" / "health_check.sh",
            health_check_interval_s=HEALTH_CHECK_S,
            node_agent=(*command, "agent", "run"),
        )
