"""Questions about many nodes: plain reads, of as little as tells the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from canhazgpu.ledger.port import Counted
from canhazgpu.ledger.store import keys
from canhazgpu.ledger.store.nodes.node_views import read_node_names, read_node_views
from canhazgpu.ledger.usage import UsageRead
from canhazgpu.ledger.values import Event, FoundNodes, NodeCounts, NodeHead, NodeView, Waiter

if TYPE_CHECKING:
    import redis

    from canhazgpu.config.schema import StoreConfig
    from canhazgpu.ledger.store.session import StoreSession

NODES_PER_PAGE = 300
"""Nodes that are in memory at once while pages are read; and whose heads, some 3 KB each, the store
sends in one answer: meanwhile it does nothing for a hook."""

HISTORIES_PER_READ = 500

COUNTS_PER_PAGE = 600
"""Counts take a tenth of that each."""


class NodeQueries:
    """The part of `RedisLedger` that answers them; see `canhazgpu.ledger.port.Ledger`."""

    def __init__(self, session: StoreSession, store: StoreConfig) -> None:
        """Open nothing yet."""
        self._session = session
        self._prefix = store.prefix
        self._history_days = store.history_days
        self._listed: set[str] = set()
        """Nodes that were seen in the list of nodes when they were last read."""

    def read_nodes(self, nodes: Sequence[str] | None = None) -> list[NodeView]:
        """See `Ledger.read_nodes`."""
        with self._session.client() as client:
            names = self._names(client, nodes)
            views, listed = read_node_views(
                client, names, self._prefix, in_cluster=self._session.in_cluster
            )
        self._listed = (self._listed - set(names)) | listed
        return views

    def read_node_heads(self, nodes: Sequence[str] | None = None) -> Iterator[NodeHead]:
        """See `Ledger.read_node_heads`."""
        from canhazgpu.ledger.store.nodes.node_heads import read_heads  # noqa: PLC0415 - no hook reads heads

        with self._session.client() as client:
            names = self._names(client, nodes)
        for first in range(0, len(names), NODES_PER_PAGE):
            some = names[first : first + NODES_PER_PAGE]
            with self._session.client() as client:
                found = read_heads(client, some, self._prefix, in_cluster=self._session.in_cluster)
            yield from found

    def read_counts_or_heads(
        self,
        count: Callable[[NodeCounts], Counted | None],
        nodes: Sequence[str] | None = None,
    ) -> Iterator[Counted | NodeHead]:
        """See `Ledger.read_counts_or_heads`."""
        from canhazgpu.ledger.store.nodes.node_counts import read_counts  # noqa: PLC0415 - no hook reads counts

        rest: list[str] = []
        names = self.node_names() if nodes is None else nodes
        for first in range(0, len(names), COUNTS_PER_PAGE):
            some = names[first : first + COUNTS_PER_PAGE]
            with self._session.client() as client:
                in_cluster = self._session.in_cluster
                found = [*read_counts(client, some, self._prefix, in_cluster=in_cluster)]
            lacking = dict.fromkeys(some)
            for one in found:
                if (counted := count(one)) is not None:
                    del lacking[one.node]
                    yield counted
            rest += lacking
        yield from self.read_node_heads(rest)

    def read_queues(self) -> tuple[float, dict[str, tuple[Waiter, ...]]]:
        """See `Ledger.read_queues`."""
        from canhazgpu.ledger.store.nodes.node_queues import read_queues  # noqa: PLC0415 - few ask

        with self._session.client() as client:
            names, in_cluster = self._names(client, None), self._session.in_cluster
            return read_queues(client, names, self._prefix, in_cluster=in_cluster)

    def read_node_pages(
        self, nodes: Sequence[str] | None = None, *, brief_above: int | None = None
    ) -> Iterator[list[NodeView]]:
        """See `Ledger.read_node_pages`."""
        with self._session.client() as client:
            names = self._names(client, nodes)
        brief = brief_above is not None and len(names) > brief_above
        for first in range(0, len(names), NODES_PER_PAGE):
            some = names[first : first + NODES_PER_PAGE]
            yield self._read_brief(some) if brief else self.read_nodes(some)

    def _names(self, client: redis.Redis, nodes: Sequence[str] | None = None) -> list[str]:
        """Return these nodes' names, of all listed nodes if it is None, sorted."""
        if nodes is None:
            return sorted(read_node_names(client, self._prefix))
        for name in nodes:
            keys.require_node_name(name)
        return sorted(nodes)

    def _read_brief(self, nodes: Sequence[str]) -> list[NodeView]:
        from canhazgpu.ledger.store.nodes.node_heads import read_brief_views  # noqa: PLC0415 - no hook reads heads

        with self._session.client() as client:
            return read_brief_views(
                client, nodes, self._prefix, in_cluster=self._session.in_cluster
            )

    def recent_events(self, since_s: float) -> tuple[float, dict[str, list[Event]]]:
        """See `Ledger.recent_events`."""
        from canhazgpu.ledger.store.history.reading import read_recent  # noqa: PLC0415 - no hook reads them

        with self._session.client() as client:
            seconds, microseconds = client.time()
            names = self._names(client)
        now = seconds + microseconds / 1e6
        found: dict[str, list[Event]] = {}
        for first in range(0, len(names), HISTORIES_PER_READ):
            nodes = {name: self._keys(name) for name in names[first : first + HISTORIES_PER_READ]}
            found |= read_recent(self._session, nodes, now - since_s)
        return now, found

    def node_names(self) -> list[str]:
        """See `Ledger.node_names`."""
        with self._session.client() as client:
            return self._names(client)

    def read_usage(self, days: int, nodes: Sequence[str] | None = None) -> UsageRead:
        """See `Ledger.read_usage`."""
        from canhazgpu.ledger.store.totals.usage import read_usage  # noqa: PLC0415 - reports alone

        with self._session.client() as client:
            names = self._names(client, nodes)
            return read_usage(client, names, self._prefix, days)

    def find_job(self, job_id: str) -> FoundNodes:
        """See `Ledger.find_job`."""
        from canhazgpu.ledger.store.indexes import lookup  # noqa: PLC0415 - hooks find nothing

        with self._session.client() as client:
            found = lookup.find_job(client, self._prefix, int(job_id))
            names = read_node_names(client, self._prefix)
            in_cluster = self._session.in_cluster
            lacking = lookup.unindexed_nodes(client, self._prefix, names, in_cluster=in_cluster)
            unindexed = lookup.unindexed_for_jobs(client, self._prefix, lacking)
        return lookup.found_nodes(found, unindexed)

    def find_owner(self, owner: str) -> FoundNodes:
        """See `Ledger.find_owner`."""
        from canhazgpu.ledger.store.indexes import lookup  # noqa: PLC0415 - hooks find nothing

        with self._session.client() as client:
            days, in_cluster = self._history_days, self._session.in_cluster
            found = lookup.find_owner(client, self._prefix, owner, days, in_cluster=in_cluster)
            names = read_node_names(client, self._prefix)
            unindexed = lookup.unindexed_for_owners(
                client, self._prefix, names, in_cluster=in_cluster
            )
        return FoundNodes(found, tuple(unindexed))

    def find_user(self, uid: int, days: int) -> FoundNodes:
        """See `Ledger.find_user`."""
        from canhazgpu.ledger.store.indexes import lookup  # noqa: PLC0415 - hooks find nothing

        with self._session.client() as client:
            found = lookup.find_user(client, self._prefix, uid, days)
            names = read_node_names(client, self._prefix)
            in_cluster = self._session.in_cluster
            unindexed = lookup.unindexed_nodes(client, self._prefix, names, in_cluster=in_cluster)
        if not found and names:
            found[min(names)] = set()  # a hint like others: there is a node to show
        return lookup.found_nodes(found, unindexed)

    def _keys(self, node: str) -> keys.NodeKeys:
        return keys.node_keys(node, self._prefix)
