"""The adapters of the in-process service: configuration, ledger, probe, clock and job lookup.

Each factory imports its adapter when it is called, so that importing this module is cheap.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from canhazgpu.config import EffectiveConfig, load
from canhazgpu.config.environment import refuse_misspelt_variables
from canhazgpu.config.host_role import has_own_gpus
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.node.processes import this_process
from canhazgpu.node.users import Caller, this_caller

if TYPE_CHECKING:
    from canhazgpu.config.schema import AgentConfig, Config, SlurmConfig, StoreConfig
    from canhazgpu.in_process.watching.watched_grants import WatchedGrants
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.ledger.store.connect import Role
    from canhazgpu.ledger.store.orders import OrderStore
    from canhazgpu.node.process_id import ProcessId
    from canhazgpu.node.users import Rights
    from canhazgpu.probe.port import GpuProbe
    from canhazgpu.schedulers.slurm.control.enclosing_job import EnclosingJob
    from canhazgpu.status.scheduler_jobs import JobLookup

    RightsOfGiver = Callable[[AgentConfig, int], Rights]


def open_probe(node: str, config: Config, environ: Mapping[str, str]) -> GpuProbe:
    """Return the probe of this node."""
    from canhazgpu.node.identity import state_dir  # noqa: PLC0415 - only some commands scan
    from canhazgpu.probe.node_probe import NodeProbe  # noqa: PLC0415
    from canhazgpu.schedulers.slurm.attribution.attribution import command_attribution  # noqa: PLC0415
    from canhazgpu.schedulers.slurm.conf.node_conf import conf_path, has_mps  # noqa: PLC0415

    conf = conf_path(environ)
    attribution = command_attribution(conf, node, state_dir(config.node, node))
    return NodeProbe(node, config.validation, attribution, lambda: has_mps(conf, node))


def open_ledger(store: StoreConfig, role: Role) -> Ledger:
    """Return the ledger in Redis."""
    from canhazgpu.ledger.store.ledger import RedisLedger  # noqa: PLC0415 - only some need it

    return RedisLedger(store, role)


def open_orders(store: StoreConfig) -> OrderStore:
    """Return the orders to all nodes, in Redis."""
    from canhazgpu.ledger.store.connect import Role  # noqa: PLC0415 - only for other nodes
    from canhazgpu.ledger.store.orders import OrderStore  # noqa: PLC0415

    return OrderStore(store, Role.WRITE)


def open_job_lookup(slurm: SlurmConfig, environ: Mapping[str, str]) -> JobLookup:
    """Return the lookup of names and end times of Slurm's jobs."""
    from canhazgpu.schedulers.slurm.control.job_lookup import SqueueLookup  # noqa: PLC0415 - rarely needed

    return SqueueLookup(slurm, environ)


def find_job_around(environ: Mapping[str, str], node: str) -> EnclosingJob | None:
    """Return the scheduler's job that encloses the caller, by its environment."""
    from canhazgpu.schedulers.slurm.control.enclosing_job import find_enclosing_job  # noqa: PLC0415 - only for a run

    return find_enclosing_job(environ, node)


def new_owner(type_: str) -> str:
    """Return a new owner's token."""
    from canhazgpu.ledger.owner import new_owner_token  # noqa: PLC0415 - only for grants

    return new_owner_token(type_)


