"""What `slurmd -G` prints, as GPUs in Slurm's order."""

from __future__ import annotations

import pytest

from canhazgpu.errors import InputError
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.control.slurmd_output import parse_slurmd_gpus

RECORD = "slurmd: Gres Name=gpu Type={} Count={} Index=1 ID=7696487 File={}\n"


@pytest.mark.parametrize(
    ("kind", "count", "files", "expected"),
    [
        ("(null)", 2, "/dev/nvidia[0-1] (null)", [["/dev/nvidia0"], ["/dev/nvidia1"]]),
        ("a", 1, "/dev/nvidia0 Cores=0-3 CoreCnt=8 Links=-1,4", [["/dev/nvidia0"]]),
        # Values in quotes may have blanks.
        ("a", 2, "/dev/b, /dev/a Links=-1", [["/dev/b"], ["/dev/a"]]),
        ("a", 2, " /dev/b\t/dev/a  (null)", [["/dev/b"], ["/dev/a"]]),
        ("m", 1, "/dev/nvidia0,/dev/cap[1-2]", [["/dev/nvidia0", "/dev/cap1", "/dev/cap2"]]),
    ],
)
def test_a_record_gives_its_gpus(
    kind: str, count: int, files: str, expected: list[list[str]]
) -> None:
    found = parse_slurmd_gpus(RECORD.format(kind, count, files))
    named = "" if kind == "(null)" else kind
    assert found == tuple(GpuDevice(named, tuple(one)) for one in expected)


def test_files_unlike_the_count_are_refused() -> None:
    with pytest.raises(InputError, match="3 GPUs with the files /dev/nvidia\\[0-1\\]"):
        parse_slurmd_gpus(RECORD.format("a", 3, "/dev/nvidia[0-1] (null)"))
