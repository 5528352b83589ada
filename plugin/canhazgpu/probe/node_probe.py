"""The probe of this node: one scan in a bounded child, judged by policy."""

from __future__ import annotations

import time
from collections.abc import Collection

from canhazgpu.config.schema import HEALTH_CHECKS, ValidationConfig
from canhazgpu.errors import ScanError
from canhazgpu.gpu.health import unhealthy
from canhazgpu.gpu.scan import Scan, scan_from_json, scan_to_json
from canhazgpu.gpu.usage import Usage, UsagePolicy, usage_of
from canhazgpu.ledger.port import Observation
from canhazgpu.probe.bounded import BoundedChild, BoundedChildError
from canhazgpu.probe.processes import JobOf, no_job


class NodeProbe:
    """`GpuProbe` over NVML; see `canhazgpu.probe.port.GpuProbe`."""

    def __init__(self, node: str, validation: ValidationConfig, job_of: JobOf = no_job) -> None:
        self._node = node
        self._validation = validation
        self._job_of = job_of

    def start(self) -> PendingNodeScan:
        """See `GpuProbe.start`."""
        return PendingNodeScan(self._node, self._validation, self._job_of)


class PendingNodeScan:
    """`PendingScan` in a child process, which works while the caller does something else."""

    def __init__(self, node: str, validation: ValidationConfig, job_of: JobOf) -> None:
        self._node = node
        self._policy = usage_policy(validation)
        self._health_checks = validation.health_checks
        self._began = time.monotonic()
        self._started_at = time.time()
        self._observation: Observation | None = None
        self._child = _started(node, validation, job_of)

    def observe(self) -> Observation:
        """See `PendingScan.observe`; the age counts on with every call."""
        if self._observation is None:
            self._observation = observation_of(
                self._finish(), self._policy, health_checks=self._health_checks
            )
        return Observation(
            self._observation.scan,
            time.monotonic() - self._began,
            self._observation.in_use,
            self._observation.unknown,
            self._observation.unhealthy,
        )

    def _finish(self) -> Scan:
        try:
            if isinstance(self._child, BoundedChildError):
                raise self._child
            return scan_from_json(self._child.result())
        except (BoundedChildError, ScanError) as exc:
            took_s = time.monotonic() - self._began
            fault = f"the GPUs could not be read: {exc}"
            return Scan(self._node, self._started_at, took_s, (), fault)


def _started(
    node: str, validation: ValidationConfig, job_of: JobOf
) -> BoundedChild | BoundedChildError:
    try:
        return BoundedChild(
            lambda: _scan(node, validation.nvml_library, job_of), validation.scan_timeout_s
        )
    except BoundedChildError as exc:
        # A node without room for a process is a fault of the scan, told by `observe`.
        return exc


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
    )


def _scan(node: str, library: str, job_of: JobOf) -> bytes:
    # Only the child pays for importing pynvml, while its parent imports the store's client.
    from canhazgpu.probe.nvml import read_gpus  # noqa: PLC0415

    started_at, began = time.time(), time.monotonic()
    try:
        gpus, fault = read_gpus(library, job_of), None
    except ScanError as exc:
        gpus, fault = (), str(exc)
    return scan_to_json(Scan(node, started_at, time.monotonic() - began, gpus, fault)).encode()
