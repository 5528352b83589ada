"""What is installed on the private Slurm: its configuration, canhazgpu's hooks and agents."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

from canhazgpu_soak.stores.port import SoakStore
from demo_cluster import ClusterSpec

GPUS_PER_NODE = 8
SHARDS_PER_GPU = 4
HEALTH_CHECK_S = 10
HEARTBEAT_S = 5
NOTING_AGENT = Path(__file__).resolve().parents[1] / "noting_agent.py"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
SPEC = ClusterSpec(
    nodes=2,
    gpus_per_node=GPUS_PER_NODE,
    cpus_per_node=64,
    memory_mb_per_node=64_000,
    shared_gres=(("shard", SHARDS_PER_GPU * GPUS_PER_NODE),),
    prolog_flags=("Alloc", "DeferBatch"),
)
CONFIG = """\
[store]
url = "{store.url}"
retry_after_s = 5.0
{store.settings}

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
# The node's own clock is set before the agent begins.
AGENT = """\
#!/bin/sh
export LD_PRELOAD={library} SOAK_CLOCK={root}/clocks/$SLURMD_NODENAME
exec {command}
"""


class Installation:
    """The files below `root`; `weakness` is what `noting_agent.py` takes out."""

    def __init__(self, root: Path, program: Path, library: Path, weakness: str) -> None:
        self._root = root
        self._config = root / "config.toml"
        self._program = program
        self._library = library
        self._weakness = weakness

    def write_config(self, store: SoakStore) -> None:
        """Write canhazgpu's configuration."""
        text = CONFIG.format(root=self._root, store=store, heartbeat_s=HEARTBEAT_S)
        self._config.write_text(text)

    def spec_with_empty_hooks(self) -> ClusterSpec:
        """Return the cluster whose hooks note when they began, and do nothing else."""
        scripts = {}
        for hook in ("prolog", "epilog"):
            scripts[hook] = self._root / f"{hook}.sh"
            scripts[hook].write_text(HOOK.format(hook=hook, root=self._root, program="/bin/true"))
            scripts[hook].chmod(0o755)
        return replace(
            SPEC,
            prolog=scripts["prolog"],
            epilog=scripts["epilog"],
            health_check_program=Path("/bin/true"),
            health_check_interval_s=HEALTH_CHECK_S,
            node_mounts=((BOOT_ID, f"{self._root}/boots/%n"),),
        )

    def installed_spec(self) -> ClusterSpec:
        """Install canhazgpu's hooks; return the cluster that has them."""
        etc = self._root / "etc"
        command = (str(self._program), "--config", str(self._config))
        hooks = [*command, "hooks", "install", "--slurm-dir", str(etc)]
        environ = {"PATH": os.defpath}
        subprocess.run(hooks, env=environ, check=True, stdout=subprocess.DEVNULL, timeout=120)
        scripts = {}
        for hook in ("prolog", "epilog"):
            (program,) = (etc / f"{hook}.d").iterdir()
            scripts[hook] = self._root / f"{hook}.sh"
            scripts[hook].write_text(HOOK.format(hook=hook, root=self._root, program=program))
            scripts[hook].chmod(0o755)
        return replace(
            SPEC,
            prolog=scripts["prolog"],
            epilog=scripts["epilog"],
            task_prolog=etc / "canhazgpu" / "task_prolog.sh",
            health_check_program=etc / "canhazgpu" / "health_check.sh",
            health_check_interval_s=HEALTH_CHECK_S,
            node_agent=(str(self._agent_script(command)),),
            node_mounts=((BOOT_ID, f"{self._root}/boots/%n"),),
        )

    def _agent_script(self, command: tuple[str, ...]) -> Path:
        script = self._root / "agent.sh"
        options = command[1:]
        noting = [
            str(self._program.parent / "python"),
            str(NOTING_AGENT),
            str(self._root / "looks"),
        ]
        words = " ".join([*noting, self._weakness, *options, "agent", "run"])
        script.write_text(AGENT.format(library=self._library, root=self._root, command=words))
        script.chmod(0o755)
        return script
