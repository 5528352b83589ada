"""Which nodes have GPUs that jobs can share, and how many units of each, by Slurm's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from canhazgpu.schedulers.slurm.conf.node_conf import SlurmNodeConf, read_node_conf
from canhazgpu.schedulers.slurm.conf.shared_gres import units_of_one_gpu


def conf(directory: Path, slurm: str, gres: str = "") -> SlurmNodeConf:
    (directory / "slurm.conf").write_text(slurm + "\n")
    (directory / "gres.conf").write_text(gres + "\n")
    return read_node_conf(directory / "slurm.conf", "n1", "n1")


@pytest.mark.parametrize(
    ("gres", "units"),
    [
        ("gpu:4", {}),
        ("gpu:4,shard:16", {"shard": 16}),
        ("gpu:a100:4,shard:a100:16", {"shard": 16}),
        ("gpu:4,mps:400", {"mps": 400}),
        ("gpu:a:2,gpu:b:2,shard:a:8,shard:b:4", {"shard": 12}),
        ("gpu:4,MPS:no_consume:400", {"mps": 400}),
        ("gpu:4,shard:2K", {"shard": 2048}),
        ("gpu:4,shard", {"shard": None}),
        ("gpu:shard:4", {}),
        ("gpu:4,shards:3", {}),
    ],
)
def test_what_the_node_shares(tmp_path: Path, gres: str, units: dict[str, int | None]) -> None:
    found = conf(tmp_path, f"GresTypes=gpu,shard,mps\nNodeName=n1 Gres={gres}")
    assert found.shared_gres == units


def test_another_nodes_shares_are_none_of_this_one(tmp_path: Path) -> None:
    text = "GresTypes=gpu,shard\nNodeName=n1 Gres=gpu:4\nNodeName=n2 Gres=gpu:4,shard:16"
    assert conf(tmp_path, text).shared_gres == {}


def test_a_default_line_counts(tmp_path: Path) -> None:
    text = "GresTypes=gpu,shard\nNodeName=DEFAULT Gres=gpu:4,shard:16\nNodeName=n[1-2]"
    assert conf(tmp_path, text).shared_gres == {"shard": 16}


def test_a_node_that_the_file_does_not_name_may_have_every_type(tmp_path: Path) -> None:
    text = "GresTypes=gpu,Shard\nNodeName=n2 Gres=gpu:4"
    assert conf(tmp_path, text).shared_gres == {"shard": None}


@pytest.mark.parametrize(
    ("gres", "units"),
    [
        ("Name=shard Count=16", 4),
        ("", 4),
        ("Name=gpu File=/dev/nvidia[0-3]", 4),
        ("Name=shard Count=8 File=/dev/nvidia[0-3]", 2),
        ("Name=shard Count=2 File=/dev/nvidia0\nName=shard Count=2 File=/dev/nvidia1", 2),
        ("Name=shard Count=2 File=/dev/nvidia0\nName=shard Count=4 File=/dev/nvidia1", 0),
        ("Name=shard Count=15", 0),
        ("NodeName=n2 Name=shard Count=8\nNodeName=n1 Name=Shard Count=32", 8),
        ("Name=shard Count=1K", 256),
    ],
)
def test_the_units_of_one_gpu(tmp_path: Path, gres: str, units: int) -> None:
    found = conf(tmp_path, "NodeName=n1 Gres=gpu:4,shard:16", gres)
    assert units_of_one_gpu("shard", 16, found.gres, "n1", found.gpu_count) == units


def test_without_a_count_the_units_are_not_known() -> None:
    assert units_of_one_gpu("shard", None, [], "n1", 4) == 0
    assert units_of_one_gpu("shard", 16, [], "n1", None) == 0
