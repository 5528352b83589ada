"""What the demonstration shows. Every step checks by program what it shows to people."""

from __future__ import annotations

import subprocess
from pathlib import Path

from canhazgpu_demo.checks import (
    has_process,
    requeued_job_record,
    require_states,
    wait_for_running_job,
)
from canhazgpu_demo.console import heading, require, say, wait_for
from canhazgpu_demo.environment import GPUS_PER_NODE, DemoEnvironment

JOB = """\
#!/bin/sh
echo "CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES"
exec gpu-process --memory-mb 8000 --seconds 600 --name train.py
"""
JOB_MEMORY_MB = 8000
INTRUDER_MEMORY_MB = 20000


class Scenario:
    """The steps, in their order; each builds on what the last one left."""

    def __init__(self, world: DemoEnvironment, picture: Path | None = None) -> None:
        """Take the world; `picture` is the file for a picture of the page, None for none."""
        self.environment = world
        self.picture = picture
        self.users = world.users
        self.jobs: list[int] = []

    def run(self) -> None:
        for user in (self.users.alice, self.users.bob):
            (self.environment.slurm.home(user) / "train.sh").write_text(JOB)
        self.show_free_gpus()
        self.show_jobs_reserving()
        intruder = self.show_unreserved_use()
        self.show_requeue_on_conflict(intruder)
        self.show_canhazgpu_assignment()
        if self.picture is not None:
            self.environment.take_picture(self.picture.absolute())
        self.show_release(intruder)

    def show_free_gpus(self) -> None:
        heading("1. Every GPU is free")
        self.environment.run_shell_command(self.users.alice, "n1", "canhazgpu status")
        for node in ("n1", "n2"):
            require_states(self.environment, node, available=GPUS_PER_NODE)

    def show_jobs_reserving(self) -> None:
        heading("2. Jobs reserve their GPUs by themselves")
        say("Two people submit as ever. Slurm's prolog reserves; each job sees its own GPUs.\n")
        owners = {
            self._submit(user, "n1", gpus=2): user for user in (self.users.alice, self.users.bob)
        }
        first, second = (
            wait_for_running_job(self.environment, "n1", job, user) for job, user in owners.items()
        )
        require(not set(first) & set(second), "different GPUs for the two jobs", (first, second))
        for job, user in owners.items():
            self.environment.run_shell_command(user, "n1", f"head -n 1 slurm-{job}.out")
        self.environment.run_shell_command(self.users.alice, "n1", "canhazgpu status --node n1")
        require_states(self.environment, "n1", reserved=GPUS_PER_NODE)
        for gpu in self.environment.status("n1"):
            require(gpu["reservation"]["type"] == "slurm", "reservations of type slurm", gpu)
            require(gpu["memory_used_mb"] >= JOB_MEMORY_MB, "the job's memory in use", gpu)

    def show_unreserved_use(self) -> subprocess.Popen[str]:
        heading("3. Somebody uses a GPU without a reservation")
        intruder = self.environment.start(
            self.users.carol,
            "n2",
            f"gpu-process --gpu 0 --memory-mb {INTRUDER_MEMORY_MB} --name jupyter",
        )
        wait_for(
            f"process {intruder.pid} on a GPU",
            lambda: has_process(self.environment, "n2", intruder.pid),
        )
        text = self.environment.run_shell_command(
            self.users.alice, "n2", "canhazgpu status --node n2"
        )
        for part in (self.users.carol, "WITHOUT RESERVATION", f"PID {intruder.pid}", "jupyter"):
            require(part in text, f"{part!r} in the table", text)
        require_states(self.environment, "n2", unreserved=1, available=GPUS_PER_NODE - 1)
        return intruder

    def show_requeue_on_conflict(self, intruder: subprocess.Popen[str]) -> None:
        heading("4. A job that would have met that process goes back into the queue")
        say("Slurm does not know of it and gives the next job that very GPU. Here Slurm's choice")
        say('binds (slurm.assignment = "slurm"), so the prolog sends the job back, and says why.\n')
        user = self.users.bob
        job = self._submit(user, "n2", gpus=1)
        record = wait_for(
            f"job {job} back in the queue", lambda: requeued_job_record(self.environment, job)
        )
        self.environment.run_shell_command(
            user, "n2", f"scontrol show job {job} | grep -E 'JobState|Comment'"
        )
        for part in (self.users.carol, str(intruder.pid)):
            require(part in record["Comment"], f"{part!r} in the job's comment", record["Comment"])
        self.environment.slurm.wait_job(job, ("PENDING",))
        self.environment.run_shell_command(
            user, "n2", "sinfo --noheader --Node --nodes=n2 --format='%N is %T'"
        )
        states = self.environment.slurm.node_states()
        require(states["n2"] == "idle", "n2 up and idle", states)
        output = self.environment.slurm.output(job, user=user)
        require("CUDA_VISIBLE_DEVICES" not in output, "a script that never started", output)
        require_states(self.environment, "n2", unreserved=1, available=GPUS_PER_NODE - 1)

    def show_canhazgpu_assignment(self) -> None:
        heading("5. Or canhazgpu picks a clean GPU, and the job runs")
        say("Where no cgroup ties a job to Slurm's devices, Slurm may count and canhazgpu choose")
        say('(slurm.assignment = "canhazgpu"). Slurm gives the next job GPU 0, which is taken:\n')
        self.environment.paths.write_config("canhazgpu")
        user = self.users.alice
        job = self._submit(user, "n2", gpus=1)
        uuids = wait_for_running_job(self.environment, "n2", job, user)
        self.environment.run_shell_command(
            user, "n2", f"scontrol show job --details {job} | grep -o 'GRES=gpu.*IDX.*'"
        )
        self.environment.run_shell_command(user, "n2", f"head -n 1 slurm-{job}.out")
        self.environment.run_shell_command(user, "n2", "canhazgpu status --node n2")
        taken = self.environment.status("n2")[0]["uuid"]
        require(taken not in uuids, f"any GPU but {taken}", uuids)
        require_states(
            self.environment, "n2", reserved=1, unreserved=1, available=GPUS_PER_NODE - 2
        )

    def show_release(self, intruder: subprocess.Popen[str]) -> None:
        heading("6. The jobs end, the process is gone: everything is free")
        self.environment.end(intruder)
        self.environment.run_slurm_command(["scancel", *(str(job) for job in self.jobs)])
        for job in self.jobs:
            self.environment.slurm.wait_job(job)
        self.environment.slurm.wait_nodes_idle()
        self.environment.run_shell_command(self.users.alice, "n1", "canhazgpu status")
        for node in ("n1", "n2"):
            require_states(self.environment, node, available=GPUS_PER_NODE)

    def _submit(self, user: str, node: str, *, gpus: int) -> int:
        command = f"sbatch --nodelist={node} --gres=gpu:{gpus} --time=30 train.sh"
        job = int(self.environment.run_shell_command(user, node, command).split()[-1])
        self.jobs.append(job)
        return job
