"""What status shows: the ledger's views, this node's scan, and what a scheduler adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from canhazgpu.errors import InputError, ScanError, StoreError
from canhazgpu.in_process.adapters import threshold_override
from canhazgpu.node.identity import boot_id, node_name, pid_namespace
from canhazgpu.probe.node_probe import usage_policy
from canhazgpu.service.status import StatusAnswer

if TYPE_CHECKING:
    from canhazgpu.gpu.scan import Scan
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.port import Ledger, Observation
    from canhazgpu.ledger.values import NodeView
    from canhazgpu.people.revocations import Revocation
    from canhazgpu.probe.port import PendingScan
    from canhazgpu.service.status import StatusRequest
    from canhazgpu.status.node_status import NodeStatus
    from canhazgpu.status.user_filter import User

SCHEDULER = "slurm"
"""The type of the reservations whose jobs are looked up."""


class _Found(NamedTuple):
    """The nodes' views in order; `live` names the one that was scanned for this answer.

    `fault` says why that scan as a whole failed.
    """

    views: list[NodeView]
    live: str | None = None
    fault: str | None = None


class StatusReader:
    """Reads the status of the wanted nodes, or of all, as often as it is asked to."""

    def __init__(self, adapters: Adapters, request: StatusRequest) -> None:
        self._adapters = adapters
        self._request = request
        self._config = adapters.effective(threshold_override(request.memory_threshold_mb)).config
        self._wanted = tuple(dict.fromkeys(request.nodes))
        self._local = node_name(self._config.node, adapters.environ)
        self._ledger: Ledger | None = None
        self._scanning: PendingScan | None = None

    def read(self) -> StatusAnswer:
        """Return the status now; raises as `NodeService.status` does."""
        found = self._gather()
        revocations = self._revocations(found) if self._request.revocations else ()
        caller = self._caller() if self._request.names_caller else None
        return StatusAnswer(tuple(self._judge(found)), found.fault, caller, tuple(revocations))

    def _caller(self) -> User:
        from canhazgpu.status.user_filter import User  # noqa: PLC0415 - only some ask

        caller = self._adapters.caller()
        return User(caller.uid, caller.user)

    def _gather(self) -> _Found:
        """Scan and read.

        Raises `StoreError`, `ConfigError`, `InputError` for a node that nobody knows, and
        `ScanError` where there is nothing to show at all.
        """
        self._collect()
        began = self._adapters.clock()
        # The scan runs in its child while this process imports the store's client and reads.
        if not self._wanted or self._local in self._wanted:
            self._scanning = self._adapters.probe(self._local, self._config.validation).start()
        views = self._read()
        read_after_s = self._adapters.clock() - began
        views = self._with_jobs(views)
        self._refuse_unknown(views)
        seen = self._collect()
        return self._with_scan(views, seen, read_after_s) if seen else _Found(_in_order(views))

    def _revocations(self, found: _Found) -> list[Revocation]:
        """Return what others lately released of the caller's reservations."""
        from canhazgpu.people.revocations import REVOCATION_SHOWN_FOR_S, revocations_from  # noqa: PLC0415 - with --me

        ledger, uid = self._opened(), self._adapters.caller().uid
        return [
            taken
            for view in found.views
            for taken in revocations_from(
                uid, view.node, ledger.history(view.node, view.read_at - REVOCATION_SHOWN_FOR_S)
            )
        ]

    def _judge(self, found: _Found) -> list[NodeStatus]:
        """Return what each of the nodes' GPUs is."""
        from canhazgpu.status.coverage import ANY_PID_NAMESPACE, PidNamespace  # noqa: PLC0415 - not before
        from canhazgpu.status.node_status import node_status  # noqa: PLC0415 - the scan

        policy = usage_policy(self._config.validation)
        statuses = []
        for view in found.views:
            live = view.node == found.live
            # Of another node neither its boot nor its configuration is known here.
            space = PidNamespace(boot_id(), pid_namespace()) if live else ANY_PID_NAMESPACE
            expected = self._config.validation.expected_gpus if live else 0
            statuses.append(
                node_status(view, policy, live=live, space=space, expected_gpus=expected)
            )
        return statuses

    def _collect(self) -> Observation | None:
        """Return what the scan under way found, if there is one.

        One that an error of the store left behind is waited for before the next is begun: a
        program that looks again and again leaves no children.
        """
        scanning, self._scanning = self._scanning, None
        return scanning.observe() if scanning else None

    def _read(self) -> dict[str, NodeView]:
        """Return the wanted nodes' views, or all; with none wanted this node's is always there."""
        ledger = self._opened()
        try:
            views = {view.node: view for view in ledger.read_nodes(self._wanted or None)}
            if not self._wanted and self._local not in views:
                views |= {view.node: view for view in ledger.read_nodes([self._local])}
        except StoreError:
            # The next look finds the store anew: another server may have its place, or its data.
            self._ledger = None
            raise
        return views

    def _opened(self) -> Ledger:
        if self._ledger is None:
            self._ledger = self._adapters.reader(self._config.store)
        return self._ledger

    def _refuse_unknown(self, views: dict[str, NodeView]) -> None:
        for name in self._wanted:
            if name != self._local and not _known(views[name]):
                raise InputError(
                    f"the ledger knows no node {name!r}; 'canhazgpu status' shows all it knows"
                )

    def _with_jobs(self, views: dict[str, NodeView]) -> dict[str, NodeView]:
        from canhazgpu.status.scheduler_jobs import incomplete_jobs, with_job_info  # noqa: PLC0415 - as above

        job_ids = incomplete_jobs(views.values(), SCHEDULER)
        if not job_ids:
            return views
        facts = self._adapters.job_lookup(self._config.slurm, self._adapters.environ).jobs(job_ids)
        return {name: with_job_info(view, facts, SCHEDULER) for name, view in views.items()}

    def _with_scan(
        self, views: dict[str, NodeView], seen: Observation, read_after_s: float
    ) -> _Found:
        """Put this node's scan, begun that long before the ledger was read, into its view.

        A node without GPUs of its own, as one to log in to, is left out unless it was asked for.
        """
        from canhazgpu.status.node_status import (  # noqa: PLC0415 - not before the scan
            with_live_scan,
            with_unhealthy,
        )

        own, scan = views[self._local], seen.scan
        if self._shows_itself(own, scan):
            live = with_live_scan(own, scan, own.read_at - read_after_s)
            live = with_unhealthy(live, seen.unhealthy)
            return _Found(_in_order({**views, self._local: live}), self._local, scan.fault)
        others = {name: view for name, view in views.items() if name != self._local}
        if not others:
            raise ScanError(
                scan.fault or "this node has no GPU, and the ledger knows no other node"
            )
        return _Found(_in_order(others))

    def _shows_itself(self, own: NodeView, scan: Scan) -> bool:
        should_have = self._config.validation.expected_gpus > 0 and scan.fault is None
        return self._local in self._wanted or bool(scan.gpus) or _known(own) or should_have


def _known(view: NodeView) -> bool:
    return bool(view.scan or view.reservations or view.quarantines)


def _in_order(views: dict[str, NodeView]) -> list[NodeView]:
    return [views[name] for name in sorted(views)]
