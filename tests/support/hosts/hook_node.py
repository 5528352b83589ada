"""A node of simulated GPUs and a store of its own, and the hooks run as slurmd runs them."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forking_python import own_interpreter
from hosts.running_agent import RunningAgent, run_hook
from servers.private_redis import PrivateRedis

import fake_nvml
from canhazgpu.config.schema import StoreConfig
from canhazgpu.gpu.scan import GpuReading, Scan
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim, NodeView, Reservation

NODE = "n1"
JOB_ID = "12"
DEFAULT_ANSWERS = {
    "squeue": f'case $* in *--nodelist*) ;; *) echo "{JOB_ID} {JOB_ID} RUNNING" ;; esac',
    "sinfo": f"echo '{NODE} mixed'",
    "scancel": "",
}
HOOK_MODULES = {
    "canhazgpu.prolog.main": "prolog",
    "canhazgpu.epilog.main": "epilog",
    "canhazgpu.epilog.health_check": "health_check",
}


def write_config(directory: Path, content: Mapping[str, Mapping[str, object]]) -> None:
    lines = []
    for section, values in content.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    (directory / "config.toml").write_text("\n".join(lines) + "\n")


@dataclass(frozen=True, slots=True)
class HookNode:
    """One node; `files` holds its configuration, Slurm's files and its records."""

    files: Path
    state: fake_nvml.FakeState
    ledger: RedisLedger
    server: PrivateRedis
    config: dict[str, dict[str, Any]]
    agent: RunningAgent | None = None
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def assignment(self) -> str:
        """Who chooses the GPUs, ``slurm`` or ``canhazgpu``."""
        return str(self.config["slurm"]["assignment"])

    def uuid_of_position(self, position: int) -> str:
        """The GPU under Slurm's number: its minor number, which runs against the index."""
        return self.state.node(NODE).gpus[3 - position].uuid

    def all_uuids(self) -> list[str]:
        """The node's GPUs, in the order of their indices."""
        return [gpu.uuid for gpu in self.state.node(NODE).gpus]

    def reservations(self) -> list[Reservation]:
        return list(self.view().reservations.values())

    def environ(self, **variables: str) -> dict[str, str]:
        """The bare environment of a hook, for a job of two GPUs."""
        return {
            **self.state.env(NODE),
            "CANHAZGPU_CONFIG": str(self.files / "config.toml"),
            "SLURM_CONF": str(self.files / "slurm.conf"),
            "SLURMD_NODENAME": NODE,
            "SLURM_CLUSTER_NAME": "c1",
            "SLURM_JOB_ID": JOB_ID,
            "SLURM_JOB_UID": "1000",
            "SLURM_JOB_USER": "ann",
            "SLURM_JOB_GPUS": "0,1",
            **variables,
        }

    def python(
        self, *arguments: str, environ: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run Python; where the node has an agent, a hook's module is run by asking that.

        A program that changes modules of a hook runs them in its own process in any case.
        """
        given = self.environ() if environ is None else environ
        is_hook = arguments[1] in HOOK_MODULES and set(arguments[2:]) <= {"--exit-code"}
        if self.agent is not None and is_hook:
            if "--exit-code" in arguments:
                given = {**given, "HOOK_EXIT_CODE": "1"}
            done = run_hook(self.agent, HOOK_MODULES[arguments[1]], given)
            if HOOK_MODULES[arguments[1]] == "health_check" and "--exit-code" not in arguments:
                done.returncode = 0  # as its script does
            return done
        return own_interpreter().run(arguments, given, timeout_s=60)

    def new_python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same with an interpreter that has imported nothing yet."""
        return subprocess.run(
            [sys.executable, "-I", *arguments],
            env=self.environ(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def run(self, hook: str, **variables: str) -> None:
        """Run a hook; it must not make slurmd drain the node."""
        done = self.python("-m", f"canhazgpu.{hook}.main", environ=self.environ(**variables))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def configure(self, **sections: dict[str, object]) -> None:
        """Add these keys to the configuration."""
        with (self.files / "config.toml").open("rb") as stream:
            content = tomllib.load(stream)
        for section, values in sections.items():
            content.setdefault(section, {}).update(values)
        write_config(self.files, content)

    def start(self, hook: str, **variables: str) -> subprocess.Popen[str]:
        """Start a hook; it runs on while the test does something else."""
        own = ["-I", "-m", f"canhazgpu.{hook}.main"]
        started = subprocess.Popen(
            [sys.executable, *(self.agent.hook_arguments(hook) if self.agent else own)],
            env=self.environ(**variables),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.started.append(started)
        return started

    def gpu(self, place: int) -> fake_nvml.FakeGpu:
        """The GPU of Slurm's number, whose order is that of the device files."""
        return self.state.node(NODE).gpu(3 - place)

    def reserve(self, place: int, user: str = "carol", uid: int | None = 4242) -> Claim:
        """Reserve the GPU of Slurm's number for a person, for an hour."""
        claim = Claim("manual:1", "manual", user, uid, duration_s=3600.0)
        uuid = self.gpu(place).uuid
        scan = Scan(NODE, 0.0, 0.0, (GpuReading(0, uuid, 0, "H100", 0, 80000),))
        self.ledger.reserve_given(claim, [uuid], Observation(scan, 0.0))
        return claim

    def slurm(self, **answers: str) -> None:
        """Have Slurm's commands answer so: a command's name, or a verb of scontrol, and a script.

        Without a word of a command it takes every order, and the job runs.
        """
        for name in ("squeue", "scontrol", "scancel", "sinfo"):
            verbs = "".join(
                f"case $1 in {verb}) {script} ;; esac\n" for verb, script in answers.items()
            )
            script = answers.get(name, verbs if name == "scontrol" else DEFAULT_ANSWERS[name])
            path = self.files / "bin" / name
            path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.files}/orders\n{script}\n')
            path.chmod(0o755)

    def scheduler_orders(self) -> list[str]:
        """The orders given to Slurm, without the questions, the job's number apart."""
        path = self.files / "orders"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if not line.startswith(("squeue", "sinfo"))]

    def ran_slurm_commands(self) -> bool:
        """Tell whether any of Slurm's commands was run."""
        return (self.files / "orders").exists()

    def log_lines(self) -> list[str]:
        """The log without its times."""
        return [line.partition("canhazgpu: ")[2] for line in self.log().splitlines()]

    def view(self) -> NodeView:
        (view,) = self.ledger.read_nodes([NODE])
        return view

    def owners_by_gpu(self) -> dict[str, str]:
        """The reserved GPUs and the owner of each."""
        return {gpu: one.claim.owner for gpu, one in self.view().reservations.items()}

    def record_files(self) -> set[str]:
        directory = self.files / "run" / "jobs"
        return {path.name for path in directory.iterdir()} - {".lock"}

    def forget_outage(self) -> None:
        """As if the time had passed for which a failure of the store is remembered."""
        (self.files / "run" / "store-outage").unlink(missing_ok=True)

    def log(self) -> str:
        return (self.files / "slurmd.log").read_text()


@contextmanager
def make_hook_node(
    directory: Path,
    library: Path,
    assignment: str,
    state: fake_nvml.FakeState,
    agent: RunningAgent | None = None,
) -> Iterator[HookNode]:
    """Make one with four GPUs; `assignment` is who chooses among them."""
    state.add_node(NODE, 4, minors=[3, 2, 1, 0])
    commands = directory / "bin"
    commands.mkdir()
    with PrivateRedis() as server:
        config: dict[str, dict[str, Any]] = {
            "store": {"url": server.url, "timeout_s": 5.0},
            "validation": {"nvml_library": str(library)},
            "slurm": {"assignment": assignment, "bin_dir": str(commands)},
            "node": {
                "state_dir": str(directory / "run"),
                "marker_dir": str(directory / "lib"),
            },
        }
        write_config(directory, config)
        (directory / "slurm.conf").write_text(f"SlurmdLogFile={directory}/slurmd.log\n")
        (directory / "gres.conf").write_text("Name=gpu File=/dev/nvidia[0-3]\n")
        (directory / "slurmd.log").write_text("")
        ledger = RedisLedger(StoreConfig(url=server.url, timeout_s=5.0), Role.WRITE)
        yield HookNode(directory, state, ledger, server, config, agent)
