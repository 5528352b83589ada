"""Processes on GPUs without reservation: they come, stay, move to another GPU, and end.

Some stay below the memory threshold: they are no unreserved use, and GPUs are granted under them.
"""

from __future__ import annotations

import random
import subprocess
import threading
from collections import Counter
from pathlib import Path

from canhazgpu_soak.cluster import SoakCluster, now
from canhazgpu_soak.records import Rogue
from demo_cluster.host.user_commands import popen_as

MEAN_PAUSE_S = 4.0
LONGEST_PAUSES = 6.25
"""So many pauses is the longest that one stays: where they come more often, they stay less long."""
MEMORY_MB, LITTLE_MEMORY_MB = 3000, 700
"""Above `validation.memory_threshold_mb`, and below it."""
LITTLE, MOVING = 0.25, 0.25
"""Which part of them stays below the threshold, and which moves to another GPU."""


class Rogues:
    """A user whose programs take GPUs without asking."""

    def __init__(self, seed: str, cluster: SoakCluster, pause_s: float = MEAN_PAUSE_S) -> None:
        self.seen: list[Rogue] = []
        self.kinds: Counter[str] = Counter()
        self._cluster = cluster
        self._pause_s = pause_s
        self._rng = random.Random(f"{seed}/rogues")  # noqa: S311 - it has to be repeatable

    def live(self, stop: threading.Event) -> None:
        """Start one after another until `stop`, then end all."""
        threads = []
        while not stop.wait(self._rng.expovariate(1 / self._pause_s)):
            node = self._rng.choice(self._cluster.nodes)
            gpus = self._rng.sample(self._cluster.gpus[node], 2)
            stays_s = self._rng.uniform(1, LONGEST_PAUSES * self._pause_s)
            memory_mb = LITTLE_MEMORY_MB if self._rng.random() < LITTLE else MEMORY_MB
            gpus = gpus if self._rng.random() < MOVING else gpus[:1]
            one = threading.Thread(target=self._stay, args=(node, gpus, memory_mb, stays_s, stop))
            threads.append(one)
            one.start()
        for one in threads:
            one.join()

    def _stay(
        self, node: str, gpus: list[str], memory_mb: int, stays_s: float, stop: threading.Event
    ) -> None:
        """Be on one GPU after the other, as one program of the shell's."""
        stayed = [self._use(node, gpu, memory_mb, stays_s / len(gpus), stop) for gpu in gpus]
        if not all(stayed):
            return
        if memory_mb < MEMORY_MB:
            self.kinds["below the threshold"] += 1
        else:
            self.kinds["moved to another GPU" if len(gpus) > 1 else "came, stayed and ended"] += 1

    def _use(
        self, node: str, gpu: str, memory_mb: int, stays_s: float, stop: threading.Event
    ) -> bool:
        """Take memory for so long; false where it did not get it or did not keep it."""
        program = str(self._cluster.gpu_process)
        process = popen_as(
            self._cluster.rogue_user,
            [program, "--gpu", gpu, "--memory-mb", str(memory_mb), "--name", "rogue"],
            env=self._cluster.person_environ(node),
            cwd=Path("/"),
        )
        try:
            assert process.stdout is not None
            # It tells when it has its memory; without room on the GPU it ends instead.
            if not process.stdout.readline():
                return False
            began = now()
            stop.wait(stays_s)
            if process.poll() is not None:
                return False
            if memory_mb >= MEMORY_MB:
                self.seen.append(Rogue(node, gpu, began, now()))
            return True
        finally:
            process.terminate()
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
