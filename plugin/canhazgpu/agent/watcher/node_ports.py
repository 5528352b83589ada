"""What the watcher's children open of a node: the configuration, the ledger, the GPUs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from canhazgpu.agent.scanner.client import scanner_probe
from canhazgpu.allocation.allocator import GpuAllocator
from canhazgpu.allocation.queue_check import LedgerPlaces, QueuePlaces
from canhazgpu.config.schema import Config
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.in_process.grants.acquisition import open_allocator
from canhazgpu.in_process.node_book import heeding_node, identified_writer
from canhazgpu.ledger.port import Ledger
from canhazgpu.node.identity import state_dir
from canhazgpu.probe.port import GpuProbe
from canhazgpu.schedulers.slurm.conf.node_conf import conf_path, has_mps


@dataclass(frozen=True, slots=True)
class NodePorts:
    """The ports of one node; `environ` is the agent's.

    The configuration is read anew for each use: an administrator may have mended it.
    """

    node: str
    environ: Mapping[str, str]
    read_config: Callable[[], Config]
    scanner_socket: Path

    def ledger(self) -> Ledger:
        """Open the ledger. Raises `CanhazgpuError`."""
        config = self.read_config()
        return heeding_node(self.node, config, identified_writer(self.node, config, self.environ))

    def config(self) -> Config:
        """Read the configuration. Raises `ConfigError`."""
        return self.read_config()

    def people_ledger(
        self, config: Config, peer_lives: Callable[[], bool]
    ) -> tuple[Ledger, QueuePlaces]:
        """Open the ledger for people's requests, and the places in its queue."""
        writer = identified_writer(self.node, config, self.environ)
        ledger = heeding_node(self.node, config, writer)
        return ledger, LedgerPlaces(ledger, self.node)

    def probe(self, config: Config) -> GpuProbe:
        """Return what scans the GPUs."""
        conf = conf_path(self.environ)
        return scanner_probe(
            self.node,
            config.validation,
            conf,
            state_dir(config.node, self.node),
            lambda: has_mps(conf, self.node),
            self.scanner_socket,
        )

    def allocator(self, ledger: Ledger) -> GpuAllocator:
        """Return the allocator over this ledger. Raises `CanhazgpuError`."""
        return open_allocator(self.node, self.probe(self.read_config()), ledger)
