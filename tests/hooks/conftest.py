"""A node of simulated GPUs and a store of its own, and the hooks run as slurmd runs them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis_server import PrivateRedis

import fake_nvml
from canhazgpu.config.schema import StoreConfig
from canhazgpu.ledger.redis_ledger import RedisLedger, Role
from canhazgpu.ledger.values import NodeView, Reservation

NODE = "n1"
JOB_ID = "12"


@dataclass(frozen=True, slots=True)
class HookNode:
    """One node; `files` holds its configuration, Slurm's files and its records."""

    files: Path
    state: fake_nvml.FakeState
    ledger: RedisLedger
    server: PrivateRedis
    config: dict[str, dict[str, Any]]

    @property
    def assignment(self) -> str:
        """Who chooses the GPUs, ``slurm`` or ``canhazgpu``."""
        return str(self.config["slurm"]["assignment"])

    def configure(self, **sections: dict[str, Any]) -> None:
        """Write the configuration, with these sections' keys changed."""
        for section, values in sections.items():
            self.config.setdefault(section, {}).update(values)
        lines = []
        for section, values in self.config.items():
            lines.append(f"[{section}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        (self.files / "config.toml").write_text("\n".join(lines) + "\n")

    def uuid_of_position(self, position: int) -> str:
        """The GPU under Slurm's number: its minor number, which runs against the index."""
        return self.state.node(NODE).gpus[3 - position].uuid

    def all_uuids(self) -> list[str]:
        """The node's GPUs, in the order of their indices."""
        return [gpu.uuid for gpu in self.state.node(NODE).gpus]

    def reservations(self) -> list[Reservation]:
        return list(self.view().reservations.values())

    def start(self, hook: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start a hook and go on."""
        return subprocess.Popen(
            [sys.executable, "-I", "-m", f"canhazgpu.{hook}.main"], env=self.environ(**variables)
        )

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
        return subprocess.run(
            [sys.executable, "-I", *arguments],
            env=self.environ() if environ is None else environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def run(self, hook: str, **variables: str) -> None:
        """Run a hook; it must not make slurmd drain the node."""
        done = self.python("-m", f"canhazgpu.{hook}.main", environ=self.environ(**variables))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def view(self) -> NodeView:
        (view,) = self.ledger.look([NODE])
        return view

    def held(self) -> dict[str, str]:
        """The reserved GPUs and the owner of each."""
        return {gpu: one.claim.owner for gpu, one in self.view().reservations.items()}

    def records(self) -> set[str]:
        directory = self.files / "run" / "jobs"
        return {path.name for path in directory.iterdir()} - {".lock"}

    def forget_outage(self) -> None:
        """As if the time had passed for which a failure of the store is remembered."""
        (self.files / "run" / "store-outage").unlink(missing_ok=True)

    def log(self) -> str:
        return (self.files / "slurmd.log").read_text()


@pytest.fixture(scope="session")
def library() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="chg-hooks-"))
    yield fake_nvml.install(directory)
    shutil.rmtree(directory)


@pytest.fixture(params=["slurm", "canhazgpu"])
def node(request: pytest.FixtureRequest, library: Path, tmp_path: Path) -> Iterator[HookNode]:
    """A node, once with Slurm's choice of devices and once with ours."""
    state = fake_nvml.FakeState(tmp_path / "nvml")
    state.add_node(NODE, 4, minors=[3, 2, 1, 0])
    commands = tmp_path / "bin"
    commands.mkdir()
    with PrivateRedis() as server:
        config: dict[str, dict[str, Any]] = {
            "store": {"url": server.url, "timeout_s": 5.0},
            "validation": {"nvml_library": str(library)},
            "slurm": {"assignment": request.param, "bin_dir": str(commands)},
            "node": {"state_dir": str(tmp_path / "run")},
        }
        (tmp_path / "slurm.conf").write_text(f"SlurmdLogFile={tmp_path}/slurmd.log\n")
        (tmp_path / "slurmd.log").write_text("")
        ledger = RedisLedger(StoreConfig(url=server.url, timeout_s=5.0), Role.WRITE)
        made = HookNode(tmp_path, state, ledger, server, config)
        made.configure()
        yield made
