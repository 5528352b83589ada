"""The GPUs of a node of which a count may be granted; pure.

CUDA shows a process one MIG instance, and none beside a whole GPU. So a count is of whole GPUs or
of instances, never of both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from canhazgpu.errors import InputError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import GpuReading


class GpuChoice(Protocol):
    """Says among which GPUs of a node a count is to be granted."""

    def candidates(self, gpus: Sequence[GpuReading]) -> frozenset[str] | None:
        """Return the GPUs (UUIDs) to choose among, None for all; may raise `InputError`."""
        ...

    def shortage_text(self, requested: int, gpus: Sequence[GpuReading], node: str) -> str:
        """Return the sentence for a node that has fewer candidates than requested."""
        ...


@dataclass(frozen=True, slots=True)
class ByProfile:
    """MIG instances of this profile, ``1g.10gb``; without one, whole GPUs."""

    profile: str = ""

    def candidates(self, gpus: Sequence[GpuReading]) -> frozenset[str] | None:
        """See `GpuChoice.candidates`."""
        if not self.profile and not any(gpu.is_mig_instance for gpu in gpus):
            return None
        return frozenset(gpu.uuid for gpu in gpus if gpu.uuid and has_profile(gpu, self.profile))

    def shortage_text(self, requested: int, gpus: Sequence[GpuReading], node: str) -> str:
        """See `GpuChoice.shortage_text`."""
        asked = f"{requested} {'was' if requested == 1 else 'were'} asked for"
        present = sum(has_profile(gpu, self.profile) for gpu in gpus)
        instances = profiles_text(gpus)
        if self.profile:
            has = f"{node} has {present or 'no'} MIG instance{'s' if present > 1 else ''}"
            text = f"{has} of the profile {self.profile}"
            return f"{text}; {asked}" if present else f"{text}; it has {instances or 'none at all'}"
        if not instances:
            return f"{node} has {present} GPUs; {requested} were asked for"
        whole = f"{present} whole GPU{'' if present == 1 else 's'}" if present else "no whole GPU"
        ask = "ask for these with --profile, or for one by its place with --gpu-ids"
        return f"{node} has {whole} and the MIG instances {instances}; {asked}: {ask}"


WHOLE_GPUS = ByProfile()


ONE_INSTANCE_TEXT = (
    "a run gets one MIG instance, since CUDA shows a process no more: start a run for each"
)


def refuse_mixed_gpus(gpus: Sequence[GpuReading], *, for_command: bool) -> None:
    """Raise `InputError` for whole GPUs beside instances, and for a command with several of these.

    `gpus` are those that somebody named.
    """
    instances = [gpu for gpu in gpus if gpu.is_mig_instance]
    if 0 < len(instances) < len(gpus):
        whole = next(gpu for gpu in gpus if not gpu.is_mig_instance)
        raise InputError(
            f"GPU {whole.display_index} and the MIG instance {instances[0].display_index} are not"
            " granted together: CUDA shows a process no instance beside a whole GPU; name whole"
            " GPUs, or instances"
        )
    if for_command and len(instances) > 1:
        raise InputError(ONE_INSTANCE_TEXT)


def has_profile(gpu: GpuReading, profile: str) -> bool:
    """Tell whether this is an instance of the profile, or with an empty one a whole GPU."""
    if not profile:
        return not gpu.is_mig_instance
    return gpu.mig_profile.lower() == profile.lower()


def profiles_text(gpus: Iterable[GpuReading]) -> str:
    """Return the profiles of the MIG instances, each with their number: ``1g.10gb (7)``."""
    counted = Counter(gpu.mig_profile or "unnamed" for gpu in gpus if gpu.is_mig_instance)
    return ", ".join(f"{profile} ({number})" for profile, number in sorted(counted.items()))
