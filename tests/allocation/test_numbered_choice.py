"""Where a program finds its GPUs by CUDA's index, only GPUs whose index is certain are chosen."""

from __future__ import annotations

import pytest

from canhazgpu.allocation.gpu_choice import WHOLE_GPUS, ByProfile
from canhazgpu.allocation.numbered_choice import NumberedByCuda, refuse_unnumbered
from canhazgpu.errors import InputError
from canhazgpu.gpu.scan import GpuReading


def gpu(index: int, cuda_index: int | None, fault: str | None = None) -> GpuReading:
    return GpuReading(
        index, f"GPU-{index}", index, "H100", 0, 80000, fault=fault, cuda_index=cuda_index
    )


def instance(place: int) -> GpuReading:
    name = "H100 MIG 1g.10gb"
    return GpuReading(9, f"MIG-{place}", None, name, 0, 9000, mig_index=place, parent_uuid="GPU-9")


def test_where_all_are_certain_the_other_choice_decides() -> None:
    choice = NumberedByCuda(WHOLE_GPUS, 2, "run.export")

    assert choice.candidates([gpu(0, 1), gpu(1, 0)]) is None


def test_those_that_are_not_certain_are_left_out() -> None:
    choice = NumberedByCuda(WHOLE_GPUS, 2, "run.export")

    assert choice.candidates([gpu(0, 0), gpu(1, None), gpu(2, 1)]) == {"GPU-0", "GPU-2"}


def test_where_too_few_are_certain_the_key_and_the_cause_are_told() -> None:
    choice = NumberedByCuda(WHOLE_GPUS, 2, "run.export")

    with pytest.raises(InputError) as told:
        choice.candidates([gpu(0, 0), gpu(1, None, "Unknown Error"), gpu(2, None)])

    assert str(told.value) == (
        'run.export = "index", but CUDA\'s index of GPU 1 (GPU-1), 2 (GPU-2) is not certain: GPU 1:'
        ' Unknown Error; set run.export = "uuid"'
    )


def test_more_than_there_are_is_a_shortage_and_not_this() -> None:
    choice = NumberedByCuda(WHOLE_GPUS, 4, "run.export")

    assert choice.candidates([gpu(0, 0), gpu(1, None)]) == {"GPU-0"}


def test_an_instance_has_no_index_and_needs_none() -> None:
    gpus = [instance(0), instance(1), gpu(1, None)]

    by_profile = NumberedByCuda(ByProfile("1g.10gb"), 2, "run.export")
    assert by_profile.candidates(gpus) == {"MIG-0", "MIG-1"}
    whole = NumberedByCuda(WHOLE_GPUS, 1, "slurm.export")
    with pytest.raises(InputError, match="a GPU of this node is in MIG mode"):
        whole.candidates(gpus)


def test_only_the_named_gpus_count() -> None:
    gpus = [gpu(0, 0), gpu(1, None)]

    refuse_unnumbered(gpus, ["GPU-0"], "run.export")
    with pytest.raises(InputError, match="the driver does not tell the PCI addresses"):
        refuse_unnumbered(gpus, ["GPU-1"], "run.export")
