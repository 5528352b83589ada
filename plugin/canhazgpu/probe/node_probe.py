"""The probe of this node: one scan within a deadline, with the use and health of each GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import replace

from canhazgpu.config.schema import HEALTH_CHECKS, ValidationConfig
from canhazgpu.gpu.health import EXCLUSIVE_PROCESS, checks_with_mps, unhealthy_gpus
from canhazgpu.gpu.scan import Scan
from canhazgpu.gpu.usage import Usage, UsagePolicy, judge_usage
from canhazgpu.ledger.port import Observation
from canhazgpu.probe.processes.cgroup_job import JobOfCgroup, no_job_of_cgroup
from canhazgpu.probe.source_scan import PendingSourceScan, SourceScan, StartSourceScan
from canhazgpu.probe.sources import configured_sources

FIRST_SOURCE_TIME_SHARE = 0.75
"""Share of the time for a source that is not the last. It is large, because initialising NVML takes
seconds on a node without persistence mode, and nvidia-smi hangs where NVML does."""
MIN_SOURCE_TIME_S = 0.05
"""Least time for the last source: with less it would only report its time-out."""


class NodeProbe:
    """`GpuProbe` over NVML and nvidia-smi; see `canhazgpu.probe.port.GpuProbe`."""

    def __init__(
        self,
        node: str,
        validation: ValidationConfig,
        job_of: JobOfCgroup = no_job_of_cgroup,
        has_mps: Callable[[], bool] = lambda: False,
        start_source: StartSourceScan = SourceScan,
    ) -> None:
        """`has_mps` tells whether the scheduler shares the node's GPUs by MPS.

        It is called where the compute mode of a GPU depends on it. `start_source` starts the scan
        by one source.
        """
        self._node = node
        self._validation = validation
        self._job_of = job_of
        self._has_mps = has_mps
        self._start_source = start_source

    def start(self) -> PendingNodeScan:
        """See `GpuProbe.start`."""
        return PendingNodeScan(
            self._node, self._validation, self._job_of, self._has_mps, self._start_source
        )


class PendingNodeScan:
    """`PendingScan` by one source after the other, while the caller does something else.

    Where the first source does not work at all, `observe` uses the next one in the time left.
    """

    def __init__(
        self,
        node: str,
        validation: ValidationConfig,
        job_of: JobOfCgroup,
        has_mps: Callable[[], bool],
        start_source: StartSourceScan,
    ) -> None:
        self._node = node
        self._has_mps = has_mps
        self._start_source = start_source
        self._policy = usage_policy(validation)
        self._health_checks = validation.health_checks
        self._timeout_s = validation.scan_timeout_s
        self._began = time.monotonic()
        self._observation: Observation | None = None
        self._sources = configured_sources(validation, job_of)
        self._source_scan = self._next_source_scan()

    def observe(self) -> Observation:
        """See `PendingScan.observe`; each call returns the age of the scan at that time."""
        if self._observation is None:
            scan = self._first_working_scan()
            checks = self._health_checks
            if any(
                gpu.health and gpu.health.compute_mode == EXCLUSIVE_PROCESS for gpu in scan.gpus
            ):
                checks = checks_with_mps(checks) if self._has_mps() else checks
            self._observation = judge_scan(scan, self._policy, health_checks=checks)
        return replace(self._observation, age_s=time.monotonic() - self._began)

    def _first_working_scan(self) -> Scan:
        """Return the first scan without a fault, else the last one with the faults of all."""
        scan = self._source_scan.result()
        faults = [(scan.source, scan.fault)]
        while scan.fault is not None and self._sources:
            self._source_scan = self._next_source_scan()
            scan = self._source_scan.result()
            faults.append((scan.source, scan.fault))
        if scan.fault is None:
            return scan
        reasons = "; ".join(f"{source}: {fault}" for source, fault in faults)
        return replace(scan, fault=f"the GPUs could not be read: {reasons}")

    def _next_source_scan(self) -> PendingSourceScan:
        source = self._sources.pop(0)
        left_s = max(self._timeout_s - (time.monotonic() - self._began), MIN_SOURCE_TIME_S)
        share = FIRST_SOURCE_TIME_SHARE if self._sources else 1.0
        return self._start_source(self._node, source, left_s * share)


def usage_policy(validation: ValidationConfig) -> UsagePolicy:
    """Return the configured policy of use."""
    return UsagePolicy(
        validation.memory_threshold_mb,
        frozenset(validation.ignore_processes),
        frozenset(validation.ignore_users),
    )


def judge_scan(
    scan: Scan,
    policy: UsagePolicy,
    age_s: float = 0.0,
    health_checks: Collection[str] = HEALTH_CHECKS,
) -> Observation:
    """Judge every GPU of a scan: its use, and its health by these checks."""
    judged = [(gpu.uuid, judge_usage(gpu, policy)) for gpu in scan.gpus if gpu.uuid]
    return Observation(
        scan,
        age_s,
        in_use=frozenset(uuid for uuid, usage in judged if usage is Usage.IN_USE),
        unknown=frozenset(uuid for uuid, usage in judged if usage is Usage.UNKNOWN),
        unhealthy=unhealthy_gpus(scan.gpus, health_checks),
        ignored=frozenset(
            one.pid for gpu in scan.gpus for one in gpu.processes if policy.ignores(one)
        ),
        policy=policy,
    )