@dataclass(frozen=True, slots=True)
class Adapters:
    """The adapters of the in-process service; tests give their own.

    `clock` is monotonic, in seconds. `config_file` and `overrides` come from the options --config
    and --set. `environ` is the node's environment, which names its configuration, and
    `command_environ` that of a command to run, where it is another one. `process` is the process
    that asks, `new_owner` makes the token of its reservation. `node_ledger` opens the ledger of the
    node's book for a process that may decide with it. `before_wait` is called when nothing is left
    to do but to wait for another node, with the longest time in seconds. `watched` gives who
    watches runs and lets requests wait, where that is not this process. `rights_of_giver` tells
    what the user with this uid may do here who gives an order from another host; None: what
    everybody may.
    """

    environ: Mapping[str, str]
    config_file: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    caller: Callable[[], Caller] = this_caller
    probe: Callable[[str, Config, Mapping[str, str]], GpuProbe] = open_probe
    ledger: Callable[[StoreConfig, Role], Ledger] = open_ledger
    orders: Callable[[StoreConfig], OrderStore] = open_orders
    job_lookup: Callable[[SlurmConfig, Mapping[str, str]], JobLookup] = open_job_lookup
    command_environ: Mapping[str, str] | None = None
    process: Callable[[], ProcessId] = this_process
    new_owner: Callable[[str], str] = new_owner
    job_around: Callable[[Mapping[str, str], str], EnclosingJob | None] = find_job_around
    node_ledger: Callable[[str, Config], Ledger] | None = None
    before_wait: Callable[[float], None] = lambda _longest_s: None
    watched: Callable[[], WatchedGrants] | None = None
    rights_of_giver: RightsOfGiver | None = None

    @property
    def environ_of_command(self) -> Mapping[str, str]:
        """The environment of a command that the caller runs."""
        return self.environ if self.command_environ is None else self.command_environ

    def effective_config(self, extra_overrides: Mapping[str, str] | None = None) -> EffectiveConfig:
        """Read the configuration in force; `extra_overrides` win over everything else.

        Raises `ConfigError`.
        """
        overrides = {**self.overrides, **(extra_overrides or {})}
        return load(
            self.environ,
            file=self.config_file,
            overrides=overrides,
            refuses_misspelt_variables=False,
        )

    def open_probe(self, node: str, config: Config) -> GpuProbe:
        """Return the probe of this node."""
        return self.probe(node, config, self.environ)

    def health_checks(self, node: str, config: Config) -> tuple[str, ...]:
        """Return the configured checks as they apply to the node."""
        from canhazgpu.gpu.health import checks_with_mps  # noqa: PLC0415 - few commands check it
        from canhazgpu.schedulers.slurm.conf.node_conf import conf_path, has_mps  # noqa: PLC0415

        checks = tuple(config.validation.health_checks)
        return checks_with_mps(checks) if has_mps(conf_path(self.environ), node) else checks

    def reader(self, config: Config) -> Ledger:
        """Return the ledger, opened with the role of a reader."""
        from canhazgpu.ledger.store.connect import Role  # noqa: PLC0415 - help needs no ledger

        self._deliver_journal_as_root(config)
        return self.ledger(config.store, Role.READ)

    def writer(self, config: Config) -> Ledger:
        """Return the ledger, opened with the role of a writer.

        Raises `ConfigError` for a variable of the environment that is a misspelt key.
        """
        refuse_misspelt_variables(self.environ)
        if self.node_ledger is not None:
            from canhazgpu.node.identity import node_name  # noqa: PLC0415 - as below

            return self.node_ledger(node_name(config.node, self.environ), config)
        self._deliver_journal_as_root(config)
        return self._open_writer(config)

    def writer_of(self, node: str, config: Config) -> Ledger:
        """Return the ledger that changes all records of a node, as `writer`.

        The book is that of its own node alone. Of another one the store itself is asked, which
        decides what the login may change there.
        """
        from canhazgpu.node.identity import node_name  # noqa: PLC0415 - as below

        if self.node_ledger is None or node == node_name(config.node, self.environ):
            return self.writer(config)
        refuse_misspelt_variables(self.environ)
        return self._open_writer(config)

    def granting_ledger(self, node: str, config: Config) -> Ledger:
        """Return the ledger by which people are granted GPUs of this node, as `writer`."""
        ledger = self.writer(config)
        if self.node_ledger is not None:
            return ledger
        from canhazgpu.in_process.book.store_ledgers import book_checked_ledger  # noqa: PLC0415 - only for grants

        return book_checked_ledger(node, config, ledger)

    def _open_writer(self, config: Config) -> Ledger:
        if self.ledger is open_ledger:
            from canhazgpu.in_process.book.store_ledgers import identified_writer  # noqa: PLC0415 - only what changes the ledger needs it
            from canhazgpu.node.identity import node_name  # noqa: PLC0415

            return identified_writer(node_name(config.node, self.environ), config, self.environ)
        from canhazgpu.ledger.store.connect import Role  # noqa: PLC0415 - help needs no ledger

        return self.ledger(config.store, Role.WRITE)

    def _deliver_journal_as_root(self, config: Config) -> None:
        """Send the store what this node's hooks did without it: only root may read that."""
        administrates = self.caller().rights.may_administrate
        if self.node_ledger is not None or not administrates or not has_own_gpus(config):
            return
        from canhazgpu.in_process.book.journal_delivery import deliver_pending_journal  # noqa: PLC0415 - only for root
        from canhazgpu.node.identity import node_name  # noqa: PLC0415

        deliver_pending_journal(
            node_name(config.node, self.environ),
            config,
            lambda: self._open_writer(config),
        )


def threshold_override(memory_threshold_mb: int | None) -> dict[str, str]:
    """Return the override for a request's own memory threshold (MB), none for None."""
    if memory_threshold_mb is None:
        return {}
    return {"validation.memory_threshold_mb": str(memory_threshold_mb)}
