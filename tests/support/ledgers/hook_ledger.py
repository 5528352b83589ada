"""The ledger of a hook, made of its parts; grants are committed at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from canhazgpu.errors import VoidGrantError
from canhazgpu.ledger.grant_answers import GrantedGpus
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book_grants import Committer
from canhazgpu.ledger.local.fallback_ledger import FallbackLedger
from canhazgpu.ledger.local.outage import StoreOutage
from canhazgpu.ledger.local.queue.queue_file import QueueFile
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.local.store_access import DEFAULT_WAIT_BUDGET_S, StoreAccess, StoreWaitPolicy
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.values import Claim
from canhazgpu.ledger.wait_budget import WaitBudget


class CommittingLedger(FallbackLedger):
    """A hook's ledger, as if the second scan of each grant were clean."""

    def reserve_count(self, claim: Claim, *given: Any, **named: Any) -> Any:
        return self._committed(claim, super().reserve_count(claim, *given, **named))

    def reserve_given(self, claim: Claim, *given: Any, **named: Any) -> Any:
        return self._committed(claim, super().reserve_given(claim, *given, **named))

    def _committed(self, claim: Claim, answer: Any) -> Any:
        if isinstance(answer, GrantedGpus) and (refusal := self.commit(claim.owner)):
            raise VoidGrantError(refusal.value)
        return answer


def hook_ledger(
    node: str,
    open_store: Callable[[WaitBudget], Ledger],
    book: BookFile,
    outage: StoreOutage,
    reconciler: Reconciler,
    log: Callable[[str], None],
    *,
    wait_budget_s: float = DEFAULT_WAIT_BUDGET_S,
    committer: Committer | None = None,
    decides_alone: bool = True,
) -> CommittingLedger:
    """Return the ledger of one process of the node."""
    policy = StoreWaitPolicy(decides_alone, wait_budget_s)
    access = StoreAccess(node, open_store, book, outage, reconciler, log, policy)
    queue = QueueFile(book._path.parent, node, book._boot_id, log)
    return CommittingLedger(node, book, access, reconciler, queue, log, committer)
