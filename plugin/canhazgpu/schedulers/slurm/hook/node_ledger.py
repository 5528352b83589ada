"""The ledger of a node's hooks, put together from the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from canhazgpu.config.schema import Config
from canhazgpu.ledger.local.book_file import BookFile
from canhazgpu.ledger.local.fallback_ledger import FallbackLedger
from canhazgpu.ledger.local.job_records import JobRecords
from canhazgpu.ledger.local.outage import StoreOutage
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.store.name_resolution import resolve_hosts
from canhazgpu.ledger.values import Claim
from canhazgpu.schedulers.slurm.conf.node_conf import SlurmNodeConf
from canhazgpu.schedulers.slurm.control.job_presence import JobPresence

if TYPE_CHECKING:
    from canhazgpu.ledger.port import Ledger

MAX_RESOLVE_S = 2.0


class MessageLog(Protocol):
    """Whoever writes the administrator's log."""

    def log(self, message: str) -> None:
        """Write one line."""


class NodeLedgerInputs(Protocol):
    """What is needed of the node; see `canhazgpu.schedulers.slurm.hook.run.NodeContext`."""

    @property
    def node(self) -> str: ...  # noqa: D102

    @property
    def config(self) -> Config: ...  # noqa: D102

    @property
    def node_conf(self) -> SlurmNodeConf: ...  # noqa: D102

    @property
    def boot_id(self) -> str | None: ...  # noqa: D102

    @property
    def state_dir(self) -> Path: ...  # noqa: D102

    @property
    def records(self) -> JobRecords: ...  # noqa: D102

    @property
    def presence(self) -> JobPresence: ...  # noqa: D102

    @property
    def actions(self) -> MessageLog: ...  # noqa: D102


def node_ledger(side: NodeLedgerInputs) -> FallbackLedger:
    """Return the ledger; nothing is opened or asked before it is used."""
    store = side.config.store

    def open_store() -> Ledger:
        from canhazgpu.ledger.store.connect import Role  # noqa: PLC0415 - where a store is asked
        from canhazgpu.ledger.store.ledger import RedisLedger  # noqa: PLC0415 - imports redis

        resolve_hosts(store.url, min(store.timeout_s, MAX_RESOLVE_S))
        return RedisLedger(store, Role.WRITE)

    def is_gone(claim: Claim) -> bool:
        ours = f"job:{side.node_conf.cluster}:" if side.node_conf.cluster else "job:"
        return (
            claim.job_id is not None
            and claim.owner.startswith(ours)
            and side.presence.is_gone(claim.job_id)
        )

    tell = side.actions.log
    book = BookFile(side.state_dir, side.node, side.boot_id, side.records, tell)
    local = store.on_failure == "local"
    return FallbackLedger(
        side.node,
        open_store,
        book,
        StoreOutage(side.state_dir, store.retry_after_s) if local else None,
        Reconciler(side.node, book, tell, is_gone),
        tell,
    )
