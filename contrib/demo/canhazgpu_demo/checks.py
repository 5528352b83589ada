"""What the demonstration checks: the same commands people use, read by a program."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from canhazgpu_demo.console import require, wait_for
from canhazgpu_demo.environment import DemoEnvironment


def require_states(world: DemoEnvironment, node: str, **wanted: int) -> None:
    """Require that so many of the node's GPUs are in each state, and none in another."""
    gpus = world.status(node)
    seen = Counter(gpu["state"] for gpu in gpus)
    require(seen == Counter(wanted), f"on {node} the states {wanted}", json.dumps(gpus, indent=1))


def has_process(world: DemoEnvironment, node: str, pid: int) -> bool | None:
    """Return True when a GPU of the node shows the process, else None."""
    pids = {process["pid"] for gpu in world.status(node) for process in gpu["processes"]}
    return True if pid in pids else None


def wait_for_running_job(world: DemoEnvironment, node: str, job: int, user: str) -> list[str]:
    """Wait until the job's program runs; return its GPUs, which must be those reserved for it."""
    world.slurm.wait_job(job, ("RUNNING",))
    visible, program = wait_for(
        f"the program of job {job} at work", lambda: _job_output_lines(world, job, user)
    )
    told = visible.removeprefix("CUDA_VISIBLE_DEVICES=").split(",")
    require(json.loads(program)["gpus"] == told, f"the program on {told}", program)
    reserved = [gpu["uuid"] for gpu in world.status(node) if _is_reserved_for_job(gpu, job, user)]
    require(sorted(reserved) == sorted(told), f"{told} reserved for job {job}", reserved)
    return told


def requeued_job_record(world: DemoEnvironment, job: int) -> dict[str, str] | None:
    """Return the job's record when it waits again with a comment, else None."""
    record = world.slurm.job(job)
    require(record["JobState"] != "COMPLETED", f"job {job} not to run", record)
    waits = record["JobState"] == "PENDING" and record["Restarts"] == "1"
    return record if waits and "Comment" in record else None


def _job_output_lines(world: DemoEnvironment, job: int, user: str) -> tuple[str, str] | None:
    lines = world.slurm.output(job, user=user).splitlines()
    return (lines[0], lines[1]) if len(lines) == 2 else None


def _is_reserved_for_job(gpu: dict[str, Any], job: int, user: str) -> bool:
    reservation = gpu["reservation"] or {}
    return (reservation.get("job_id"), reservation.get("user")) == (str(job), user)
