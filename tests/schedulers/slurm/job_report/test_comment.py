"""The line in a job's AdminComment."""

from __future__ import annotations

import pytest

from canhazgpu.schedulers.slurm.job_report.comment import (
    MAX_LENGTH,
    MAX_NODES,
    is_ours,
    merged_comment,
    short_product,
    tells,
    use_line,
)

USE = {"driver": [["1", None, 81_920, None], ["0", 72_704, 81_920, 83]]}
LINE = "GPU 0 H100: peak 71 of 80 GB, 83 % busy; GPU 1 H100: never used"


def test_a_line_tells_of_each_gpu() -> None:
    assert use_line(USE, dict.fromkeys("01", "NVIDIA H100 80GB HBM3")) == LINE
    assert use_line(USE, {}) == LINE.replace(" H100", "")
    assert use_line({}, {}) == ""


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA GeForce RTX 4090", "4090"),
        ("NVIDIA RTX A6000", "A6000"),
        ("NVIDIA L40S", "L40S"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("Graphics Device", ""),
        ("NVIDIA A100", "A100"),
        ("<b>A100</b>\u202e\x1b[31m", ""),
        ("A" * 1_000_000 + " H100", ""),
    ],
)
def test_a_products_name_is_one_word_of_it(name: str, short: str) -> None:
    assert short_product(name) == short


def test_hostile_values_leave_nothing_but_plain_characters() -> None:
    use = {"driver": [["0\x1b[31m", 1, 1, 1], ["1", 1024, 2048, 50]], "scans": [["2", 1e300, {}]]}
    assert use_line(use, {"1": "\u202eX\x1b A100|n9: gpu"}) == ("GPU 1: peak 1 of 2 GB, 50 % busy")
    many = {"driver": [[str(place), 1, 1, 1] for place in range(5000)]}
    assert len(use_line(many, {})) == MAX_LENGTH


@pytest.mark.parametrize("comment", ["", "  ", "canhazgpu: GPU 0: x", "CANHAZGPU: gpu 0"])
def test_what_is_empty_or_ours_may_be_replaced(comment: str) -> None:
    assert is_ours(comment)


@pytest.mark.parametrize("comment", ["{'elastic': 1}", "see canhazgpu: x", "canhazgpu"])
def test_what_others_wrote_may_not(comment: str) -> None:
    assert not is_ours(comment)


def test_each_node_of_a_job_has_a_part() -> None:
    first = merged_comment("", "n10", LINE, 2)
    both = merged_comment(first.lower(), "n2", "GPU 3: never used", 2)
    assert both == f"canhazgpu: n2: GPU 3: never used | n10: {LINE.lower()}"
    assert tells(both, "n10", LINE)
    assert tells(both, "N2", "GPU 3: never used")
    assert not tells(first, "n2", "GPU 3: never used")
    assert merged_comment("", "n1", LINE, 1) == f"canhazgpu: {LINE}"


def test_of_many_nodes_one_is_told_of() -> None:
    told = merged_comment("", "n0", LINE, MAX_NODES + 1)
    assert told == f"canhazgpu: n0, one of 9 nodes: {LINE}"
