"""A private Slurm with simulated GPUs and canhazgpu installed on it as an administrator would."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from clusters import held_gpus
from clusters.node_agents import NodeAgents
from forking_python import ForkingPython, kept_to_the_end
from hosts.running_agent import METHODS
from polling import poll_until
from run_files import made_once
from simulated_driver import install_driver

from demo_cluster import ClusterSpec, CommandFailed, PrivateSlurm
from demo_cluster.host.processes import find_process
from fake_nvml import FakeState

REPOSITORY = Path(__file__).parents[3]
STORE_TIMEOUT_S = 3.0
MAIN = "import sys; from canhazgpu.cli.main import main; sys.argv[0] = {!r}; main()"
READING = ("events", "explain", "status")
HELD = Path(held_gpus.__file__).read_text()
CHECK = "from canhazgpu.epilog.health_check import main; main()"


def hook_pid(cluster: GpuCluster, name: str, job: int, node: str = "n1") -> int:
    """Return the pid of what does a job's hook now, ``prolog`` or ``epilog``, 0 where none does.

    It is the agent's process for the hook, or the hook's own.
    """
    if cluster.agents is not None and _hook_processes(cluster, METHODS[name], job):
        handler = cluster.agents.handler(node, job)
        if handler:
            return handler
    found = _hook_processes(cluster, f"canhazgpu.{name}", job)
    # The children that scan bear the same command line, and may outlive a hook that was killed:
    # they are then init's, or slurmd's.
    return next((pid for pid in found if _is_run_by_script(parent_of(pid))), 0)


def _hook_processes(cluster: GpuCluster, word: str, job: int) -> set[int]:
    """Return the pids of the processes of a job's hooks that have a word in their command."""
    # Clusters beside this one have jobs of the same number.
    marks = {f"SLURM_JOB_ID={job}".encode(), f"CANHAZGPU_CONFIG={cluster.config_file}".encode()}
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            environ = {*(entry / "environ").read_bytes().split(b"\0")}
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if marks <= environ and word.encode() in command:
            found.add(int(entry.name))
    return found


def _is_run_by_script(parent: int) -> bool:
    try:
        return b".sh\0" in (Path("/proc") / str(parent) / "cmdline").read_bytes()
    except OSError:
        return False


def parent_of(pid: int) -> int:
    process = find_process(pid)
    return process.parent if process else 0


def kill_hook(cluster: GpuCluster, name: str, job: int, times: int) -> None:
    """Kill a job's hook on n1 amid its work, and again when it is run once more; as the kernel.

    The second run of a hook that an agent served is the hook's own.
    """
    killed = {0}
    while len(killed) <= times:
        pid = poll_until(lambda: (found := hook_pid(cluster, name, job)) not in killed and found)
        if cluster.agents is not None and pid in cluster.agents.handlers("n1"):
            cluster.agents.kill_handler("n1", name, pid)
        else:
            os.kill(pid, signal.SIGKILL)
        killed.add(pid)


@functools.cache
def interpreter_of(venv: Path) -> ForkingPython:
    return kept_to_the_end(ForkingPython(venv / "bin" / "python3"))


def run_without_importing(
    venv: Path,
    arguments: Sequence[str],
    environ: Mapping[str, str],
    user: str = "root",
    directory: Path = Path("/"),
) -> subprocess.CompletedProcess[str]:
    """Run the installed command as one that has imported everything already."""
    program = MAIN.format(str(venv / "bin" / "canhazgpu"))
    command = ["-c", program, *arguments]
    return interpreter_of(venv).run(command, environ, 120, user, directory)


def installed_venv() -> Path:
    """Return an environment with the built wheel that every Unix user can run, one for the run."""
    return made_once("installed", make_venv) / "venv"


def make_venv(directory: Path) -> None:
    """Install the built wheel into a new environment."""
    wheels = sorted((REPOSITORY / "build" / "dist").glob("*.whl"))
    if not wheels:
        raise RuntimeError("no wheel in build/dist; 'make test' builds it")
    venv = directory / "venv"
    # By the pip of the tests: installing another one takes longer than all the rest.
    new = ["/usr/bin/python3", "-m", "venv", "--without-pip", venv]
    subprocess.run(new, check=True, timeout=120)
    pip = [sys.executable, "-m", "pip", "--python", venv / "bin/python3", "install", "--quiet"]
    subprocess.run([*pip, f"{wheels[-1]}[embedded]"], check=True, timeout=300)


