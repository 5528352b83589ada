"""Hooks and the health check publish the partitions of their node."""

from __future__ import annotations

from typing import Any

import pytest
from hook_jobs import job_variables

pytestmark = pytest.mark.slow


def check(node: Any) -> None:
    """Run the check with the environment that slurmd gives it."""
    squeue = node.files / "bin" / "squeue"
    squeue.write_text("#!/bin/sh\n")
    squeue.chmod(0o755)
    environ = {name: value for name, value in node.environ().items() if "JOB" not in name}
    done = node.python("-m", "canhazgpu.epilog.health_check", environ=environ)
    assert (done.stdout, done.returncode) == ("", 0)


@pytest.mark.parametrize("program", ["check", "prolog"])
def test_it_publishes_the_partitions_of_slurms_file(node: Any, program: str) -> None:
    conf = node.files / "slurm.conf"
    before = conf.read_text()
    runs = {
        "check": lambda: check(node),
        "prolog": lambda: node.run("prolog", **job_variables(1)),
    }
    conf.write_text(f"{before}PartitionName=gpu Nodes=n[1-9]\nPartitionName=cpu Nodes=m1\n")
    runs[program]()
    assert node.view().partitions == ("gpu",)
    at = node.view().partitions_at
    # A line that cannot be read leaves them as they were published, with their time.
    conf.write_text(f"{before}PartitionName=gpu Nodes=n[x]\n")
    check(node)
    assert (node.view().partitions, node.view().partitions_at) == (("gpu",), at)
    conf.write_text(before)
    check(node)
    assert node.view().partitions == ()
