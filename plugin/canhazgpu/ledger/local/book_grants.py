"""Grants of one node: its book decides, and the store confirms.

`open` enters an intent in the book, under its lock. `confirm` asks the store, without the lock.
`commit` makes the grant final, under the lock again, after the caller has looked at the GPUs once
more. While the store is away, the journal stands for it. See `grant_steps`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from canhazgpu.errors import NodeStateError, StoreError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.grant_answers import (
    BlockedGpu,
    CommitRefusal,
    GrantedGpus,
    QueuePosition,
    TooFewGpus,
)
from canhazgpu.ledger.local.book.book import Book
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.grant_steps import (
    CommitFacts,
    cancel_entry,
    commit_entry,
    commit_refusal,
    opened_intent,
    settled_through,
    with_open_intents,
)
from canhazgpu.ledger.local.book.intent import Intent
from canhazgpu.ledger.local.book.journal import PendingEntries
from canhazgpu.ledger.local.reconcile import MAX_BATCH, Reconciler
from canhazgpu.ledger.local.store_access import StoreAccess
from canhazgpu.ledger.port import (
    Confirmed,
    GrantSettled,
    Ledger,
    Observation,
    UnconfirmedGrant,
)
from canhazgpu.ledger.record_json import with_valid_text
from canhazgpu.ledger.values import Claim
from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.processes import this_process

OFFLINE_REASON = "granted by the node alone"
DEFAULT_INTENT_LIFE_S = 60.0

Refused = BlockedGpu | TooFewGpus | QueuePosition
Choose = Callable[[Book, float], GrantedGpus | Refused]
"""Chooses GPUs by the book, at a time by the store's clock in seconds."""


@dataclass(frozen=True, slots=True)
class Committer:
    """The process that opens intents and commits them.

    `life_s` is for how long it may take. `has_ended` tells whether the attempt for which it works
    has ended, and `peer_lives` whether the process that asked for that still waits. Both are called
    while the book's lock is held, and read files only.
    """

    process: ProcessId
    life_s: float = DEFAULT_INTENT_LIFE_S
    has_ended: Callable[[], bool] = lambda: False
    peer_lives: Callable[[], bool] = lambda: True


class BookGrants:
    """Opens, confirms and commits the grants of one node; every method raises `NodeStateError`."""

    def __init__(
        self,
        node: str,
        book_file: BookFile,
        reconciler: Reconciler,
        committer: Committer | None = None,
    ) -> None:
        self._node = node
        self._book_file = book_file
        self._reconciler = reconciler
        self._committer = committer or Committer(this_process())
        self._at_open: tuple[Intent, PendingEntries | None, Book] | None = None

    def open(self, claim: Claim, choose: Choose) -> Intent | GrantedGpus | Refused:
        """Choose GPUs and enter an intent; or return why none can be chosen.

        `GrantedGpus` are GPUs that the owner holds already; they need no intent.
        """
        with self._book_file.open() as transaction:
            book = transaction.book
            for earlier in book.intents:
                # Another process of the same attempt opened it, and is given up by now.
                if earlier.claim.owner == claim.owner:
                    transaction.apply_and_journal(cancel_entry(earlier, transaction.now))
            chosen = choose(with_open_intents(book, claim.owner), transaction.now)
            if not isinstance(chosen, GrantedGpus):
                return chosen
            if chosen.repeated and claim.owner in book.grant_numbers:
                return chosen
            # What it holds without a number was not granted by this book: it was taken from the
            # store or from the scheduler when the book was rebuilt, and is looked at as any other.
            committer = self._committer
            intent = transaction.open_intent(
                with_valid_text(claim), chosen.gpus, committer.process, committer.life_s
            )
            self._at_open = (intent, transaction.undelivered(), transaction.book)
            return intent

    def confirm(self, store: Ledger, intent: Intent, observation: Observation) -> Confirmed:
        """Ask the store for the grant, after all entries of the journal; raises `StoreError`.

        An intent that the store refuses is removed.
        """
        pending, book = self._journal_and_book(intent)
        if pending is None or len(pending.entries) > MAX_BATCH:
            self._reconciler.deliver_journal(store)
            pending, book = self._journal_and_book()
        assert pending is not None  # noqa: S101 - delivering sets the clock
        answer = store.confirm(
            self._node,
            UnconfirmedGrant(
                intent.number,
                settled_through(book, pending.last),
                intent.claim,
                intent.gpus,
                pending.token,
                self._reconciler.deliverable(pending.entries),
            ),
            observation,
        )
        if pending.entries or answer.outcome is not None:
            self._note_answer(intent, pending, answer.outcome)
        self._reconciler.log_overruled(answer.overruled)
        return answer

    def _journal_and_book(self, opened: Intent | None = None) -> tuple[PendingEntries | None, Book]:
        """Return what the store has not yet recorded, and the book.

        If this object opened the intent, and no other after it, they are as they were then: what
        was entered since has higher numbers, and the confirmation need not bring it.
        """
        at_open, self._at_open = self._at_open, None
        if at_open is not None and at_open[0] == opened:
            return at_open[1:]
        with self._book_file.open() as transaction:
            return transaction.undelivered(), transaction.book

    def _note_answer(
        self, intent: Intent, pending: PendingEntries, outcome: BlockedGpu | GrantSettled | None
    ) -> None:
        with self._book_file.open() as transaction:
            if pending.entries:
                transaction.drop_recorded(pending.entries[-1].number)
            if isinstance(outcome, GrantSettled):
                transaction.skip_numbers(outcome.through)
            if outcome is not None:
                # The store refused it and needs no entry.
                transaction.book = transaction.book.without_intent(intent.number)

    def commit(self, intent: Intent, *, confirmed: bool) -> CommitRefusal | None:
        """Make the grant final; returns why it may not be, after cancelling it.

        `confirmed` says that the store has it; otherwise the journal tells the store.
        """
        is_journaled = False
        try:
            with self._book_file.open() as transaction:
                committer = self._committer
                facts = CommitFacts(
                    transaction.uptime_s, committer.has_ended(), committer.peer_lives()
                )
                # Its times are corrected if the clock has been.
                opened = opened_intent(transaction.book, intent)
                refusal = commit_refusal(opened, intent, facts)
                if refusal is not None:
                    transaction.apply_and_journal(cancel_entry(intent, transaction.now))
                elif confirmed:
                    transaction.apply(commit_entry(transaction.book, opened or intent))
                else:
                    transaction.apply_and_journal(
                        commit_entry(transaction.book, opened or intent, OFFLINE_REASON)
                    )
                    is_journaled = True
                return refusal
        except NodeStateError:
            # What is in the journal counts, though the book could not be written: the next reader
            # applies it. An error would leave the grant to somebody who believes to have none.
            if not is_journaled:
                raise
            return None

    def cancel(self, intent: Intent) -> None:
        """End the intent; the store hears of it by the journal."""
        with self._book_file.open() as transaction:
            transaction.apply_and_journal(cancel_entry(intent, transaction.now))


