"""What users do: each of them is a thread that decides by the seed what comes next."""

from __future__ import annotations

import random
import subprocess
import threading
from collections import Counter
from collections.abc import Callable

from canhazgpu_soak.cluster import SoakCluster
from canhazgpu_soak.installation import SHARDS_PER_GPU
from canhazgpu_soak.load.commands import Commands

MEAN_PAUSE_S = 2.0
MAX_COMMANDS = 6
"""How many commands one user has at once."""
MAX_PENDING = 12
RESERVED_S = 20
OVER_TIME_S = 75
"""Longer than the shortest limit that Slurm knows, a minute."""


class User:
    """One person: jobs, runs, reservations, and what one does to jobs."""

    def __init__(self, name: str, seed: str, cluster: SoakCluster, commands: Commands) -> None:
        self.jobs: Counter[str] = Counter()
        self._name = name
        self._cluster = cluster
        self._commands = commands
        self._rng = random.Random(f"{seed}/{cluster.users.index(name)}")  # noqa: S311 - repeatable
        self._threads: list[threading.Thread] = []
        self._errors: list[Exception] = []
        self._acts: dict[Callable[[], None], int] = {
            self._job: 40,
            self._array: 6,
            self._srun: 6,
            self._two_nodes: 6,
            self._shards: 8,
            self._over_time: 1,
            self._run: 25,
            self._wait: 10,
            self._reserve: 8,
            self._wait_to_reserve: 4,
            self._cancel: 6,
            self._requeue: 6,
        }

    def live(self, stop: threading.Event) -> None:
        """Do one thing after another until `stop`, then wait for what was begun."""
        while not stop.wait(self._rng.expovariate(1 / MEAN_PAUSE_S)):
            self._threads = [one for one in self._threads if one.is_alive()]
            act = self._rng.choices(list(self._acts), list(self._acts.values()))[0]
            act()
        for one in self._threads:
            one.join()
        if self._errors:
            raise self._errors[0]

    def _job(self) -> None:
        self._submit(f"exec {self._task(self._seconds())}", f"--gres=gpu:{self._gpus()}")

    def _array(self) -> None:
        self._submit(f"exec {self._task(self._seconds())}", "--gres=gpu:1", "--array=1-4")

    def _over_time(self) -> None:
        self._submit(f"exec {self._task(OVER_TIME_S)}", "--gres=gpu:1", "--time=1")

    def _srun(self) -> None:
        script = f"srun --ntasks=2 {self._task(self._seconds())}"
        self._submit(script, "--ntasks=2", f"--gres=gpu:{self._gpus()}")

    def _two_nodes(self) -> None:
        script = f"srun --ntasks-per-node=1 {self._task(self._seconds())}"
        nodes = ("--nodes=2", "--ntasks-per-node=1")
        self._submit(script, *nodes, f"--gres=gpu:{self._rng.randint(1, 2)}")

    def _shards(self) -> None:
        shards = self._rng.randint(1, SHARDS_PER_GPU // 2)
        script = f"SOAK_SHARE={shards / SHARDS_PER_GPU} exec {self._task(self._seconds())}"
        self._submit(script, f"--gres=shard:{shards}")

    def _run(self) -> None:
        self._start_run(("--nonblock",), 0.0)

    def _wait(self) -> None:
        self._start_run(("--wait", "20s"), 20.0)

    def _start_run(self, how: tuple[str, ...], wait_s: float) -> None:
        node, hold_s = self._node(), self._seconds()
        options = ("--gpus", str(self._gpus()), *how)
        takes_memory = self._rng.random() < 0.5
        self._begin(
            lambda: self._commands.run(self._name, node, options, wait_s, hold_s, takes_memory)
        )

    def _reserve(self) -> None:
        self._start_reserve(("--nonblock",), 0.0)

    def _wait_to_reserve(self) -> None:
        self._start_reserve(("--wait", "15s"), 15.0)

    def _start_reserve(self, how: tuple[str, ...], wait_s: float) -> None:
        node, gpus, hold_s = self._node(), self._rng.randint(1, 2), self._rng.uniform(1, 25)
        options = ("--gpus", str(gpus), "--duration", f"{RESERVED_S}s", *how)
        self._begin(
            lambda: self._commands.reserve(self._name, node, options, wait_s, RESERVED_S, hold_s)
        )

    def _cancel(self) -> None:
        self._on_own_job("scancel")

    def _requeue(self) -> None:
        self._on_own_job("scontrol", "requeue")

    def _on_own_job(self, *command: str) -> None:
        listed = self._slurm(["squeue", "-h", "-t", "R", "-u", self._name, "-o", "%A"])
        if listed:
            job = self._rng.choice(sorted(listed.split()))
            self._slurm([*command, job])
            self.jobs[" ".join(command)] += 1

    def _submit(self, script: str, *options: str) -> None:
        waiting = self._slurm(["squeue", "-h", "-t", "PD", "-o", "%A"])
        if len(waiting.split()) > MAX_PENDING:
            return
        options = ("--cpus-per-task=1", "--mem=10", "--output=/dev/null", *options)
        submitted = self._slurm(["sbatch", "--parsable", *options], f"#!/bin/sh\n{script}\n")
        self.jobs["submitted" if submitted else "not taken by Slurm"] += 1

    def _slurm(self, command: list[str], text: str | None = None) -> str:
        """Return what a command of Slurm's prints, empty where it fails."""
        try:
            done = self._cluster.slurm.run(command, user=self._name, stdin_text=text)
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout if done.returncode == 0 else ""

    def _task(self, seconds: float) -> str:
        words = [self._cluster.task, self._cluster.notes, "job", f"{seconds:.1f}"]
        if self._rng.random() < 0.5:
            words.append(self._cluster.gpu_process)
        return " ".join(map(str, words))

    def _begin(self, command: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                command()
            except Exception as exc:
                self._errors.append(exc)  # it ends the soak

        if self._cluster.has_hooks and len(self._threads) < MAX_COMMANDS:
            self._threads.append(threading.Thread(target=guarded))
            self._threads[-1].start()

    def _node(self) -> str:
        return self._rng.choice(self._cluster.nodes)

    def _gpus(self) -> int:
        return self._rng.choice((1, 1, 1, 2, 2, 3, 4))

    def _seconds(self) -> float:
        return self._rng.uniform(1, 12)
