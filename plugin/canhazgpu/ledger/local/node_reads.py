"""What one node's ledger reads of it: the book and the queue, with what only the store knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from canhazgpu.errors import NodeStateError, error_text
from canhazgpu.ledger.local.book.book_and_store import with_own_reservations
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book_releases import BookReleases
from canhazgpu.ledger.local.queue.node_queue import NodeQueue
from canhazgpu.ledger.local.store_access import StoreAccess
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.values import NodeView
from canhazgpu.logfmt import log_line


class NodeReads:
    """The reads of one process of a node; its releases are for the grants that it saw."""

    def __init__(
        self,
        node: str,
        book_file: BookFile,
        access: StoreAccess,
        releases: BookReleases,
        queue: NodeQueue,
        log: Callable[[str], None],
    ) -> None:
        self._node = node
        self._book_file = book_file
        self._access = access
        self._releases = releases
        self._queue = queue
        self._log = log

    def this_node(self) -> NodeView:
        """Return this node, with what the store has of it if it answers."""
        return self._access.ask(self._by_store, self._by_book)

    def among_others(self, store: Ledger, nodes: Sequence[str] | None) -> list[NodeView]:
        """Return these nodes, this one among them, or all; sorted by name."""
        self._note_numbers()
        views = {view.node: view for view in store.read_nodes(nodes)}
        mine = views.get(self._node) or store.read_nodes([self._node])[0]
        mine = self._with_book(mine)
        # The store may have forgotten it, or may never have heard of it.
        if nodes is not None or mine.is_known or mine.queue:
            views[self._node] = mine
        return [views[node] for node in sorted(views)]

    def _by_store(self, store: Ledger) -> NodeView:
        # The numbers first: what is granted after them is not what the view shows.
        self._note_numbers()
        view, self._access.just_read = self._access.just_read, None
        if view is None:
            (view,) = store.read_nodes([self._node])
        return self._with_book(view)

    def _with_book(self, view: NodeView) -> NodeView:
        self._releases.note_view(view)
        try:
            with self._book_file.open() as transaction:
                book = transaction.book
            return self._with_queue(with_own_reservations(view, book))
        except NodeStateError as exc:
            self._log(log_line("no-book", node=self._node, reason=error_text(exc)))
            return view

    def _by_book(self) -> NodeView:
        self._releases.note_numbers({})
        with self._book_file.open() as transaction:
            book, now = transaction.book, transaction.now
        self._releases.note_numbers(book.grant_numbers)
        held, quarantines = book.reservations, book.quarantines
        view = NodeView(self._node, now, None, None, held, book.released_at, quarantines)
        return self._with_queue(view)

    def _with_queue(self, view: NodeView) -> NodeView:
        """Return the view with the node's own queue, and behind it who joined the store's alone."""
        own = self._queue.waiters()
        owners = {one.owner for one in own}
        others = tuple(one for one in view.queue if one.owner not in owners)
        queue = (*own, *others)
        return view if queue == view.queue else replace(view, queue=queue)

    def _note_numbers(self) -> None:
        try:
            with self._book_file.open() as transaction:
                self._releases.note_numbers(transaction.book.grant_numbers)
        except NodeStateError:
            self._releases.note_numbers({})
