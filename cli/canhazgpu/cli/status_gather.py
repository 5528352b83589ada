"""What status shows: the ledger's views, this node's scan, and what a scheduler adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from canhazgpu.errors import InputError, ScanError, StoreError
from canhazgpu.node.identity import boot_id, node_name, pid_namespace

if TYPE_CHECKING:
    from canhazgpu.cli.app import App
    from canhazgpu.config import Config
    from canhazgpu.gpu.scan import Scan
    from canhazgpu.ledger.port import Ledger, Observation
    from canhazgpu.ledger.values import NodeView
    from canhazgpu.people.taken import Taken
    from canhazgpu.probe.port import PendingScan
    from canhazgpu.status.model import NodeStatus

SCHEDULER = "slurm"
"""The type of the reservations whose jobs are looked up."""


class Found(NamedTuple):
    """The nodes' views in order; `live` names the one that was scanned for this answer.

    `fault` says why that scan as a whole failed.
    """

    views: list[NodeView]
    live: str | None = None
    fault: str | None = None


class Look:
    """Looks at the wanted nodes, or all, as often as it is asked to."""

    def __init__(self, app: App, config: Config, wanted: tuple[str, ...]) -> None:
        self._app = app
        self._config = config
        self._wanted = wanted
        self._local = node_name(config.node, app.environ)
        self._ledger: Ledger | None = None
        self._scanning: PendingScan | None = None

    def gather(self) -> Found:
        """Scan and read.

        Raises `StoreError`, `ConfigError`, `InputError` for a node that nobody knows, and
        `ScanError` where there is nothing to show at all.
        """
        self._collect()
        began = self._app.clock()
        # The scan runs in its child while this process imports the store's client and reads.
        if not self._wanted or self._local in self._wanted:
            self._scanning = self._app.probe(self._local, self._config.validation).start()
        views = self._read()
        read_after_s = self._app.clock() - began
        views = self._with_jobs(views)
        self._refuse_unknown(views)
        seen = self._collect()
        return self._with_scan(views, seen, read_after_s) if seen else Found(_in_order(views))

    def taken(self, uid: int, found: Found) -> list[Taken]:
        """Return what others lately released of the user's reservations; raises `StoreError`."""
        from canhazgpu.people.taken import SHOWN_FOR_S, taken_from  # noqa: PLC0415 - with --me

        ledger = self._opened()
        return [
            taken
            for view in found.views
            for taken in taken_from(
                uid, view.node, ledger.history(view.node, view.read_at - SHOWN_FOR_S)
            )
        ]

    def judge(self, found: Found) -> list[NodeStatus]:
        """Return what each of the nodes' GPUs is."""
        from canhazgpu.probe.node_probe import usage_policy  # noqa: PLC0415 - not for the help
        from canhazgpu.status.coverage import ANY_SPACE, PidSpace  # noqa: PLC0415 - not before
        from canhazgpu.status.model import node_status  # noqa: PLC0415 - the scan

        policy = usage_policy(self._config.validation)
        statuses = []
        for view in found.views:
            live = view.node == found.live
            # Of another node neither its boot nor its configuration is known here.
            space = PidSpace(boot_id(), pid_namespace()) if live else ANY_SPACE
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
            views = {view.node: view for view in ledger.look(self._wanted or None)}
            if not self._wanted and self._local not in views:
                views |= {view.node: view for view in ledger.look([self._local])}
        except StoreError:
            # The next look finds the store anew: another server may have its place, or its data.
            self._ledger = None
            raise
        return views

    def _opened(self) -> Ledger:
        if self._ledger is None:
            self._ledger = self._app.reader(self._config.store)
        return self._ledger

    def _refuse_unknown(self, views: dict[str, NodeView]) -> None:
        for name in self._wanted:
            if name != self._local and not _known(views[name]):
                raise InputError(
                    f"the ledger knows no node {name!r}; 'canhazgpu status' shows all it knows"
                )

    def _with_jobs(self, views: dict[str, NodeView]) -> dict[str, NodeView]:
        from canhazgpu.status.jobs import incomplete_jobs, with_jobs  # noqa: PLC0415 - as above

        job_ids = incomplete_jobs(views.values(), SCHEDULER)
        if not job_ids:
            return views
        facts = self._app.job_lookup(self._config.slurm, self._app.environ).jobs(job_ids)
        return {name: with_jobs(view, facts, SCHEDULER) for name, view in views.items()}

    def _with_scan(
        self, views: dict[str, NodeView], seen: Observation, read_after_s: float
    ) -> Found:
        """Put this node's scan, begun that long before the ledger was read, into its view.

        A node without GPUs of its own, as one to log in to, is left out unless it was asked for.
        """
        from canhazgpu.status.model import (  # noqa: PLC0415 - not before the scan
            with_live_scan,
            with_unhealthy,
        )

        own, scan = views[self._local], seen.scan
        if self._shows_itself(own, scan):
            live = with_live_scan(own, scan, own.read_at - read_after_s)
            live = with_unhealthy(live, seen.unhealthy)
            return Found(_in_order({**views, self._local: live}), self._local, scan.fault)
        others = {name: view for name, view in views.items() if name != self._local}
        if not others:
            raise ScanError(
                scan.fault or "this node has no GPU, and the ledger knows no other node"
            )
        return Found(_in_order(others))

    def _shows_itself(self, own: NodeView, scan: Scan) -> bool:
        should_have = self._config.validation.expected_gpus > 0 and scan.fault is None
        return self._local in self._wanted or bool(scan.gpus) or _known(own) or should_have


def _known(view: NodeView) -> bool:
    return bool(view.scan or view.reservations or view.quarantines)


def _in_order(views: dict[str, NodeView]) -> list[NodeView]:
    return [views[name] for name in sorted(views)]
