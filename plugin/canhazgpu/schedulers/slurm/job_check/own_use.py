"""A probe for a job that runs already: what its own processes do on a GPU is no obstacle to it."""

from __future__ import annotations

from dataclasses import replace

from canhazgpu.allocation.coverage import covers
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import Claim
from canhazgpu.probe.port import GpuProbe, PendingScan


@dataclass(frozen=True, slots=True)
class ProbeOfRunningJob:
    """`GpuProbe` of the node, for the job with this claim."""

    probe: GpuProbe
    claim: Claim

    def start(self) -> PendingScan:
        """See `GpuProbe.start`."""
        return _PendingScan(self.probe.start(), self.claim)


@dataclass(frozen=True, slots=True)
class _PendingScan:
    scan: PendingScan
    claim: Claim

    def observe(self) -> Observation:
        return without_own_use(self.claim, self.scan.observe())


def without_own_use(claim: Claim, observation: Observation) -> Observation:
    """Return the observation without GPUs in use that the claim's own processes alone use."""
    own = {
        gpu.uuid
        for gpu in observation.scan.gpus
        if gpu.uuid in observation.in_use and _is_own_use(claim, gpu, observation.policy)
    }
    return replace(observation, in_use=observation.in_use - own)


def _is_own_use(claim: Claim, gpu: GpuReading, policy: UsagePolicy) -> bool:
    counted = policy.counted_processes(gpu.processes)
    return bool(counted) and all(covers(claim, process) for process in counted)
