"""Validate this node: scan it once, and judge the scan and the ledger."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from canhazgpu.allocation.coverage import PidNamespace
from canhazgpu.config.host_role import require_own_gpus
from canhazgpu.errors import StoreError, advice_for
from canhazgpu.gpu.health import count_text, count_whole_gpus, with_known_uuids
from canhazgpu.in_process.adapters import threshold_override
from canhazgpu.in_process.book.store_ledgers import book_checked_ledger
from canhazgpu.node.identity import boot_id, node_name, pid_namespace
from canhazgpu.node.users import require_administrator
from canhazgpu.probe.node_probe import usage_policy
from canhazgpu.service.health import ValidateAnswer
from canhazgpu.status.findings import (
    Expectations,
    Finding,
    Verdict,
    ledger_findings,
    scan_findings,
)
from canhazgpu.status.node_status import node_status, with_live_scan

if TYPE_CHECKING:
    from canhazgpu.config import Config
    from canhazgpu.gpu.scan import Scan
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.port import Ledger, Observation
    from canhazgpu.ledger.values import NodeView
    from canhazgpu.service.health import ValidateRequest


def validate_node(adapters: Adapters, request: ValidateRequest) -> ValidateAnswer:
    """See `NodeService.validate`."""
    overrides = threshold_override(request.memory_threshold_mb)
    if request.expected_gpus is not None:
        if request.publish:
            require_administrator(adapters.caller(), "publish how many GPUs the node should have")
        overrides["validation.expected_gpus"] = str(request.expected_gpus)
    may_lack_gpus = request.expected_gpus == 0
    config = adapters.effective_config(overrides).config
    require_own_gpus(config, "validated", "run it on a node, or 'canhazgpu status --node NAME'")
    node = node_name(config.node, adapters.environ)
    started_at = adapters.clock()
    pending_scan = adapters.open_probe(node, config).start()
    open_ledger = adapters.writer if request.publish else adapters.reader
    ledger = book_checked_ledger(node, config, open_ledger(config))
    checks = adapters.health_checks(node, config)
    observation = pending_scan.observe()
    # Read after the scan: use by a GPU reserved during the scan is then not called unreserved.
    try:
        before = _read_view(ledger, node)
    except StoreError as exc:
        expected = _expectations(config, checks, None, may_lack_gpus)
        findings = scan_findings(observation.scan, expected)
        unknown = _cannot_tell("the reservations cannot be read", exc)
        return ValidateAnswer(node, (*findings, unknown))
    after, published, faults = before, False, []
    if request.publish:
        complete = _has_as_many_as_named(config, request, observation.scan)
        try:
            ledger.publish_scan(replace(observation, is_complete=complete))
            ledger.keep_indexes(node)
            published = True
            after = _read_view(ledger, node)
        except StoreError as exc:
            what = "reservations cannot be read again" if published else "scan was not published"
            faults.append(_cannot_tell(f"the {what}", exc))
    age_s = adapters.clock() - started_at
    expected = _expectations(config, checks, before, may_lack_gpus)
    answer = _validate_answer(after, observation, expected, age_s)
    return replace(answer, findings=(*answer.findings, *faults), published=published)


def _cannot_tell(what: str, error: StoreError) -> Finding:
    return Finding(Verdict.CANNOT_TELL, f"{what}: {error}", advice_for(error).next_step)


def _read_view(ledger: Ledger, node: str) -> NodeView:
    (view,) = ledger.read_nodes([node])
    return view


def _has_as_many_as_named(config: Config, request: ValidateRequest, scan: Scan) -> bool:
    """Tell whether the scan found exactly the number of GPUs that an administrator named."""
    named = config.validation.expected_gpus > 0 or request.expected_gpus is not None
    found = count_whole_gpus(scan.gpus)
    return named and scan.fault is None and found == config.validation.expected_gpus


def _expectations(
    config: Config, checks: tuple[str, ...], view: NodeView | None, may_lack_gpus: bool
) -> Expectations:
    return Expectations(
        usage_policy(config.validation),
        checks,
        config.validation.expected_gpus,
        may_lack_gpus,
        view.known_gpus if view else {},
    )


def _validate_answer(
    view: NodeView,
    observation: Observation,
    expected: Expectations,
    age_s: float,
) -> ValidateAnswer:
    scan = with_known_uuids(expected.known_gpus, observation.scan)
    findings = scan_findings(scan, expected)
    live = with_live_scan(view, scan, view.read_at - age_s)
    namespace = PidNamespace(boot_id(), pid_namespace())
    status = node_status(live, expected.policy, live=True, pid_namespace=namespace)
    findings += ledger_findings(status, expected.policy, {one.uuid for one in findings if one.uuid})
    reserved_count = sum(gpu.reservation is not None for gpu in status.gpus)
    gpu_counts = f"{count_text(scan.gpus)}, {reserved_count} reserved"
    return ValidateAnswer(view.node, tuple(findings), gpu_counts)
