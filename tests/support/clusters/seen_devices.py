"""What the tasks of a job on a real Slurm are told of its GPUs, and which of them they can open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from clusters.gpu_cluster import GpuCluster
from polling import poll_until

# A device that may be opened has no driver here (ENXIO); one that may not gives EPERM.
SHOW = r"""#!/bin/sh
can_open=
for device in {devices}/nvidia[0-9]* {devices}/nvidia-caps/*; do
    [ -e "$device" ] || continue
    error=$({{ : <"$device"; }} 2>&1)
    case $error in
    *"No such device or address"*) can_open="$can_open,${{device##*/}}" ;;
    *"Operation not permitted"*) ;;
    *) can_open="$can_open,unexpected:$error" ;;
    esac
done
printf 'SEEN|%s|%s|%s|%s|%s|%s|%s\n' "$1" "${{CUDA_VISIBLE_DEVICES-unset}}" "${{can_open#,}}" \
    "${{CUDA_DEVICE_ORDER-unset}}" "${{SLURM_JOB_GPUS-unset}}" "${{CANHAZGPU_GPUS-unset}}" \
    "${{SLURMD_NODENAME-unset}}"
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one task was told, and the names of the device files that it could open."""

    tag: str
    visible: str
    can_open: frozenset[str]
    order: str
    positions: str
    uuids: str
    node: str

    @property
    def minors(self) -> tuple[int, ...]:
        """The N of each `nvidiaN` that it could open."""
        names = (name.removeprefix("nvidia") for name in self.can_open)
        return tuple(sorted(int(name) for name in names if name.isdecimal()))


def install_show(cluster: GpuCluster) -> str:
    """Write the program that prints what a task sees, for the tag given; returns its path.

    It tries the device files of the cluster's first node.
    """
    path = cluster.root / "show"
    node = cluster.slurm.spec.node_names()[0]
    path.write_text(SHOW.format(devices=cluster.slurm.layout.devices(node)))
    path.chmod(0o755)
    return str(path)


def seen_in(output: str) -> list[Seen]:
    """What the tasks saw that printed this."""
    found = []
    for line in output.splitlines():
        if line.startswith("SEEN|"):
            _, tag, visible, can_open, *others = line.split("|")
            opened = frozenset(name for name in can_open.split(",") if name)
            found.append(Seen(tag, visible, opened, *others))
    return found


@contextmanager
def submitted(cluster: GpuCluster, script: str, *args: str, user: str) -> Iterator[int]:
    """A job that is over afterwards, however the test ends."""
    job = cluster.slurm.submit(script, *args, user=user)
    try:
        yield job
    finally:
        cluster.slurm.run(["scancel", str(job)], check=True)
        cluster.slurm.wait_job(job)


def first_task(cluster: GpuCluster, job: int, user: str) -> Seen:
    """What the first task of a running job sees."""
    return poll_until(lambda: seen_in(cluster.slurm.output(job, user=user)))[0]


def run_job(cluster: GpuCluster, script: str, *args: str, user: str) -> dict[str, list[Seen]]:
    """Run a job to its end; returns what its tasks saw, by tag."""
    with submitted(cluster, script, *args, user=user) as job:
        ended = cluster.slurm.wait_job(job)
        output = cluster.slurm.output(job, user=user)
        assert ended["JobState"] == "COMPLETED", output
    by_tag: dict[str, list[Seen]] = {}
    for one in seen_in(output):
        by_tag.setdefault(one.tag, []).append(one)
    return by_tag


def assert_all_free(cluster: GpuCluster) -> None:
    """No GPU is held once the nodes are idle and the store knows everything."""
    cluster.slurm.wait_nodes_idle()
    cluster.settle()
    for node in cluster.slurm.spec.node_names():
        assert cluster.held(node) == {}