class StoreConfirmedGrants:
    """The grants of one process of a node, with the store or without it."""

    MAX_CHOICES = 4
    """How often GPUs are chosen anew because the store knew of somebody whom the book did not."""

    def __init__(self, grants: BookGrants, access: StoreAccess) -> None:
        self._grants = grants
        self._access = access
        self._opened: dict[str, tuple[Intent, bool]] = {}

    def reserve(
        self,
        claim: Claim,
        observation: Observation,
        choose: Choose,
        *,
        chooses_anew: bool,
        on_intent: Callable[[], None] = lambda: None,
    ) -> GrantedGpus | Refused:
        """Open and confirm a grant; `commit` has to follow unless it is a repeated one.

        With `chooses_anew`, other GPUs are chosen where the store refuses the first ones.
        `on_intent` is called for each choice, when it is in the book.
        """
        answer: GrantedGpus | Refused = TooFewGpus(1, 0, 0, 0, 0, stale=1)
        for _ in range(self.MAX_CHOICES):
            self._access.refresh_book()
            opened = self._grants.open(claim, choose)
            if not isinstance(opened, Intent):
                # The store is not asked for a grant; it learns what was seen all the same.
                self._access.ask(lambda store: store.publish_scan(observation), lambda: None)
                return opened
            on_intent()
            outcome = self._confirm(opened, observation)
            if outcome is None:
                return GrantedGpus(opened.gpus)
            if isinstance(outcome, BlockedGpu):
                if not chooses_anew:
                    return outcome
                answer = TooFewGpus(len(opened.gpus), len(opened.gpus) - 1, 0, 0, 0, stale=1)
        return answer

    def commit(self, owner: str) -> CommitRefusal | None:
        """Make what `reserve` granted final; returns why it is not, and undoes it then."""
        opened = self._opened.pop(owner, None)
        if opened is None:
            return None
        refusal = self._grants.commit(opened[0], confirmed=opened[1])
        if refusal is not None or not opened[1]:
            # It is decided: what cannot be delivered now is delivered later.
            with contextlib.suppress(NodeStateError):
                self._access.deliver_journal()
        return refusal

    def forget(self, owner: str) -> None:
        """Take note that the owner's grant was released before its commit."""
        self._opened.pop(owner, None)

    def _confirm(
        self, intent: Intent, observation: Observation
    ) -> BlockedGpu | GrantSettled | None:
        def by_store(store: Ledger) -> tuple[BlockedGpu | GrantSettled | None, bool]:
            return self._grants.confirm(store, intent, observation).outcome, True

        try:
            outcome, asked = self._access.ask(by_store, lambda: (None, False))
        except StoreError:
            self._grants.cancel(intent)
            raise
        if outcome is None:
            self._opened[intent.claim.owner] = (intent, asked)
        return outcome
