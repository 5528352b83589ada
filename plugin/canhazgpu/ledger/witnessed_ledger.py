"""The store's ledger, with the node's own book as a witness.

What a job of this node holds by the book is never granted to another, whatever a store says that
lost its memory. A grant counts once it is in the book: of two that a store without memory made, the
second is given back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from canhazgpu.errors import NodeStateError, explain
from canhazgpu.ledger.book import with_jobs
from canhazgpu.ledger.contact import Contact
from canhazgpu.ledger.entries import GRANT, QUARANTINE, RELEASE, UNQUARANTINE, Entry
from canhazgpu.ledger.port import JOB_TERMS, Ledger, Observation, Terms
from canhazgpu.ledger.values import Blocked, Claim, Granted, NodeView, Queued, Reservation, Short
from canhazgpu.logline import log_line
from canhazgpu.node.book_file import BookFile


class WitnessedLedger:
    """The operations of `Ledger` in which the book has a say.

    A grant raises `NodeStateError` where the book cannot be kept; what gives back and what shows
    goes on, and `tell` hears of it.
    """

    def __init__(
        self,
        node: str,
        store: Ledger,
        book_file: BookFile,
        contact: Contact,
        tell: Callable[[str], None],
    ) -> None:
        self.store = store
        self._contact = contact
        self._just_read: NodeView | None = None
        self._tell = tell
        self._node = node
        self._book_file = book_file

    def meet(self) -> None:
        """Bring store and book together; what is read by that serves the next look."""
        try:
            self._just_read = self._contact.make(self.store)
        except NodeStateError as exc:
            # No reason to release nothing, or to show nothing; a grant will fail by itself.
            self._tell(log_line("no-book", node=self._node, reason=explain(exc)))

    def reserve_count(
        self, claim: Claim, count: int, observation: Observation, terms: Terms = JOB_TERMS
    ) -> Granted | Short | Queued:
        """See `Ledger.reserve_count`."""
        self._just_read = None
        answer = self.store.reserve_count(claim, count, observation, terms)
        if isinstance(answer, Granted) and self._contradiction(claim, answer):
            # Another look finds others.
            return Short(count, count - 1, 0, 0, 0, stale=1)
        return answer

    def reserve_given(
        self,
        claim: Claim,
        gpus: Sequence[str],
        observation: Observation,
        terms: Terms = JOB_TERMS,
    ) -> Granted | Blocked | Queued:
        """See `Ledger.reserve_given`."""
        self._just_read = None
        answer = self.store.reserve_given(claim, gpus, observation, terms)
        if isinstance(answer, Granted) and (holder := self._contradiction(claim, answer)):
            return Blocked(holder.gpu, "reserved", holder)
        return answer

    def release(
        self, node: str, owner: str, reason: str, gpus: Sequence[str] = (), by: str = ""
    ) -> list[str]:
        """See `Ledger.release`."""
        self._just_read = None
        # The book first: what it has and the store has not is taken for lost.
        self._note(node, Entry(RELEASE, 0.0, owner, tuple(gpus)))
        return self.store.release(node, owner, reason, gpus, by)

    def quarantine(self, node: str, gpu: str, reason: str, by: str) -> bool:
        """See `Ledger.quarantine`."""
        new = self.store.quarantine(node, gpu, reason, by)
        self._note(node, Entry(QUARANTINE, 0.0, gpus=(gpu,), reason=reason, by=by))
        return new

    def unquarantine(self, node: str, gpu: str, by: str) -> bool:
        """See `Ledger.unquarantine`."""
        lifted = self.store.unquarantine(node, gpu, by)
        self._note(node, Entry(UNQUARANTINE, 0.0, gpus=(gpu,), by=by))
        return lifted

    def look(self, nodes: Sequence[str] | None = None) -> list[NodeView]:
        """See `Ledger.look`; on this node jobs hold what the book says."""
        just_read, self._just_read = self._just_read, None
        if just_read is not None and nodes is not None and list(nodes) == [self._node]:
            views = [just_read]
        else:
            views = self.store.look(nodes)
        try:
            with self._book_file.open() as page:
                book = page.book
        except NodeStateError as exc:
            self._tell(log_line("no-book", node=self._node, reason=explain(exc)))
            return views
        return [with_jobs(view, book) if view.node == self._node else view for view in views]

    def _contradiction(self, claim: Claim, answer: Granted) -> Reservation | None:
        """Note the grant; returns the job that has one of the GPUs, to which it was given back."""
        with self._book_file.open() as page:
            jobs = page.book.jobs()
            in_the_way = [
                jobs[gpu]
                for gpu in answer.gpus
                if gpu in jobs and jobs[gpu].claim.owner != claim.owner
            ]
            if not in_the_way:
                held = dict.fromkeys((*page.book.held_by(claim.owner), *answer.gpus))
                page.apply(Entry(GRANT, page.now, claim.owner, tuple(held), claim))
                return None
        self.store.release(self._node, claim.owner, "another job runs on it")
        self._contact.make(self.store)
        return in_the_way[0]

    def _note(self, node: str, entry: Entry) -> None:
        if node != self._node:
            return
        try:
            with self._book_file.open() as page:
                page.apply(replace(entry, at=page.now))
        except NodeStateError as exc:
            # What the book has too much is asked after, and dropped, at the next contact.
            self._tell(log_line("no-book", node=self._node, reason=explain(exc)))
