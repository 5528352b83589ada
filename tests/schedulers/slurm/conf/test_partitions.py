"""The partitions of a node: what ``slurm.conf`` says, read as Slurm reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from canhazgpu.errors import InputError
from canhazgpu.schedulers.slurm.conf.hostlist import expand_hostlist, hostlist_has
from canhazgpu.schedulers.slurm.conf.node_conf import read_node_conf

NODES = """\
NodeName=DEFAULT Feature=slow
NodeName=n1 Gres=gpu:1
NodeName=n[2-3] Features=fast,big(2)
"""


def partitions(text: str, node: str, directory: Path) -> tuple[str, ...]:
    conf = directory / "slurm.conf"
    conf.write_text(NODES + text)
    return read_node_conf(conf, node, node).partitions


@pytest.mark.parametrize(
    ("text", "n1", "n2"),
    [
        ("", (), ()),
        ("PartitionName=a Nodes=n1\nPartitionName=b Nodes=n[1-3]", ("a", "b"), ("b",)),
        ("PartitionName=a Nodes=ALL", ("a",), ("a",)),
        ("PartitionName=a Nodes=n1,n3 \\\n State=DOWN Hidden=YES", ("a",), ()),
        ('PartitionName=a\nPartitionName=b Nodes=""', (), ()),
        ("partitionname=a nodes=n02,n2", (), ("a",)),
        # The defaults are those of the lines behind them.
        (
            "PartitionName=a\nPartitionName=DEFAULT Nodes=n2\nPartitionName=b MaxTime=5\n"
            "PartitionName=DEFAULT MaxTime=1\nPartitionName=c\nPartitionName=d Nodes=n1",
            ("d",),
            ("b", "c"),
        ),
        ("NodeSet=s Nodes=n[2-9]\nPartitionName=a Nodes=s", (), ("a",)),
        ("PartitionName=a Nodes=n1,s\nNodeSet=s Feature=fast", ("a",), ("a",)),
        # Slurm takes the bracket for a part of the feature's name.
        ("NodeSet=s Feature=big\nPartitionName=a Nodes=s", (), ()),
        ("PartitionName=a Nodes=all", ("a",), ("a",)),
        ("NodeSet=s Feature=fast Nodes=n1\nPartitionName=a Nodes=s", ("a",), ("a",)),
        ("NodeSet=s Feature=slow\nPartitionName=a Nodes=s", ("a",), ()),
        ("NodeSet=s Feature=none Nodes=n1\nPartitionName=a Nodes=s", ("a",), ()),
    ],
)
def test_partitions(text: str, n1: tuple[str, ...], n2: tuple[str, ...], tmp_path: Path) -> None:
    assert partitions(text, "n1", tmp_path) == n1
    assert partitions(text, "n2", tmp_path) == n2


def test_a_list_that_cannot_be_read_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"slurm\.conf line 4: .*counts backwards|not a list"):
        partitions("PartitionName=a Nodes=n[x-y]", "n1", tmp_path)


LISTS = some.lists(
    some.sampled_from(
        ["n1", "n01", "n[1-3]", "n[01-12,40]", "r[1-2]n[8-11]", "gpu[5]-ib", "n[9-10]", "n"]
    ),
    min_size=1,
    max_size=3,
).map(",".join)
NAMES = [
    "n1",
    "n01",
    "n3",
    "n4",
    "n9",
    "n09",
    "n10",
    "n12",
    "n40",
    "r1n9",
    "gpu5-ib",
    "n",
    "nx",
    "gpu-ib",
]


@given(LISTS, some.sampled_from(NAMES))
def test_a_list_has_what_it_expands_to(text: str, name: str) -> None:
    assert hostlist_has(text, name) is (name in expand_hostlist(text))


def test_a_list_of_any_length_is_read() -> None:
    assert hostlist_has("n[1-99999999]", "n77777777")
    assert not hostlist_has("n[1-99999999]", "n" + "7" * 5000)
