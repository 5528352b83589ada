"""The health of GPUs: validate a node, quarantine GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from canhazgpu.frozen_dataclass import dataclass

if TYPE_CHECKING:
    from canhazgpu.errors import CanhazgpuError
    from canhazgpu.gpu.ids import GpuSelector
    from canhazgpu.ledger.values import Claim, Quarantine
    from canhazgpu.status.findings import Finding


@dataclass(frozen=True, slots=True)
class ValidateRequest:
    """One scan of this node; with `publish` the scan is stored in the ledger.

    `memory_threshold_mb` and `expected_gpus` replace the configured values, None keeps them. With 0
    expected GPUs a node without GPUs is clean.
    """

    memory_threshold_mb: int | None = None
    expected_gpus: int | None = None
    publish: bool = False


@dataclass(frozen=True, slots=True)
class ValidateAnswer:
    """The findings, not sorted; `published` is True if the scan is stored in the ledger.

    `gpu_counts` says how many GPUs there are and how many are reserved, for people. `node` and
    `gpu_counts` are "" where they are not known.
    """

    node: str
    findings: tuple[Finding, ...]
    gpu_counts: str = ""
    published: bool = False


@dataclass(frozen=True, slots=True)
class QuarantineRequest:
    """GPUs of a node (None: this one) to quarantine, and why."""

    gpus: tuple[GpuSelector, ...]
    reason: str
    node: str | None = None


@dataclass(frozen=True, slots=True)
class UnquarantineRequest:
    """GPUs of a node (None: this one) whose quarantine is to be lifted."""

    gpus: tuple[GpuSelector, ...]
    node: str | None = None


@dataclass(frozen=True, slots=True)
class QuarantineChange:
    """The change of one GPU (UUID); `changed` is False if it was in the requested state already.

    `previous` is the quarantine that it had, None for none. `holders` are the claims of those who
    still hold it. `unhealthy` says why the next scan will quarantine the GPU again, "" if it will
    not.
    """

    gpu: str
    changed: bool
    previous: Quarantine | None = None
    holders: tuple[Claim, ...] = ()
    unhealthy: str = ""


@dataclass(frozen=True, slots=True)
class QuarantineAnswer:
    """The changes, in the order in which the GPUs were named.

    `display_indices` has the GPUs' display indices by UUID. `fault` is the error that ended the
    request before the last GPU, None for no error.
    """

    node: str
    display_indices: Mapping[str, str]
    changes: tuple[QuarantineChange, ...]
    fault: CanhazgpuError | None = None
