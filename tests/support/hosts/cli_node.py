"""A private store and a simulated node, for the command line as a program."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from forking_python import own_interpreter
from servers.private_redis import PrivateRedis
from simulated_driver import install_driver

import fake_nvml
from canhazgpu.config.schema import StoreConfig, ValidationConfig
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim
from canhazgpu.probe.node_probe import NodeProbe

PROGRAM = (sys.executable, "-c", "from canhazgpu.cli.main import main; main()")


@dataclass(frozen=True, slots=True)
class CliNode:
    """Node n1 with its GPUs, the store, and a directory that everyone can enter."""

    directory: Path
    node: fake_nvml.FakeNode
    library: str
    redis: PrivateRedis

    def ledger(self) -> RedisLedger:
        return RedisLedger(StoreConfig(url=self.redis.url), Role.WRITE)

    def observe(self, node: str = "n1") -> Observation:
        return NodeProbe(node, ValidationConfig(nvml_library=self.library)).start().observe()

    def reserve(self, claim: Claim, *indices: int) -> None:
        found = self.observe()
        gpus = [found.scan.gpus[index].uuid for index in indices]
        self.ledger().reserve_given(claim, gpus, found)

    def publish(self, node: str = "n1") -> None:
        self.ledger().publish_scan(self.observe(node))

    def env(self, **more: str) -> dict[str, str]:
        """The environment in which the program finds all this."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLURM", "CANHAZGPU", "NO_COLOR", "COLUMNS", "LINES"))
        }
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "CANHAZGPU_STORE_URL": self.redis.url,
            "CANHAZGPU_VALIDATION_NVML_LIBRARY": self.library,
            "CANHAZGPU_NODE_NAME": "n1",
            "TERM": "xterm",
            **more,
        }

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return own_interpreter().run([*PROGRAM[1:], *arguments], self.env(**env), timeout_s=60)


@contextmanager
def make_cli_node(gpus: int = 3) -> Iterator[CliNode]:
    """Make one; the fake library finds its node through FAKE_NVML_NODE, which the caller sets."""
    with tempfile.TemporaryDirectory(prefix="chg-status-") as name, PrivateRedis() as server:
        directory = Path(name)
        directory.chmod(0o755)
        install_driver(directory / "nvml")
        node = fake_nvml.FakeState(directory / "nvml" / "state").add_node("n1", gpus)
        library = str(next((directory / "nvml").rglob("libnvidia-ml.so.1")))
        yield CliNode(directory, node, library, server)
