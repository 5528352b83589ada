"""The health of GPUs: validate a node, and hold GPUs back from grants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from canhazgpu.errors import CanhazgpuError
    from canhazgpu.gpu.ids import GpuSelector
    from canhazgpu.ledger.values import Claim, Quarantine
    from canhazgpu.status.findings import Finding


@dataclass(frozen=True, slots=True)
class ValidateRequest:
    """One look at this node; with `publish` the scan is stored for everybody.

    `memory_threshold_mb` and `expected_gpus` stand for the configured ones. A node that is to have
    0 GPUs may lack them.
    """

    memory_threshold_mb: int | None = None
    expected_gpus: int | None = None
    publish: bool = False


@dataclass(frozen=True, slots=True)
class ValidateAnswer:
    """What was found; `counted` says what there is. `node` is empty where it is not known."""

    node: str
    findings: tuple[Finding, ...]
    counted: str = ""
    published: bool = False


@dataclass(frozen=True, slots=True)
class QuarantineRequest:
    """GPUs of a node (None: this one) to hold back, and why."""

    gpus: tuple[GpuSelector, ...]
    reason: str
    node: str | None = None


@dataclass(frozen=True, slots=True)
class UnquarantineRequest:
    """GPUs of a node (None: this one) to grant again."""

    gpus: tuple[GpuSelector, ...]
    node: str | None = None


@dataclass(frozen=True, slots=True)
class QuarantineChange:
    """What became of one GPU: `changed` is False where it was so already.

    `before` is the quarantine that it had, `holder` who keeps it. `unhealthy` says why the next
    scan will quarantine it again, "" where it will not.
    """

    gpu: str
    changed: bool
    before: Quarantine | None = None
    holder: Claim | None = None
    unhealthy: str = ""


@dataclass(frozen=True, slots=True)
class QuarantineAnswer:
    """What became of the named GPUs, in their order; `places` has their places by UUID.

    `fault` ended it before all were done.
    """

    node: str
    places: Mapping[str, str]
    changes: tuple[QuarantineChange, ...]
    fault: CanhazgpuError | None = None
