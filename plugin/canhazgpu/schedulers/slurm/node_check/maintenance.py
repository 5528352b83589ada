"""One check of the node: who is gone, what was lost, what is clear again, and how its GPUs are."""

from __future__ import annotations

from collections.abc import Iterator

from canhazgpu.allocation.allocator import GpuAllocator
from canhazgpu.errors import SchedulerError, error_text
from canhazgpu.ledger.local.book import is_job_owner
from canhazgpu.ledger.local.fallback_ledger import FallbackLedger
from canhazgpu.ledger.local.job_records import JobRecord
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import JobOwner, NodeView
from canhazgpu.logfmt import log_line
from canhazgpu.node.drain_record import DrainRecord
from canhazgpu.probe.port import PendingScan
from canhazgpu.schedulers.slurm.control.actions import write_syslog
from canhazgpu.schedulers.slurm.control.undrain import undrain_if_ours
from canhazgpu.schedulers.slurm.hook.run import NodeContext, release_ended_jobs

BY_EPILOG = "epilog"
"""Who quarantined a GPU whose memory a job left behind: lifted once the GPU is clear."""
BY_HEALTH_CHECK = "health check"
JOB_ABSENT_REASON = "job no longer on the node"


class NodeCheck:
    """One run of the health check; `decisions` are the lines that tell what it did."""

    def __init__(self, side: NodeContext) -> None:
        self._context = side
        self.decisions: list[str] = []

    def run(self) -> None:
        """Check the node. Raises what keeps it from that."""
        side = self._context
        if side.config_fault is not None:
            raise side.config_fault
        scan = side.probe.start()
        ledger = side.ledger()
        service = GpuAllocator(side.node, side.here(), side.probe, ledger)
        living = service.reaped_view()
        if ledger.released:
            self._log_decision("reaped", gpus=ledger.released)
        view = self._release_absent_jobs(ledger, living)
        self._publish(ledger, scan, view)
        release_ended_jobs(service, side.records, side.records.ended())

    def _publish(self, ledger: FallbackLedger, scan: PendingScan, view: NodeView) -> None:
        observation = scan.observe()
        if not observation.scan.gpus and not self._should_have_gpus(view):
            return
        # Everything that lives gives its sign of life with it: one round trip for all.
        ledger.publish_scan(observation, {owner for owner, _ in self._job_owners(view)})
        self._lift_quarantines(ledger, observation, view)
        self._undrain(observation, view)

    def _release_absent_jobs(self, ledger: FallbackLedger, view: NodeView) -> NodeView:
        """Release what jobs hold that are not on the node any more, and end their records."""
        live = self._context.records.running()
        owners = dict(self._job_owners(view))
        # Asked last: a job that began meanwhile is neither in the view nor in the records.
        gone = self._context.presence.absent(
            {*owners.values(), *(one.owner.job_id for one in live)}
        )
        for record in live:
            if record.owner.job_id in gone or self._is_of_earlier_boot(record):
                self._context.records.close(record.owner)
                self._log_decision(
                    "epilog-missing", job=record.owner.job_id, owner=record.owner.token
                )
        latest = {record.owner.job_id: record.owner for record in live}
        released = [
            uuid
            for owner, job_id in owners.items()
            for uuid in self._release_if_absent(ledger, owner, job_id in gone, latest.get(job_id))
        ]
        return ledger.read_nodes([self._context.node])[0] if released else view

    def _release_if_absent(
        self, ledger: FallbackLedger, owner: str, is_gone: bool, latest: JobOwner | None
    ) -> list[str]:
        if latest is not None and latest.token != owner and latest.covers(owner):
            reason = "superseded by a later attempt"
        elif is_gone:
            reason = JOB_ABSENT_REASON
        else:
            return []
        gpus = ledger.release(self._context.node, owner, reason)
        self._log_decision("released", owner=owner, gpus=gpus, reason=reason)
        return gpus

    def _is_of_earlier_boot(self, record: JobRecord) -> bool:
        boots = (record.boot_id, self._context.boot_id)
        return None not in boots and boots[0] != boots[1]

    def _job_owners(self, view: NodeView) -> Iterator[tuple[str, str]]:
        cluster = self._context.node_conf.cluster
        for one in view.reservations.values():
            claim = one.claim
            ours = f"job:{cluster}:" if cluster else "job:"
            if is_job_owner(claim.owner) and claim.owner.startswith(ours) and claim.job_id:
                yield claim.owner, claim.job_id

    def _should_have_gpus(self, view: NodeView) -> bool:
        """Tell whether a node that shows no GPU is one of ours all the same."""
        known = view.scan is not None and bool(view.scan.gpus)
        return known or bool(view.reservations) or self._context.node_conf.gpu_count is not None

    def _lift_quarantines(
        self, ledger: FallbackLedger, observation: Observation, view: NodeView
    ) -> None:
        """Lift what an epilog quarantined and is clear again."""
        clear = observation.scan.by_uuid().keys() - _unavailable_gpus(observation)
        for gpu, one in view.quarantines.items():
            if one.by == BY_EPILOG and gpu in clear and gpu not in view.reservations:
                ledger.unquarantine(self._context.node, gpu, BY_HEALTH_CHECK)
                self._log_decision("unquarantined", gpu=gpu, reason=one.reason)

    def _undrain(self, observation: Observation, view: NodeView) -> None:
        side = self._context
        clean = observation.scan.fault is None and not (
            _unavailable_gpus(observation) - view.reservations.keys()
        )
        try:
            reason = undrain_if_ours(
                side.node, DrainRecord(side.state_dir), side.commands, clean=clean
            )
        except SchedulerError as exc:
            # Asked again the next time; a controller that is away is no news of this node.
            write_syslog(log_line("undrain-failed", node=side.node, reason=error_text(exc)))
            return
        if reason:
            self._log_decision("undrained", reason=reason)

    def _log_decision(self, event: str, **facts: object) -> None:
        self.decisions.append(log_line(event, node=self._context.node, **facts))


def _unavailable_gpus(observation: Observation) -> frozenset[str]:
    return observation.in_use | observation.unknown | observation.unhealthy.keys()
