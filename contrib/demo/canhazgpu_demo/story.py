"""What the demonstration shows. Every step checks by program what it shows to people."""

from __future__ import annotations

import subprocess

from canhazgpu_demo.console import heading, require, say, wait_for
from canhazgpu_demo.look import has_process, require_states, sent_back, wait_until_at_work
from canhazgpu_demo.world import GPUS_PER_NODE, World

JOB = """\
#!/bin/sh
echo "CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES"
exec gpu-process --memory-mb 8000 --seconds 600 --name train.py
"""
JOB_MEMORY_MB = 8000
INTRUDER_MEMORY_MB = 20000


class Story:
    """The steps, in their order; each builds on what the last one left."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.people = world.people
        self.jobs: list[int] = []

    def tell(self) -> None:
        for user in (self.people.alice, self.people.bob):
            (self.world.slurm.home(user) / "train.sh").write_text(JOB)
        self.everything_is_free()
        self.jobs_reserve_by_themselves()
        intruder = self.somebody_takes_a_gpu()
        self.slurms_choice_is_refused(intruder)
        self.canhazgpus_choice_avoids_it()
        self.everything_is_free_again(intruder)

    def everything_is_free(self) -> None:
        heading("1. Every GPU is free")
        self.world.shell(self.people.alice, "n1", "canhazgpu status")
        for node in ("n1", "n2"):
            require_states(self.world, node, available=GPUS_PER_NODE)

    def jobs_reserve_by_themselves(self) -> None:
        heading("2. Jobs reserve their GPUs by themselves")
        say("Two people submit as ever. Slurm's prolog reserves; each job sees its own GPUs.\n")
        owners = {
            self._submit(user, "n1", gpus=2): user for user in (self.people.alice, self.people.bob)
        }
        first, second = (
            wait_until_at_work(self.world, "n1", job, user) for job, user in owners.items()
        )
        require(not set(first) & set(second), "different GPUs for the two jobs", (first, second))
        for job, user in owners.items():
            self.world.shell(user, "n1", f"head -n 1 slurm-{job}.out")
        self.world.shell(self.people.alice, "n1", "canhazgpu status --node n1")
        require_states(self.world, "n1", reserved=GPUS_PER_NODE)
        for gpu in self.world.status("n1"):
            require(gpu["reservation"]["type"] == "slurm", "reservations of type slurm", gpu)
            require(gpu["memory_used_mb"] >= JOB_MEMORY_MB, "the job's memory in use", gpu)

    def somebody_takes_a_gpu(self) -> subprocess.Popen[str]:
        heading("3. Somebody uses a GPU without a reservation")
        intruder = self.world.start(
            self.people.carol,
            "n2",
            f"gpu-process --gpu 0 --memory-mb {INTRUDER_MEMORY_MB} --name jupyter",
        )
        wait_for(
            f"process {intruder.pid} on a GPU", lambda: has_process(self.world, "n2", intruder.pid)
        )
        text = self.world.shell(self.people.alice, "n2", "canhazgpu status --node n2")
        for part in (self.people.carol, "WITHOUT RESERVATION", f"PID {intruder.pid}", "jupyter"):
            require(part in text, f"{part!r} in the table", text)
        require_states(self.world, "n2", unreserved=1, available=GPUS_PER_NODE - 1)
        return intruder

    def slurms_choice_is_refused(self, intruder: subprocess.Popen[str]) -> None:
        heading("4. A job that would have met that process goes back into the queue")
        say("Slurm does not know of it and gives the next job that very GPU. Here Slurm's choice")
        say('binds (slurm.assignment = "slurm"), so the prolog sends the job back, and says why.\n')
        user = self.people.bob
        job = self._submit(user, "n2", gpus=1)
        record = wait_for(f"job {job} back in the queue", lambda: sent_back(self.world, job))
        self.world.shell(user, "n2", f"scontrol show job {job} | grep -E 'JobState|Comment'")
        for part in (self.people.carol, str(intruder.pid)):
            require(part in record["Comment"], f"{part!r} in the job's comment", record["Comment"])
        self.world.slurm.wait_job(job, ("PENDING",))
        self.world.shell(user, "n2", "sinfo --noheader --Node --nodes=n2 --format='%N is %T'")
        states = self.world.slurm.node_states()
        require(states["n2"] == "idle", "n2 up and idle", states)
        output = self.world.slurm.output(job, user=user)
        require("CUDA_VISIBLE_DEVICES" not in output, "a script that never started", output)
        require_states(self.world, "n2", unreserved=1, available=GPUS_PER_NODE - 1)

    def canhazgpus_choice_avoids_it(self) -> None:
        heading("5. Or canhazgpu picks a clean GPU, and the job runs")
        say("Where no cgroup ties a job to Slurm's devices, Slurm may count and canhazgpu choose")
        say('(slurm.assignment = "canhazgpu"). Slurm gives the next job GPU 0, which is taken:\n')
        self.world.places.write_config("canhazgpu")
        user = self.people.alice
        job = self._submit(user, "n2", gpus=1)
        uuids = wait_until_at_work(self.world, "n2", job, user)
        self.world.shell(
            user, "n2", f"scontrol show job --details {job} | grep -o 'GRES=gpu.*IDX.*'"
        )
        self.world.shell(user, "n2", f"head -n 1 slurm-{job}.out")
        self.world.shell(user, "n2", "canhazgpu status --node n2")
        taken = self.world.status("n2")[0]["uuid"]
        require(taken not in uuids, f"any GPU but {taken}", uuids)
        require_states(self.world, "n2", reserved=1, unreserved=1, available=GPUS_PER_NODE - 2)

    def everything_is_free_again(self, intruder: subprocess.Popen[str]) -> None:
        heading("6. The jobs end, the process is gone: everything is free")
        self.world.end(intruder)
        self.world.administer(["scancel", *(str(job) for job in self.jobs)])
        for job in self.jobs:
            self.world.slurm.wait_job(job)
        self.world.slurm.wait_nodes_idle()
        self.world.shell(self.people.alice, "n1", "canhazgpu status")
        for node in ("n1", "n2"):
            require_states(self.world, node, available=GPUS_PER_NODE)

    def _submit(self, user: str, node: str, *, gpus: int) -> int:
        command = f"sbatch --nodelist={node} --gres=gpu:{gpus} --time=30 train.sh"
        job = int(self.world.shell(user, node, command).split()[-1])
        self.jobs.append(job)
        return job
