"""What a job made of its GPUs, as people read it."""

from __future__ import annotations

from typing import Any

import pytest

from canhazgpu.gpu.use_text import use_texts


def test_each_gpu_has_a_text() -> None:
    use = {
        "driver": [["0", 72704, 81559, 83], ["1", None, 81559, None], ["2:1", None, None, 5]],
        "scans": [["3", 7200, 14400]],
    }
    assert list(use_texts(use)) == [
        "GPU 0: peak 71 of 80 GB, 83 % busy",
        "GPU 1: never used",
        "GPU 2:1: 5 % busy",
        "GPU 3: unused for 2h of 4h, by scans",
    ]


@pytest.mark.parametrize(
    "use",
    [None, 1, "x", [], {"driver": 1}, {"driver": [1, [], [1, 2, 3, 4]]}, {"scans": [["0"]]},
     {"scans": [["0", "x", {}]]}, {"driver": [["\x1b[31m", 1, 2, 3]]},
     {"driver": [["0" * 1000, 1, 2, 3]]}],
)  # fmt: skip
def test_anything_else_is_left_out(use: Any) -> None:
    assert list(use_texts(use)) == []
