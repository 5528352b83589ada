"""What the watcher's children open of a node: the configuration, the ledger, the GPUs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path

from canhazgpu.agent.scanner.client import scanner_probe
from canhazgpu.allocation.allocator import GpuAllocator
from canhazgpu.config.schema import Config
from canhazgpu.in_process.grants.acquisition import open_allocator
from canhazgpu.in_process.people_ledger import people_ledger
from canhazgpu.ledger.local.book_grants import Committer
from canhazgpu.ledger.local.fallback_ledger import FallbackLedger
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.values import NodeView
from canhazgpu.node.identity import state_dir
from canhazgpu.node.processes import this_process
from canhazgpu.node.system_log import write_syslog
from canhazgpu.probe.accounting.enabled import accounting_is_enabled
from canhazgpu.probe.accounting.run_use import RunUses
from canhazgpu.probe.port import GpuProbe
from canhazgpu.schedulers.slurm.conf.node_conf import conf_path, has_mps
from canhazgpu.schedulers.slurm.job_check.node_environment import with_recorded_conf


class NodePorts:
    """The ports of one node; `environ` is the agent's.

    They are used in children. Each reads the configuration once: an administrator may have mended
    it meanwhile.
    """

    def __init__(
        self,
        node: str,
        environ: Mapping[str, str],
        read_config: Callable[[], Config],
        scanner_socket: Path,
    ) -> None:
        self.node = node
        self._given_environ = environ
        self._read_config = read_config
        self._scanner_socket = scanner_socket

    def config(self) -> Config:
        """Return the configuration. Raises `ConfigError`."""
        return self._config

    @cached_property
    def _config(self) -> Config:
        return self._read_config()

    @cached_property
    def _environ(self) -> Mapping[str, str]:
        return with_recorded_conf(self._given_environ)

    def ledger(self, peer_lives: Callable[[], bool] = lambda: True) -> FallbackLedger:
        """Open the ledger, which grants while `peer_lives` only. Raises `CanhazgpuError`."""
        committer = Committer(this_process(), peer_lives=peer_lives)
        return people_ledger(self.node, self._config, self._environ, write_syslog, committer)

    def probe(self, config: Config) -> GpuProbe:
        """Return what scans the GPUs."""
        conf = conf_path(self._environ)
        return scanner_probe(
            self.node,
            config.validation,
            conf,
            state_dir(config.node, self.node),
            lambda: has_mps(conf, self.node),
            self._scanner_socket,
        )

    @property
    def tells_use(self) -> bool:
        """Whether the driver keeps what processes use."""
        return accounting_is_enabled(self._config.validation)

    def uses(self, view: NodeView, owners: Collection[str]) -> RunUses:
        """Begin to read what these owners made of their GPUs."""
        directory = state_dir(self._config.node, self.node)
        return RunUses(self._config.validation, directory, view, owners)

    def allocator(self, ledger: Ledger) -> GpuAllocator:
        """Return the allocator over this ledger. Raises `CanhazgpuError`."""
        return open_allocator(self.node, self.probe(self._config), ledger)
