"""Build the ledger of a node from the configuration: for its hooks, and for people's requests."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from canhazgpu.allocation.liveness import LivenessContext, death_reason
from canhazgpu.config.schema import Config, StoreConfig
from canhazgpu.errors import StoreError
from canhazgpu.ledger.local.book.book import is_job_owner
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.served_boot import served_boot
from canhazgpu.ledger.local.book_grants import Committer
from canhazgpu.ledger.local.fallback_ledger import FallbackLedger
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.local.outage import StoreOutage
from canhazgpu.ledger.local.queue.queue_file import QueueFile
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.local.store_access import StoreAccess, StoreWaitPolicy
from canhazgpu.ledger.store.name_resolution import resolve_hosts
from canhazgpu.ledger.values import Claim
from canhazgpu.ledger.wait_budget import WaitBudget
from canhazgpu.node.identity import node_identity, pid_namespace
from canhazgpu.node.processes import is_alive, this_process
from canhazgpu.schedulers.slurm.conf.node_conf import SlurmNodeConf
from canhazgpu.schedulers.slurm.control.job_presence import JobPresence

if TYPE_CHECKING:
    from canhazgpu.ledger.local.book.rebuilt_book import SchedulersJob
    from canhazgpu.ledger.port import Ledger

MAX_RESOLVE_S = 2.0


class MessageLog(Protocol):
    """A writer of the administrator's log."""

    def log(self, message: str) -> None:
        """Write one line."""


class NodeLedgerInputs(Protocol):
    """The parts of a node that its ledger needs, see `NodeContext` of node_context.py."""

    @property
    def node(self) -> str: ...  # noqa: D102

    @property
    def cluster(self) -> str: ...  # noqa: D102

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
    def in_job(self) -> bool: ...  # noqa: D102

    @property
    def actions(self) -> MessageLog: ...  # noqa: D102

    def has_ended(self) -> bool: ...  # noqa: D102

    def peer_lives(self) -> bool: ...  # noqa: D102

    def jobs_here(self, known: Collection[str]) -> list[SchedulersJob]: ...  # noqa: D102


def node_ledger(
    context: NodeLedgerInputs,
    log: Callable[[str], None] | None = None,
    committer: Committer | None = None,
) -> FallbackLedger:
    """Return the ledger. Nothing is opened before the first use.

    `log` gets lines for the administrator, and `committer` opens and commits the grants; without
    them, it is the hook of the context.
    """
    log = log or context.actions.log
    served = served_boot(context.config.node, context.node, context.boot_id)
    book = BookFile(
        context.state_dir, context.node, context.boot_id, context.records, log, served=served
    )
    store = context.config.store
    outage = StoreOutage(context.state_dir, store.retry_after_s)
    reconciler = Reconciler(context.node, book, log, _is_gone_check(context), context.jobs_here)
    access = StoreAccess(
        context.node,
        _store_opener(context),
        book,
        outage,
        reconciler,
        log,
        StoreWaitPolicy(decides_alone=store.on_failure == "local"),
    )
    committer = committer or Committer(
        this_process(),
        context.config.slurm.hook_deadline_s,
        context.has_ended,
        context.peer_lives,
    )
    queue = QueueFile(context.state_dir, context.node, context.boot_id, log)
    return FallbackLedger(context.node, book, access, reconciler, queue, log, committer)


def _store_opener(context: NodeLedgerInputs) -> Callable[[WaitBudget], Ledger]:
    store = context.config.store

    def open_store(budget: WaitBudget) -> Ledger:
        from canhazgpu.ledger.store.connect import Role  # noqa: PLC0415 - where a store is asked
        from canhazgpu.ledger.store.ledger import RedisLedger  # noqa: PLC0415 - imports redis

        if context.in_job:
            _refuse_to_start_in_job(store)
        resolve_hosts(store.url, min(store.timeout_s, MAX_RESOLVE_S, budget.left_s))
        identity = node_identity(context.node, context.cluster, context.state_dir, context.boot_id)
        return RedisLedger(store, Role.WRITE, budget, identity)

    return open_store


def _is_gone_check(context: NodeLedgerInputs) -> Callable[[Claim], bool]:
    """Return what tells whether the owner of a claim has ended, as far as this node can know."""
    liveness = LivenessContext(context.boot_id, pid_namespace(), is_alive)

    def is_gone(claim: Claim) -> bool:
        if not is_job_owner(claim.owner):
            return bool(death_reason(claim, 0.0, liveness))
        return (
            claim.job_id is not None
            and claim.owner.startswith(context.node_conf.job_owner_prefix)
            and context.presence.is_absent(claim.job_id)
        )

    return is_gone


def _refuse_to_start_in_job(store: StoreConfig) -> None:
    """Raise `StoreError` if the embedded server does not run: it would keep the job from ending."""
    from canhazgpu.ledger.embedded.directory import ServerDirectory, is_listening  # noqa: PLC0415 - hardly ever needed
    from canhazgpu.ledger.store.url import EMBEDDED  # noqa: PLC0415

    if store.url == EMBEDDED and not is_listening(ServerDirectory(Path(store.embedded_dir)).socket):
        raise StoreError(
            "the embedded store does not run, and this hook runs inside its job"
            " (PrologFlags=RunInJob)",
            next_step="the health check starts it, or 'canhazgpu status' as root",
        )
