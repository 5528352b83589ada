"""What a real squeue says of jobs with hostile names."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import pytest
from polling import poll_until

from canhazgpu.config.schema import SlurmConfig
from canhazgpu.schedulers.slurm.control.job_lookup import (
    SqueueLookup,
    node_arguments,
    parse_squeue,
    squeue_environment,
)
from canhazgpu.status.scheduler_jobs import JobInfo
from demo_cluster import (
    ClusterSpec,
    PrivateSlurm,
    ensure_users,
    missing_requirements,
    new_directory,
    remove_users,
)

pytestmark = pytest.mark.release

USER = f"demo-alice{os.getpid()}"


@pytest.fixture
def slurm() -> Iterator[PrivateSlurm]:
    if missing := missing_requirements():
        message = f"a private Slurm needs {', '.join(missing)}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    created = ensure_users([USER])
    with PrivateSlurm(new_directory(), ClusterSpec(nodes=1, gpus_per_node=1)) as cluster:
        yield cluster
        cluster.stop(delete=True)
    remove_users(created)


@pytest.mark.slurm
def test_names_and_ends_of_running_jobs(slurm: PrivateSlurm) -> None:
    # Given two running jobs, whose names hold the separator and a forged record
    piped = slurm.submit("sleep 60", "-J", "a|b c", "-t", "10", user=USER)
    forged = slurm.submit("sleep 60", "-J", f"x\n{piped}|1|root|y", "-t", "5", user=USER)
    slurm.wait_job(piped, states={"RUNNING"})
    environ = {**slurm.env(USER), "SQUEUE_USERS": "root"}
    lookup = SqueueLookup(SlurmConfig(), environ)

    # If the node's jobs are asked for
    marker = "5f2c8e0d91b7a364"
    arguments = ["squeue", *node_arguments("n1", marker)]
    asked_as = squeue_environment(environ)

    def jobs() -> dict[str, JobInfo]:
        done = subprocess.run(arguments, env=asked_as, capture_output=True, text=True, check=True)
        return parse_squeue(done.stdout, marker)

    found = poll_until(lambda: len(asked := jobs()) == 2 and asked)

    # I expect each with its own name, user and end
    assert set(found) == {str(piped), str(forged)}
    assert (found[str(piped)].name, found[str(piped)].user) == ("a|b c", USER)
    assert found[str(forged)].name == "x"
    ends_at = found[str(piped)].ends_at
    assert ends_at is not None
    assert 500 < ends_at - time.time() < 601

    # And of one that runs, one that is held and one that is unknown the present state
    runs = lookup.job_now(str(piped))
    assert runs is not None
    assert (runs.state, runs.user, runs.nodes, runs.is_held) == ("RUNNING", USER, "n1", False)
    assert runs.ends_at == ends_at and runs.starts_at == pytest.approx(ends_at - 600, abs=1)
    slurm.run(["scontrol", "requeuehold", str(piped)], check=True)
    slurm.wait_job(piped, states={"PENDING"})
    held = lookup.job_now(str(piped))
    assert held is not None
    assert (held.state, held.is_held, held.address) == ("PENDING", True, str(piped))
    assert lookup.job_now("424242") is None
