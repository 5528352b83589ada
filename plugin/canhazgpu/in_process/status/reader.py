"""Read the status: the ledger's views, and this node's scan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from canhazgpu.config.host_role import has_own_gpus
from canhazgpu.errors import ScanError, StoreError, UnknownNameError
from canhazgpu.in_process.adapters import threshold_override
from canhazgpu.in_process.status.ledger_views import LedgerViews
from canhazgpu.ledger.usage import DAY_S
from canhazgpu.node.identity import boot_id, node_name, pid_namespace
from canhazgpu.probe.node_probe import usage_policy
from canhazgpu.service.status import StatusAnswer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from canhazgpu.errors import NodeStateError
    from canhazgpu.gpu.scan import Scan
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.port import Ledger, Observation
    from canhazgpu.ledger.values import Event, FoundNodes, NodeView
    from canhazgpu.people.revocations import Revocation
    from canhazgpu.probe.port import PendingScan
    from canhazgpu.service.status import StatusRequest
    from canhazgpu.status.node_status import NodeStatus
    from canhazgpu.status.user_filter import User

MAKE_NODE_KNOWN = "'canhazgpu validate --publish', on a node with GPUs, makes it known"
NODES_PER_ANSWER = 256
"""Nodes of which everything is in memory at once where the status is read in pages."""


class _NodeViews(NamedTuple):
    """The nodes' views, sorted by name.

    `live` names the node that was scanned for this answer, None for none. `fault` says why that
    scan as a whole failed, None if it did not. `store_fault` is the error of a store that did not
    serve; then there is this node's view alone. `book_fault` is the error of this node's book.
    """

    views: list[NodeView]
    live: str | None = None
    fault: str | None = None
    store_fault: StoreError | None = None
    book_fault: NodeStateError | None = None


class StatusReader:
    """Reads the status that a request asks for, any number of times."""

    def __init__(self, adapters: Adapters, request: StatusRequest) -> None:
        self._adapters = adapters
        self._request = request
        self._config = adapters.effective_config(
            threshold_override(request.memory_threshold_mb)
        ).config
        self._requested_nodes = tuple(dict.fromkeys(request.nodes))
        # "" on a host that is no node, and where nothing is to be scanned.
        scans = request.scans and has_own_gpus(self._config)
        self._local = node_name(self._config.node, adapters.environ) if scans else ""
        self._ledger_views = LedgerViews(adapters, self._config, request, self._local)
        self._pending_scan: PendingScan | None = None
        self._scan_started_at = 0.0

    def read(self) -> StatusAnswer:
        """Return the status now; raises as `NodeService.status` does."""
        from canhazgpu.garbage_collection import paused_collector  # noqa: PLC0415 - not for --help

        with paused_collector():
            return self._read()

    def _read(self) -> StatusAnswer:
        node_views = self._read_views()
        asks_history = self._request.revocations and node_views.store_fault is None
        revocations = self._revocations(node_views) if asks_history else ()
        caller = self._calling_user() if self._request.names_caller else None
        return StatusAnswer(
            tuple(self._node_statuses(node_views)),
            node_views.fault,
            caller,
            tuple(revocations),
            node_views.store_fault,
            node_views.book_fault,
            tuple(self._ledger_views.counted),
            tuple(self._ledger_views.tables),
            passed_over=tuple(self._ledger_views.passed_over),
        )

    def pages(self) -> Iterator[StatusAnswer]:
        """Yield the same nodes as `read`, some at a time; raises as `NodeService.status_pages`."""
        self._start_scan()
        are_few = bool(self._requested_nodes) or self._request.of_users is not None
        names = None if are_few else self._names()
        if names is None:
            # Nodes asked for by name or user are few; of a store that is away, so is this one.
            yield self.read()
            return
        is_empty = True
        for first in range(0, len(names), NODES_PER_ANSWER):
            answer = self._page(names[first : first + NODES_PER_ANSWER])
            if answer.nodes or answer.texts or answer.passed_over:
                is_empty = False
                yield answer
        if is_empty:
            raise _no_node_known()

    def _names(self) -> list[str] | None:
        """Return the names of nodes to read, this one's too; None where the store is away."""
        try:
            names = self._ledger_views.names()
        except StoreError:
            if self._pending_scan is None:
                raise
            return None
        return sorted({*names, self._local} - {""})

    def _page(self, names: Sequence[str]) -> StatusAnswer:
        """Return the status of these nodes, with the scan of this node if it is among them."""
        from canhazgpu.garbage_collection import paused_collector  # noqa: PLC0415 - not for --help

        with paused_collector():
            views = self._ledger_views.read(names, as_page=True)
            if self._local in views:
                found = self._with_own_scan(views)
            else:
                found = _NodeViews(_sorted_by_name(views))
            statuses = tuple(self._node_statuses(found))
        return StatusAnswer(
            statuses,
            found.fault,
            book_fault=found.book_fault,
            texts=tuple(self._ledger_views.texts),
            passed_over=tuple(self._ledger_views.passed_over),
        )

    def _with_own_scan(self, views: dict[str, NodeView]) -> _NodeViews:
        """Return the views with this node's scan; without this node, if it has no GPU to show."""
        read_after_s = self._adapters.clock() - self._scan_started_at
        observation = self._finish_scan()
        if observation and self._shows_local_node(views[self._local], observation.scan):
            return self._with_scan(views, observation, read_after_s, None)
        others = {name: one for name, one in views.items() if name != self._local}
        return _NodeViews(_sorted_by_name(others))

    def _calling_user(self) -> User:
        from canhazgpu.status.user_filter import User  # noqa: PLC0415 - only some ask

        caller = self._adapters.caller()
        return User(caller.uid, caller.user)

    def _read_views(self) -> _NodeViews:
        """Scan this node and read the ledger; without the store, what the node itself knows.

        Raises `StoreError` if this node is not to be shown either, `ConfigError`, `InputError` for
        a node that the ledger does not know, and `ScanError` if there is no node to show.
        """
        self._start_scan()
        views, store_fault = self._read_from_ledger_or_node()
        read_after_s = self._adapters.clock() - self._scan_started_at
        if store_fault is None:
            self._refuse_unknown(views)
        observation = self._finish_scan()
        if observation is None:
            if not views and not self._has_counted:
                raise _no_node_known()
            return _NodeViews(_sorted_by_name(views))
        return self._with_scan(views, observation, read_after_s, store_fault)

    def _start_scan(self) -> None:
        """Scan this node, if it is asked for, while this process imports redis and reads."""
        self._finish_scan()
        self._scan_started_at = self._adapters.clock()
        if self._local and (not self._requested_nodes or self._local in self._requested_nodes):
            self._pending_scan = self._adapters.open_probe(self._local, self._config).start()

    def _revocations(self, node_views: _NodeViews) -> list[Revocation]:
        """Return the caller's reservations that others have released recently."""
        from canhazgpu.people.revocations import REVOCATION_SHOWN_FOR_S, revocations_from  # noqa: PLC0415 - with --me

        ledger, uid = self._ledger_views.ledger, self._adapters.caller().uid
        now = max(view.read_at for view in node_views.views)
        found = ledger.find_user(uid, int(REVOCATION_SHOWN_FOR_S // DAY_S))
        revocations = []
        for node in self._requested_nodes or found.nodes:
            events = _last_days(ledger, node, found, now - REVOCATION_SHOWN_FOR_S)
            revocations += revocations_from(uid, node, events)
        return revocations

    def _node_statuses(self, node_views: _NodeViews) -> list[NodeStatus]:
        """Return the state of each GPU, node by node."""
        from canhazgpu.allocation.coverage import ANY_PID_NAMESPACE, PidNamespace  # noqa: PLC0415 - not before
        from canhazgpu.status.node_status import node_status  # noqa: PLC0415 - the scan

        policy = usage_policy(self._config.validation)
        statuses = []
        for view in node_views.views:
            live = view.node == node_views.live
            # The boot and the configuration of another node are not known here.
            namespace = PidNamespace(boot_id(), pid_namespace()) if live else ANY_PID_NAMESPACE
            status = node_status(
                view,
                policy,
                live=live,
                pid_namespace=namespace,
                expected_gpus=self._config.validation.expected_gpus if live else 0,
                reservations_known=not (node_views.store_fault or (live and node_views.book_fault)),
            )
            statuses.append(self._with_hooks_outage(status) if live else status)
        return statuses

    def _with_hooks_outage(self, status: NodeStatus) -> NodeStatus:
        from canhazgpu.in_process.book.published_view import hooks_outage  # noqa: PLC0415 - not before the scan

        return replace(status, hooks_outage=hooks_outage(self._local, self._config))

    def _finish_scan(self) -> Observation | None:
        """Wait for the pending scan and return what it observed, None if no scan is pending.

        An error of Redis may leave a scan pending. It is waited for before the next scan starts, so
        that --watch leaves no child processes.
        """
        pending_scan, self._pending_scan = self._pending_scan, None
        return pending_scan.observe() if pending_scan else None

    def _read_from_ledger_or_node(self) -> tuple[dict[str, NodeView], StoreError | None]:
        """Return the views; of a store that does not serve, the error and what this node knows."""
        try:
            return self._ledger_views.read(self._requested_nodes or None), None
        except StoreError as exc:
            if self._pending_scan is None:
                raise
            from canhazgpu.in_process.book.published_view import view_without_store  # noqa: PLC0415 - rarely needed

            return {self._local: view_without_store(self._local, self._config)}, exc

    @property
    def _has_counted(self) -> bool:
        views = self._ledger_views
        return bool(views.counted or views.tables or views.passed_over)

    def _refuse_unknown(self, views: dict[str, NodeView]) -> None:
        for name in self._requested_nodes:
            if name != self._local and not views[name].is_known:
                from canhazgpu.status.suggestion import closest  # noqa: PLC0415 - only for the error

                known = self._ledger_views.store.node_names()
                meant = f" {closest(name, known)}".rstrip()
                raise UnknownNameError(
                    f"the ledger knows no node {name!r};{meant}"
                    " 'canhazgpu status' shows all it knows",
                    kind="node",
                    known=known,
                )

    def _with_scan(
        self,
        views: dict[str, NodeView],
        observation: Observation,
        read_after_s: float,
        store_fault: StoreError | None,
    ) -> _NodeViews:
        """Put this node's scan into its view; the scan started `read_after_s` before the read.

        A node without GPUs, such as a login node, is left out unless the request names it.
        """
        from canhazgpu.status.node_status import (  # noqa: PLC0415 - not before the scan
            with_live_scan,
            with_unhealthy,
        )

        own, scan = views[self._local], observation.scan
        if self._shows_local_node(own, scan):
            live = with_live_scan(own, scan, own.read_at - read_after_s)
            live = with_unhealthy(live, observation.unhealthy)
            shown = _sorted_by_name({**views, self._local: live})
            book_fault = self._ledger_views.book_fault
            return _NodeViews(shown, self._local, scan.fault, store_fault, book_fault)
        if store_fault is not None:
            raise store_fault
        others = {name: view for name, view in views.items() if name != self._local}
        if not others and not self._has_counted:
            if scan.fault is not None:
                raise ScanError(scan.fault)
            raise ScanError(
                "this node has no GPU, and the ledger knows no other node",
                next_step=MAKE_NODE_KNOWN,
            )
        return _NodeViews(_sorted_by_name(others))

    def _shows_local_node(self, own: NodeView, scan: Scan) -> bool:
        should_have = self._config.validation.expected_gpus > 0 and scan.fault is None
        return (
            self._local in self._requested_nodes or bool(scan.gpus) or own.is_known or should_have
        )


def _no_node_known() -> ScanError:
    return ScanError("the ledger knows no node", next_step=MAKE_NODE_KNOWN)


def _last_days(ledger: Ledger, node: str, found: FoundNodes, since: float) -> list[Event]:
    """Return the events of the days on which the user was there, and of those after them."""
    days = found.days.get(node)
    if days is None:
        return ledger.history(node, since)
    events = ledger.history_on(node, {*days, *(day + 1 for day in days)})
    return [one for one in events if one.at >= since]


def _sorted_by_name(views: dict[str, NodeView]) -> list[NodeView]:
    return [views[name] for name in sorted(views)]
