"""What a status request needs of the ledger: of each node as little as suffices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from canhazgpu.errors import BookUnknownError, StoreError
from canhazgpu.gpu.usage import GpuState
from canhazgpu.probe.node_probe import usage_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from canhazgpu.config import Config
    from canhazgpu.errors import NodeStateError
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.in_process.status.heads import NodesRead
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.ledger.values import NodeHead, NodeView
    from canhazgpu.service.status import StatusRequest
    from canhazgpu.status.heads.counts import CountedNode
    from canhazgpu.status.heads.free_gpus import FreeNode
    from canhazgpu.status.heads.json_text import NodeText
    from canhazgpu.status.heads.node_table import NodeTable
    from canhazgpu.status.node_status import NodeStatus
    from canhazgpu.status.status_filter import StatusFilter

SHOWN_DAYS = 1
"""Nodes where the user was today or on so many days before may have the user now: a health check
says so each day."""
COUNTED_ABOVE = 8
"""Of so few nodes the counts, a question more, would not save anything."""


class LedgerViews:
    """Reads the nodes of a request, any number of times; `local` names this node, "" for none.

    What was read last has, beside the views, the nodes of which only the GPUs were `counted`, those
    whose `tables` or `texts` are known, and those of which the filter shows nothing, the
    `passed_over`. `book_fault` is the error of this node's book then.
    """

    def __init__(
        self, adapters: Adapters, config: Config, request: StatusRequest, local: str
    ) -> None:
        self._adapters = adapters
        self._config = config
        self._request = request
        self._local = local
        self._store: Ledger | None = None
        self._ledger: Ledger | None = None
        self._write: Callable[[NodeHead], NodeTable | NodeText | None] | None = None
        self._as_page = False
        self.counted: list[CountedNode] = []
        self.tables: list[FreeNode | NodeTable] = []
        self.texts: list[NodeText] = []
        self.passed_over: list[CountedNode | NodeView] = []
        self.book_fault: NodeStateError | None = None

    @property
    def store(self) -> Ledger:
        """The ledger as the store has it, whatever this node's book says."""
        if self._store is None:
            self._store = self._adapters.reader(self._config)
        return self._store

    @property
    def ledger(self) -> Ledger:
        """The ledger as far as this node's book agrees."""
        if not self._local:
            return self.store
        if self._ledger is None:
            from canhazgpu.in_process.book.store_ledgers import book_checked_ledger  # noqa: PLC0415 - not before the scan

            self._ledger = book_checked_ledger(self._local, self._config, self.store)
        return self._ledger

    def names(self) -> list[str]:
        """Return the names of all nodes that the store knows."""
        try:
            return self.store.node_names()
        except StoreError:
            self._connect_anew()
            raise

    def read(
        self, names: Sequence[str] | None = None, *, as_page: bool = False
    ) -> dict[str, NodeView]:
        """Return the views of these nodes; if none is named, of all that are to be read.

        Then this node is among them. Where its book was lost, its view has what the store knows.
        Only of a page there are `texts`.
        """
        self._as_page, self.book_fault = as_page, None
        try:
            return self._views_from(self.ledger, names)
        except BookUnknownError as exc:
            self.book_fault = exc
            return self._views_from(self.store, names)

    def _connect_anew(self) -> None:
        """Another Redis server may have taken over."""
        self._store = self._ledger = None

    def _names_by_user(self) -> list[str] | None:
        """Return the nodes on which the users may be of whom alone something is shown."""
        request = self._request
        if request.of_users is None:
            return None
        uids = {one.uid for one in request.of_users if one.uid is not None}
        if request.names_caller:
            uids.add(self._adapters.caller().uid)
        found = (self.store.find_user(uid, SHOWN_DAYS).nodes for uid in sorted(uids))
        return sorted({name for nodes in found for name in nodes})

    def _views_from(self, ledger: Ledger, named: Sequence[str] | None) -> dict[str, NodeView]:
        nodes, request = named, self._request
        self._forget()
        try:
            by_user = self._names_by_user() if nodes is None else None
            if by_user is not None:
                nodes = by_user
            views = self._views_by_counts(ledger, nodes)
            if views is None and request.brief_above is None and request.shown is None:
                names = nodes if request.nodes else self._not_told_by_heads(nodes)
                views = {view.node: view for view in ledger.read_nodes(names)}
            elif views is None:
                views = self._views_in_parts(ledger, nodes)
            if self._local and named is None and self._local not in views:
                views |= {view.node: view for view in ledger.read_nodes([self._local])}
            if by_user is not None and request.shown is not None:
                self._find_partitions(request.shown.partitions, views)
        except StoreError:
            # Without the store this node alone is shown.
            self._forget()
            self._connect_anew()
            raise
        return views

    def _forget(self) -> None:
        self.counted, self.passed_over, self.tables, self.texts = [], [], [], []

    def _views_in_parts(self, ledger: Ledger, nodes: Sequence[str] | None) -> dict[str, NodeView]:
        """Return the views, in full of this node and of those that the request shows."""
        pages = self.store.read_node_pages(nodes, brief_above=self._request.brief_above or 0)
        return self._in_full_where_shown(ledger, (view for page in pages for view in page))

    def _in_full_where_shown(
        self, ledger: Ledger, found: Iterable[NodeView]
    ) -> dict[str, NodeView]:
        brief_above, shown = self._request.brief_above, self._request.shown
        views = {view.node: view for view in found}
        needed = {self._local} & views.keys()
        if shown is not None and brief_above is None:
            brief = [view for view in views.values() if view.is_brief]
            needed.update(one.node for one in shown.apply(map(self._judged, brief)))
        if needed:
            views |= {view.node: view for view in ledger.read_nodes(sorted(needed))}
        return views

    def _views_by_counts(
        self, ledger: Ledger, nodes: Sequence[str] | None
    ) -> dict[str, NodeView] | None:
        """Count the GPUs of plain nodes, and return the views of the others.

        Plain nodes that are to be shown with more than counts are among the others. None where
        counts tell nothing of what the request asks, also of so few nodes.
        """
        counts_above, shown = self._request.counts_above, self._request.shown
        may_tell = counts_above is not None or (shown is not None and shown.is_told_by_counts)
        if self._request.nodes or not may_tell:
            return None
        names = self.store.node_names() if nodes is None else nodes
        if len(names) <= (COUNTED_ABOVE if counts_above is None else counts_above):
            return None
        from canhazgpu.in_process.status.heads import read_counted  # noqa: PLC0415 - only of many nodes
        from canhazgpu.status.heads.counts import shown_by_counts  # noqa: PLC0415

        found = read_counted(
            self.store,
            usage_policy(self._config.validation),
            names,
            in_full=ledger.read_nodes,
            but_for=self._local,
            lists_free=self._free_gpus_suffice,
        )
        matching = found.counted if shown is None else shown_by_counts(found.counted, shown)
        if counts_above is not None and len(matching) > counts_above and shown and shown.models:
            matching = self._counted_by_models(shown, matching, found.views)
        listed = {one.node for one in matching}
        told = listed.union(view.node for view in found.views)
        self.passed_over = [one for one in found.counted if one.node not in told]
        if counts_above is not None and len(matching) > counts_above:
            self.counted = matching
            return {view.node: view for view in found.views}
        return self._tables_or_views(ledger, found, matching)

    def _tables_or_views(
        self, ledger: Ledger, found: NodesRead, matching: Sequence[CountedNode]
    ) -> dict[str, NodeView]:
        """Note the tables or texts of these nodes; return the others' views, and those found."""
        listed = {one.node for one in matching}
        self.tables += [found.free[one.node] for one in matching if one.node in found.free]
        listed.difference_update(one.node for one in self.tables)
        rest = {*(self._not_told_by_heads(sorted(listed)) or ())}
        told = {one.node for one in (*self.tables, *self.texts)}.union(rest)
        others = [one for one in matching if one.node not in told]
        self.passed_over += [one for one in others if one.names_models]
        rest.update(one.node for one in others if not one.names_models)
        pages = self.store.read_node_pages(sorted(rest), brief_above=0) if rest else ()
        views = (view for page in (found.views, *pages) for view in page)
        return self._in_full_where_shown(ledger, views)

    def _counted_by_models(
        self, shown: StatusFilter, matching: Sequence[CountedNode], views: list[NodeView]
    ) -> list[CountedNode]:
        """Return those with GPUs of the filter's models, these alone counted, by their heads.

        A node that its head does not tell of comes to the `views`.
        """
        from canhazgpu.status.heads.chosen_counts import ChosenCounts  # noqa: PLC0415 - only for models

        count = ChosenCounts(usage_policy(self._config.validation), shown).counted
        names = [one.node for one in matching]
        found = [one for one in map(count, self.store.read_node_heads(names)) if one]
        some = {one.node: one for one in found if one.counts.available or one.counts.reserved.count}
        # What models there are, is told to who has misspelt one.
        told = some.keys() | {one.node for one in matching if one.names_models}
        told &= {one.node for one in found}
        rest = [name for name in names if name not in told]
        pages = self.store.read_node_pages(rest, brief_above=0) if rest else ()
        views += [view for page in pages for view in page]
        return list(some.values())

    @property
    def _free_gpus_suffice(self) -> bool:
        """Whether nothing but the usual table of free GPUs is shown, which counts list."""
        request = self._request
        if not request.tables_suffice or request.wide or request.shown is None:
            return False
        return request.shown.states == {GpuState.AVAILABLE} and not request.shown.models

    def _not_told_by_heads(self, nodes: Sequence[str] | None) -> Sequence[str] | None:
        """Note the tables or texts of these nodes, or of all, where their heads tell them.

        Return the others. None is noted of which nothing is to be shown.
        """
        if not (self._request.tables_suffice or (self._as_page and self._request.texts_suffice)):
            return nodes
        names = self.store.node_names() if nodes is None else nodes
        if len(names) <= COUNTED_ABOVE:
            return names
        write = self._write = self._write or self._writer()
        heads = self.store.read_node_heads([name for name in names if name != self._local])
        found = [one for one in map(write, heads) if one is not None]
        kept: list[Any] = self.tables if self._request.tables_suffice else self.texts
        kept += [one for one in found if not one.shows_nothing]
        told = {one.node for one in found}
        return [name for name in names if name not in told]

    def _writer(self) -> Callable[[NodeHead], NodeTable | NodeText | None]:
        request, policy = self._request, usage_policy(self._config.validation)
        if request.tables_suffice:
            from canhazgpu.status.heads.node_table import PlainNodesTable  # noqa: PLC0415 - as it says

            return PlainNodesTable(policy, request.shown, wide=request.wide).table
        from canhazgpu.status.heads.json_text import PlainNodesJson  # noqa: PLC0415 - only for JSON

        return PlainNodesJson(policy, request.shown).text

    def _find_partitions(self, wanted: Collection[str], views: Mapping[str, NodeView]) -> None:
        """Pass over all other nodes too, where none that was read has one of the partitions."""
        known = {
            one for node in (*views.values(), *self.passed_over) for one in node.partitions or ()
        }
        if known.issuperset(wanted):
            return
        from canhazgpu.in_process.status.heads import read_counted  # noqa: PLC0415 - rarely needed

        policy, read = usage_policy(self._config.validation), {*views}
        read.update(one.node for one in self.passed_over)
        others = [name for name in self.store.node_names() if name not in read]
        found = read_counted(self.store, policy, others, in_full=self.store.read_nodes)
        self.passed_over += [*found.counted, *found.views]

    def _judged(self, view: NodeView) -> NodeStatus:
        from canhazgpu.status.node_status import node_status  # noqa: PLC0415 - rarely needed so early

        return node_status(view, usage_policy(self._config.validation))