class GpuCluster:
    """`PrivateSlurm` under `root`, each node with fake GPUs, hooks installed by the CLI.

    With `has_agents` each node has its agent, and `agents` knows what these served.

    The NVML indices of a node run against its device numbers, so that confusing the two shows.
    """

    def __init__(
        self,
        root: Path,
        venv: Path,
        spec: ClusterSpec,
        config: Mapping[str, Mapping[str, Any]],
        *,
        has_agents: bool = False,
    ) -> None:
        self.root = root
        self.venv = venv
        self.config_file = root / "config.toml"
        self._config = {section: dict(values) for section, values in config.items()}
        install_driver(root / "nvml")
        self.state = FakeState(root / "nvml" / "state")
        for node in spec.node_specs():
            self.state.add_node(
                node.name, gpus=len(node.minors), minors=list(reversed(node.minors))
            )
        self.configure()
        hooks: dict[str, Any] = self._install_hooks()
        self.agents = NodeAgents(root / "run", root / "hooks-that-ran") if has_agents else None
        if self.agents is not None:
            self.agents.install_counters(root / "etc" / "slurm")
            command = (str(venv / "bin" / "canhazgpu"), "--config", str(self.config_file))
            hooks["node_agent"] = (*command, "agent", "run")
        if spec.health_check_interval_s:
            hooks["health_check_program"] = str(self._write_health_check())
        self.slurm = PrivateSlurm(root / "slurm", replace(spec, **hooks))

    def configure(self, **changes: Mapping[str, Any]) -> None:
        """Write the configuration, with these sections' keys changed."""
        defaults: dict[str, dict[str, Any]] = {
            "store": {
                "url": "embedded",
                "embedded_dir": str(self.root / "store"),
                "timeout_s": STORE_TIMEOUT_S,
            },
            "validation": {"nvml_library": str(self.root / "nvml" / "libnvidia-ml.so.1")},
            "node": {
                "state_dir": str(self.root / "run" / "%n"),
                "marker_dir": str(self.root / "lib"),
            },
        }
        for section, values in (*self._config.items(), *changes.items()):
            defaults.setdefault(section, {}).update(values)
        lines = []
        for section, values in defaults.items():
            lines.append(f"[{section}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        draft = self.config_file.with_suffix(".new")
        draft.write_text("\n".join(lines) + "\n")
        draft.replace(self.config_file)

    def canhazgpu(
        self, *arguments: str, node: str = "", user: str = "root", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run the command as a Unix user on a node."""
        place = self._place(node)
        if arguments[0] in READING:
            return self._read(arguments, place, user, check)
        assignments = [f"{name}={value}" for name, value in place.items()]
        command = ["/usr/bin/env", *assignments, str(self.venv / "bin/canhazgpu"), *arguments]
        return self.slurm.run(command, user=user, check=check)

    def _place(self, node: str = "") -> dict[str, str]:
        """Return the variables of a process that is on a node."""
        place = {"CANHAZGPU_CONFIG": str(self.config_file)}
        if node:
            place |= {"CANHAZGPU_NODE_NAME": node, "FAKE_NVML_NODE": node}
        return place

    def _read(
        self, arguments: Sequence[str], place: Mapping[str, str], user: str, check: bool
    ) -> subprocess.CompletedProcess[str]:
        """Run a command that tests wait with, again and again: without importing anew."""
        environ = {**self.slurm.env(user), **place}
        home = self.slurm.home(user)
        done = run_without_importing(self.venv, arguments, environ, user, home)
        if check and done.returncode != 0:
            raise CommandFailed(f"{arguments} ended with {done.returncode}: {done.stderr}")
        return done

    def status(self, node: str = "n1", user: str = "root") -> dict[str, dict[str, Any]]:
        """Return every node's GPUs by UUID, as `canhazgpu status --json` shows them."""
        shown = json.loads(self.canhazgpu("status", "--json", node=node, user=user).stdout)
        return {one["node"]: {gpu["uuid"]: gpu for gpu in one["gpus"]} for one in shown["nodes"]}

    def held(self, node: str = "n1") -> dict[str, str]:
        """Return the node's reserved GPUs and the job that holds each, as the ledger has them."""
        environ = {**self.slurm.env(), **self._place(node)}
        done = interpreter_of(self.venv).run(["-c", HELD, node], environ, 120)
        if done.returncode != 0:
            raise CommandFailed(f"the ledger was not read: {done.stderr}")
        return dict(json.loads(done.stdout))

    def pending(self, node: str = "n1") -> int:
        """Return how much of what the node did the store has yet to be told."""
        journal = self.root / "run" / node / "journal"
        return max(len(journal.read_text().splitlines()) - 1, 0) if journal.exists() else 0

    def settle(self) -> None:
        """Have the store told what nodes did without it, as on a machine where it was too slow."""

        def told(node: str) -> bool:
            if self.pending(node):
                self.health_check(node)
            return self.pending(node) == 0

        for node in self.slurm.spec.node_names():
            poll_until(partial(told, node), f"{node} to tell the store what it did without it")

    def uuids_of_positions(self, node: str) -> list[str]:
        """Return the node's UUIDs in the order in which Slurm counts its GPUs."""
        return [gpu.uuid for gpu in reversed(self.state.node(node).gpus)]

    def cancel_jobs(self) -> None:
        """Cancel every job there is; `slurm.wait_nodes_idle` waits for their ends."""
        for job in self.slurm.run(["squeue", "-h", "-o", "%A"]).stdout.split():
            self.slurm.run(["scancel", job])

    def run_python(self, code: str, *arguments: str) -> str:
        """Run Python that has canhazgpu; its first argument is the embedded store's directory."""
        done = self._python(code, *arguments)
        if done.returncode != 0:
            raise CommandFailed(f"Python ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def _python(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["-c", code, str(self.root / "store"), *arguments]
        return interpreter_of(self.venv).run(command, self.slurm.env(), 60)

    def hook(self, name: str, node: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run an installed hook by hand, with the bare environment slurmd gives it."""
        if self.agents is not None:
            self.agents.count(name, node)
        environ = {
            "SLURMD_NODENAME": node,
            "SLURM_CONF": str(self.slurm.layout.slurm_conf),
            "SLURM_CLUSTER_NAME": "demo",
            **variables,
        }
        return subprocess.run(
            [self.hook_path(name)],
            env=environ,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def health_check(self, node: str) -> subprocess.CompletedProcess[str]:
        """Run the health check by hand, as its script does with the bare environment of slurmd.

        Where no agent is asked, it runs without importing anew.
        """
        if self.agents is None:
            environ = {"SLURMD_NODENAME": node, **self._health_check_variables()}
            return interpreter_of(self.venv).run(["-c", CHECK], environ, 90)
        return subprocess.run(
            [self._write_health_check()],
            env={"SLURMD_NODENAME": node},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def _health_check_variables(self) -> dict[str, str]:
        conf = self.root / "slurm" / "etc" / "slurm.conf"
        return {"CANHAZGPU_CONFIG": str(self.config_file), "SLURM_CONF": str(conf)}

    def _write_health_check(self) -> Path:
        path = self.root / "health_check.sh"
        program = self.venv / "bin" / "canhazgpu-healthcheck"
        if self.agents is not None:
            # Only the installed script asks the agent.
            program = self.agents.counted(
                "health_check", self.root / "etc" / "slurm" / "canhazgpu" / "health_check.sh"
            )
        variables = " ".join(
            f"{name}={value}" for name, value in self._health_check_variables().items()
        )
        path.write_text(f"#!/bin/sh\nexport {variables}\nexec {program}\n")
        path.chmod(0o755)
        return path

    def hook_path(self, name: str) -> Path:
        return self.root / "etc" / "slurm" / f"{name}.d" / "canhazgpu.sh"

    def gpu_process(self) -> str:
        return str(self.root / "nvml" / "gpu-process")

    def _install_hooks(self) -> dict[str, str]:
        slurm_dir = self.root / "etc" / "slurm"
        install = ["--config", str(self.config_file), "hooks", "install"]
        arguments = [*install, "--slurm-dir", str(slurm_dir)]
        environ = {"PATH": os.environ.get("PATH", os.defpath)}
        run_without_importing(self.venv, arguments, environ).check_returncode()
        return {
            "prolog": str(slurm_dir / "prolog.d" / "*"),
            "epilog": str(slurm_dir / "epilog.d" / "*"),
            "task_prolog": str(slurm_dir / "canhazgpu" / "task_prolog.sh"),
        }

    def stop(self) -> None:
        """End the cluster and the store it started."""
        self.slurm.stop()
        self._python(
            "import sys; from canhazgpu.ledger.embedded import server; server.stop(sys.argv[1])"
        )
