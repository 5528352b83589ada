"""Whether the driver's accounting is wanted; apart, because every epilog asks it."""

from __future__ import annotations

from canhazgpu.config.schema import ValidationConfig
from canhazgpu.probe.sources import NVIDIA_SMI


def accounting_is_enabled(validation: ValidationConfig) -> bool:
    """Tell whether the driver is to keep what processes use, and NVML may be used."""
    return validation.accounting == "auto" and validation.probe != NVIDIA_SMI
