"""What a job got while the store was away, nobody else gets once it is back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest
from hosts.shared_host import NODE, SharedHost

pytestmark = pytest.mark.slow


@pytest.fixture
def host(make_host: Callable[..., SharedHost]) -> SharedHost:
    """A host of four GPUs; a job has the first two, of which the store has heard nothing."""
    host = make_host(4, persist=True)
    host.redis.kill()
    (host.root / "slurm.conf").write_text(f"NodeName={NODE} Gres=gpu:4\n")
    (host.root / "gres.conf").write_text("Name=gpu File=/dev/nvidia[0-3]\n")
    hook(host, "prolog")
    host.redis.start()
    return host


def hook(host: SharedHost, name: str) -> None:
    job = {
        "SLURMD_NODENAME": NODE,
        "SLURM_CLUSTER_NAME": "c1",
        "SLURM_CONF": str(host.root / "slurm.conf"),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_UID": "1000",
        "SLURM_JOB_USER": "ann",
        "SLURM_JOB_GPUS": "0,1",
    }
    done = subprocess.run(
        [host.program.with_name(f"canhazgpu-{name}")],
        env=host.environ(**job),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def states(host: SharedHost, user: str) -> list[tuple[int, str]]:
    answer = json.loads(host.call("status", "--json", user=user).stdout)
    return [(gpu["index"], gpu["state"]) for node in answer["nodes"] for gpu in node["gpus"]]


def test_no_person_gets_it(host: SharedHost, people: tuple[str, ...]) -> None:
    ann, bob, *_ = people
    assert host.view().reservations == {}
    refused = host.call("run", "--gpus", "3", "--wait", "1s", "--", "true", user=ann)
    assert refused.returncode == 75, refused
    named = host.call("reserve", "--gpu-ids", "1", "--wait", "1s", user=ann)
    assert named.returncode == 75, named
    assert "job 7" in named.stderr or "ann" in named.stderr
    granted = host.call("reserve", "--gpus", "2", user=ann)
    assert granted.returncode == 0, granted
    held = {gpu.index for gpu in host.node.gpus if gpu.uuid in host.view().reservations}
    assert held == {2, 3}
    assert states(host, bob) == [(index, "reserved") for index in range(4)]


def test_root_tells_the_store(host: SharedHost, people: tuple[str, ...]) -> None:
    assert host.view().reservations == {}
    assert host.call("status").returncode == 0
    owners = {one.claim.owner for one in host.view().reservations.values()}
    assert owners == {"job:c1:7:0"}
    assert not (host.root / "run" / "store-outage").exists()
    hook(host, "epilog")
    assert host.view().reservations == {}
