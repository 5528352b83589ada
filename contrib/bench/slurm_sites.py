"""Private Slurms for `slurm_time.py`, which differ in nothing but their hooks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

CONTRIB = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CONTRIB / name) for name in ("fake-nvml", "demo-cluster")]

from demo_cluster import ClusterSpec, PrivateSlurm, new_directory  # noqa: E402 - where it lies
from fake_nvml import FakeState, install  # noqa: E402 - is known only now

__all__ = ["EMPTY", "GPUS", "NODE", "NONE", "OURS", "PrivateSlurm", "Site", "running_sites"]

NODE, GPUS = "n1", 8
SPARE_GPUS = 1
"""GPUs that Slurm does not know: a person holds one, and those who want all of them wait."""
NONE, EMPTY, OURS = "no hooks", "empty hooks", "canhazgpu"
EMPTY_HOOK = "#!/bin/sh\nexit 0\n"
CONFIG = """\
[store]
url = "embedded"
embedded_dir = "{root}/store"

[validation]
nvml_library = "{root}/fake/libnvidia-ml.so.1"

[node]
state_dir = "{root}/run/%n"

[agent]
driver_idle_s = 600.0
"""
OFFLINE_REASON = "granted by the node alone"
STOP_STORE = "import sys; from canhazgpu.ledger.embedded import server; server.stop(sys.argv[1])"
COMMAND_S = 300.0
"""Longest time for a command beside those who wait, on a loaded machine."""
SPEC = ClusterSpec(nodes=1, gpus_per_node=GPUS, cpus_per_node=64, memory_mb_per_node=64_000)


class Site:
    """canhazgpu in the hooks of a Slurm whose node has an agent."""

    def __init__(self, venv: Path, root: Path) -> None:
        self.venv = venv
        self.root = root
        self.config = root / "config.toml"
        install(root / "fake")
        FakeState(root / "fake" / "state").add_node(NODE, gpus=GPUS + SPARE_GPUS)
        self.config.write_text(CONFIG.format(root=root))
        install_hooks = [*self.command, "hooks", "install", "--slurm-dir", str(root / "etc")]
        subprocess.run(install_hooks, env={}, check=True, stdout=subprocess.DEVNULL, timeout=60)

    @property
    def spec(self) -> ClusterSpec:
        """The cluster's hooks and its agent."""
        etc = self.root / "etc"
        agent = (*self.command, "agent", "run")
        return replace(
            SPEC,
            prolog=str(etc / "prolog.d" / "*"),
            epilog=str(etc / "epilog.d" / "*"),
            task_prolog=str(etc / "canhazgpu" / "task_prolog.sh"),
            node_agent=agent,
        )

    @property
    def command(self) -> tuple[str, ...]:
        """The command canhazgpu with its configuration, for what root does about the site."""
        return (self.program, "--config", str(self.config))

    @property
    def program(self) -> str:
        """The command canhazgpu."""
        return str(self.venv / "bin" / "canhazgpu")

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a person on the node, who asks its agent."""
        agent = str(self.root / "run" / NODE / "agent" / "agent.sock")
        return {"CANHAZGPU_AGENT_SOCKET": agent, "PATH": "/usr/bin:/bin"}

    def canhazgpu(self, *arguments: str) -> str:
        """Run the command on the node, through its agent; return what it prints."""
        return self._output([self.program, *arguments], self.environ)

    def _output(self, command: Sequence[str], environ: Mapping[str, str]) -> str:
        done = subprocess.run(
            command,
            env=environ,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=COMMAND_S,
        )
        return done.stdout

    def hook(
        self, name: str, slurm: PrivateSlurm, job: int, position: int
    ) -> subprocess.Popen[bytes]:
        """Start the installed hook of a job with one GPU, as slurmd does."""
        (script,) = (self.root / "etc" / f"{name}.d").iterdir()
        facts = {
            "SLURM_JOB_ID": str(job),
            "SLURM_JOB_UID": "0",
            "SLURM_JOB_USER": "root",
            "SLURM_JOB_GPUS": str(position),
            "SLURMD_NODENAME": NODE,
            "SLURM_SCRIPT_CONTEXT": f"{name}_slurmd",
        }
        return subprocess.Popen([script], env={**slurm.env(), **facts})

    def waiting(self) -> int:
        """How many wait in the node's queue."""
        (node,) = json.loads(self.canhazgpu("queue", "--node", NODE, "--json"))["nodes"]
        return len(node["queue"])

    def served(self, method: str) -> int:
        """How many requests of this method the node's agent has served."""
        ask = [*self.command, "agent", "status", "--json"]
        status = json.loads(self._output(ask, {"CANHAZGPU_NODE_NAME": NODE}))
        return int(status["served"].get(method, 0))

    def granted(self, first_job: int) -> int:
        """How many jobs, from this number on, were granted a GPU."""
        return len({one["job_id"] for one in self._grants(first_job)})

    def decided_alone(self, first_job: int) -> int:
        """How many of these grants were made without the store."""
        return sum(one["reason"] == OFFLINE_REASON for one in self._grants(first_job))

    def _grants(self, first_job: int) -> list[dict[str, Any]]:
        lines = self.canhazgpu("events", "--node", NODE, "--since", "2h", "--json").splitlines()
        events = [json.loads(one) for one in lines]
        return [
            one
            for one in events
            if one["kind"] == "grant" and int(one.get("job_id") or 0) >= first_job
        ]

    def stop_store(self) -> None:
        """End the embedded store."""
        python = self.venv / "bin" / "python"
        subprocess.run(
            [python, "-I", "-c", STOP_STORE, self.root / "store"], check=True, timeout=60
        )


@contextmanager
def running_sites(venv: Path) -> Iterator[tuple[Site, dict[str, PrivateSlurm]]]:
    """Boot the three Slurms; all are ended, and their files removed, in the end."""
    with ExitStack() as ends:
        roots = {name: new_directory() for name in (NONE, EMPTY, OURS)}
        for root in roots.values():
            ends.callback(shutil.rmtree, root, ignore_errors=True)
        hook = roots[EMPTY] / "hook.sh"
        hook.write_text(EMPTY_HOOK)
        hook.chmod(0o755)
        site = Site(venv, roots[OURS])
        ends.callback(site.stop_store)
        specs = {
            NONE: SPEC,
            EMPTY: replace(SPEC, prolog=hook, epilog=hook, task_prolog=hook),
            OURS: site.spec,
        }
        slurms = {}
        for name, spec in specs.items():
            slurms[name] = PrivateSlurm(roots[name] / "slurm", spec)
            ends.callback(slurms[name].stop, delete=True)
            slurms[name].start()
        yield site, slurms
