"""The probe of this node: one scan within a deadline, judged by policy."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace

from canhazgpu.config.schema import HEALTH_CHECKS, ValidationConfig
from canhazgpu.gpu.health import unhealthy
from canhazgpu.gpu.scan import Scan
from canhazgpu.gpu.usage import Usage, UsagePolicy, usage_of
from canhazgpu.ledger.port import Observation
from canhazgpu.probe.attempt import Attempt
from canhazgpu.probe.processes import JobOf, no_job
from canhazgpu.probe.sources import sources_of

SHARE_OF_FIRST = 0.75
"""Part of the time that a source gets while another one could follow. Large, because initialising
NVML takes seconds on a node without persistence mode, and what hangs it hangs nvidia-smi too."""
LEAST_TIME_S = 0.05
"""Least time for a source that follows: with less, its fault would say nothing."""


class NodeProbe:
    """`GpuProbe` over NVML and nvidia-smi; see `canhazgpu.probe.port.GpuProbe`."""

    def __init__(self, node: str, validation: ValidationConfig, job_of: JobOf = no_job) -> None:
        self._node = node
        self._validation = validation
        self._job_of = job_of

    def start(self) -> PendingNodeScan:
        """See `GpuProbe.start`."""
        return PendingNodeScan(self._node, self._validation, self._job_of)


class PendingNodeScan:
    """`PendingScan` in a child process, which works while the caller does something else.

    Where the first source cannot be used at all, `observe` asks the next one in the time left.
    """

    def __init__(self, node: str, validation: ValidationConfig, job_of: JobOf) -> None:
        self._node = node
        self._policy = usage_policy(validation)
        self._health_checks = validation.health_checks
        self._timeout_s = validation.scan_timeout_s
        self._began = time.monotonic()
        self._observation: Observation | None = None
        self._sources = sources_of(validation, job_of)
        self._attempt = self._next_attempt()

    def observe(self) -> Observation:
        """See `PendingScan.observe`; the age counts on with every call."""
        if self._observation is None:
            self._observation = observation_of(
                self._finish(), self._policy, health_checks=self._health_checks
            )
        return replace(self._observation, age_s=time.monotonic() - self._began)

    def _finish(self) -> Scan:
        """Return the first scan that shows GPUs; else the last one, with every source's fault."""
        scan = self._attempt.scan()
        faults = [(scan.source, scan.fault)]
        while scan.fault is not None and self._sources:
            self._attempt = self._next_attempt()
            scan = self._attempt.scan()
            faults.append((scan.source, scan.fault))
        if scan.fault is None:
            return scan
        told = "; ".join(f"{source}: {fault}" for source, fault in faults)
        return replace(scan, fault=f"the GPUs could not be read: {told}")

    def _next_attempt(self) -> Attempt:
        source = self._sources.pop(0)
        left_s = max(self._timeout_s - (time.monotonic() - self._began), LEAST_TIME_S)
        share = SHARE_OF_FIRST if self._sources else 1.0
        return Attempt(self._node, source, left_s * share)


def usage_policy(validation: ValidationConfig) -> UsagePolicy:
    """Return when a GPU counts as in use, as configured."""
    return UsagePolicy(
        validation.memory_threshold_mb,
        frozenset(validation.ignore_processes),
        frozenset(validation.ignore_users),
    )


def observation_of(
    scan: Scan,
    policy: UsagePolicy,
    age_s: float = 0.0,
    health_checks: Collection[str] = HEALTH_CHECKS,
) -> Observation:
    """Judge every GPU of a scan: its use, and its health by these checks."""
    judged = [(gpu.uuid, usage_of(gpu, policy)) for gpu in scan.gpus if gpu.uuid]
    return Observation(
        scan,
        age_s,
        in_use=frozenset(uuid for uuid, usage in judged if usage is Usage.IN_USE),
        unknown=frozenset(uuid for uuid, usage in judged if usage is Usage.UNKNOWN),
        unhealthy=unhealthy(scan.gpus, health_checks),
        ignored=frozenset(
            one.pid for gpu in scan.gpus for one in gpu.processes if policy.ignores(one)
        ),
    )
