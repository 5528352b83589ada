"""What tasks of a real Slurm see, with and without device cgroups: their own GPUs, by UUID.

The job under test holds the GPUs in the places 1 and 2; the prolog here only writes the record.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hosts.no_agent import NO_AGENT

from canhazgpu.templates.render import render
from demo_cluster import (
    ClusterSpec,
    PrivateSlurm,
    ensure_users,
    missing_requirements,
    new_directory,
    remove_users,
)
from demo_cluster.host.processes import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.release]

USER = f"demo-alice{os.getpid()}"
MINORS = (107, 103, 150, 111)
BOTH = "GPU-103,GPU-150"

PROLOG = """#!/bin/sh
PATH=/usr/bin:/bin
[ -n "$SLURM_JOB_GPUS" ] || exit 0
set -- {minors}
record={state}/$SLURMD_NODENAME/jobs/$SLURM_JOB_ID.env
mkdir -p "${{record%/*}}"
{{
    echo 'canhazgpu 1'
    echo 'constrained {constrained}'
    echo 'export uuid'
    position=0
    for minor in "$@"; do
        case ,$SLURM_JOB_GPUS, in
        *,$position,*) echo "gpu $position GPU-$minor $position {devices}/nvidia$minor" ;;
        esac
        position=$((position + 1))
    done
}} >"$record"
"""

SAY = """'echo "$SLURM_PROCID:${CUDA_VISIBLE_DEVICES-unset}"'"""

ONE_EACH = ["0:GPU-103", "1:GPU-150"]

# Each with what its tasks see without and with device cgroups, where Slurm itself gives other GPUs.
STEPS = {
    "plain": (f"srun -n1 sh -c {SAY}", [f"0:{BOTH}"], [f"0:{BOTH}"]),
    "one task each": (f"srun -n2 --gpus-per-task=1 sh -c {SAY}", ONE_EACH, ONE_EACH),
    "single": (f"srun -n2 --gpu-bind=single:1 sh -c {SAY}", ONE_EACH, ONE_EACH),
    "map": (
        f"srun -n2 --gpu-bind=map_gpu:1,0 sh -c {SAY}",
        ["0:GPU-103", "1:GPU-103"],
        ["0:GPU-150", "1:GPU-103"],
    ),
    # Slurm's own number leaves out one of the two GPUs that the second task may open (22.05).
    "mask": (
        f"srun -n2 --gpu-bind=mask_gpu:2,3 sh -c {SAY}",
        ["0:GPU-103", "1:GPU-103"],
        ["0:GPU-150", f"1:{BOTH}"],
    ),
    # Slurm binds no GPU and sets nothing (22.05) or wrong numbers (24.11); the device cgroup, where
    # there is one, leaves the job's.
    "bound to none": (
        f"srun -n2 --gpu-bind=none sh -c {SAY}",
        [f"0:{BOTH}", f"1:{BOTH}"],
        [f"0:{BOTH}", f"1:{BOTH}"],
    ),
    "two steps": (
        f"srun --exact -n1 --gres=gpu:1 sh -c {SAY[:-1]}; sleep 3' & sleep 1; "
        f"srun --exact -n1 --gres=gpu:1 sh -c {SAY}; wait",
        ["0:GPU-103", "0:GPU-150"],
        ["0:GPU-103", "0:GPU-150"],
    ),
    "none": (f"srun -n1 --gres=none sh -c {SAY}", ["0:unset"], ["0:unset"]),
    "nested": (
        f"srun -n1 --gres=gpu:1 srun -n1 --overlap sh -c {SAY}",
        [f"0:{BOTH}"],
        [f"0:{BOTH}"],
    ),
    "forged": (
        f"export CUDA_VISIBLE_DEVICES=0 SLURM_STEP_GPUS=0 SLURM_JOB_GPUS=0; srun -n1 sh -c {SAY}",
        [f"0:{BOTH}"],
        [f"0:{BOTH}"],
    ),
    "no PATH": (f"srun -n1 --export=NONE /bin/sh -c {SAY}", [f"0:{BOTH}"], [f"0:{BOTH}"]),
}


@dataclass(frozen=True)
class World:
    slurm: PrivateSlurm
    state: Path
    constrained: bool


@pytest.fixture(scope="module", params=[False, True], ids=["unconstrained", "constrained"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if missing := missing_requirements():
        pytest.skip(f"a private Slurm needs {', '.join(missing)}")
    created = ensure_users([USER])
    hooks, directory = new_directory(), new_directory()
    state = hooks / "state"
    task_prolog, prolog = hooks / "task_prolog.sh", hooks / "prolog.sh"
    task_prolog.write_text(render("task_prolog.sh", {"state_dir": f"{state}/%n", **NO_AGENT}))
    spec = ClusterSpec(
        nodes=1,
        minors=(MINORS,),
        constrain_devices=request.param,
        prolog=prolog,
        task_prolog=task_prolog,
    )
    slurm = PrivateSlurm(directory, spec)
    prolog.write_text(
        PROLOG.format(
            minors=" ".join(map(str, MINORS)),
            state=state,
            constrained=int(request.param),
            devices=slurm.layout.devices("n1"),
        )
    )
    for script in (task_prolog, prolog):
        script.chmod(0o755)
    with slurm:
        holder = slurm.submit("sleep 600", "--gres=gpu:1", user=USER)
        slurm.wait_job(holder, states=("RUNNING",))
        yield World(slurm, state, request.param)
        slurm.stop(delete=True)
    shutil.rmtree(hooks)
    remove_users(created)


def output(world: World, script: str, *arguments: str) -> list[str]:
    job = world.slurm.submit(script, "--gres=gpu:2", "-n2", *arguments, user=USER)
    world.slurm.wait_job(job)
    lines = world.slurm.output(job, user=USER).splitlines()
    return sorted(line for line in lines if "Bind request" not in line)


def test_a_batch_script_sees_the_jobs_gpus(world: World) -> None:
    assert output(world, 'echo "$CUDA_VISIBLE_DEVICES"') == [BOTH]


@pytest.mark.parametrize(("script", "free", "constrained"), STEPS.values(), ids=list(STEPS))
def test_a_step_sees_its_own(
    world: World, script: str, free: list[str], constrained: list[str]
) -> None:
    assert output(world, script) == (constrained if world.constrained else free)


@contextlib.contextmanager
def closed(path: Path, mode: int) -> Iterator[None]:
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)


@contextlib.contextmanager
def damaged(path: Path) -> Iterator[None]:
    path.write_text("canhazgpu 1\n")
    yield


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        ("damaged", "{record} is not what canhazgpu's prolog writes"),
        ("unreadable", "{record} is not what canhazgpu's prolog writes"),
        ("hidden", "{state} cannot be searched for canhazgpu's record of this job"),
    ],
)
def test_a_record_that_cannot_be_read_gives_a_task_what_slurm_itself_keeps_it_to(
    world: World, harm: str, reason: str
) -> None:
    script = f"""
      echo started
      until [ -e go{harm} ]; do sleep .1; done
      srun -n1 sh -c {SAY}
    """
    job = world.slurm.submit(script, "--gres=gpu:2", "-n2", user=USER)
    assert wait_until(lambda: "started" in world.slurm.output(job, user=USER), timeout_s=60)
    record = world.state / "n1" / "jobs" / f"{job}.env"
    harms = {
        "damaged": lambda: damaged(record),
        "unreadable": lambda: closed(record, 0o600),
        "hidden": lambda: closed(world.state, 0o700),
    }
    with harms[harm]():
        world.slurm.run(["touch", f"go{harm}"], user=USER, check=True)
        world.slurm.wait_job(job)

    why = reason.format(record=record, state=world.state)
    assert world.slurm.output(job, user=USER).splitlines() == (
        ["started", "0:0,1"]
        if world.constrained
        else [
            "started",
            f"canhazgpu: this task sees no GPU: {why}; tell the administrator",
            "0:",
        ]
    )
