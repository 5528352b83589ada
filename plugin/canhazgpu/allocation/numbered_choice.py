"""GPUs that a program is to find by CUDA's index, so that this index has to be certain; pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from canhazgpu.allocation.gpu_choice import GpuChoice
from canhazgpu.errors import InputError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import GpuReading


@dataclass(frozen=True, slots=True)
class NumberedByCuda:
    """A `GpuChoice`: of another choice's candidates those whose index of CUDA's is certain.

    `count` is how many are wanted, `key` the configuration's key that asks for indices.
    """

    choice: GpuChoice
    count: int
    key: str

    def candidates(self, gpus: Sequence[GpuReading]) -> frozenset[str] | None:
        """See `GpuChoice.candidates`."""
        found = self.choice.candidates(gpus)
        identified = frozenset(gpu.uuid for gpu in gpus if gpu.uuid)
        among = identified if found is None else identified & found
        unnumbered = _unnumbered(gpus, among)
        if not unnumbered:
            return found
        numbered = among - {gpu.uuid for gpu in unnumbered}
        if len(numbered) < self.count <= len(among):
            refuse_unnumbered(gpus, among, self.key)
        return numbered

    def shortage_text(self, requested: int, gpus: Sequence[GpuReading], node: str) -> str:
        """See `GpuChoice.shortage_text`."""
        return self.choice.shortage_text(requested, gpus, node)


def refuse_unnumbered(gpus: Sequence[GpuReading], uuids: Collection[str], key: str) -> None:
    """Raise `InputError` if CUDA's index of one of these GPUs is not certain.

    A MIG instance has no index: it is named by its UUID whatever the configuration says.
    """
    if unnumbered := _unnumbered(gpus, uuids):
        names = ", ".join(f"{gpu.display_index} ({gpu.uuid})" for gpu in unnumbered)
        raise InputError(
            f'{key} = "index", but CUDA\'s index of GPU {names} is not certain: {_cause(gpus)};'
            f' set {key} = "uuid"'
        )


def _unnumbered(gpus: Sequence[GpuReading], uuids: Collection[str]) -> list[GpuReading]:
    return [
        gpu
        for gpu in gpus
        if gpu.uuid in uuids and gpu.cuda_index is None and not gpu.is_mig_instance
    ]


def _cause(gpus: Sequence[GpuReading]) -> str:
    if any(gpu.is_mig_instance for gpu in gpus):
        return "a GPU of this node is in MIG mode"
    if faults := [f"GPU {gpu.display_index}: {gpu.fault}" for gpu in gpus if gpu.fault]:
        return faults[0]
    return "the driver does not tell the PCI addresses"
