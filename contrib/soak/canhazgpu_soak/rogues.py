"""Processes on GPUs without reservation: they come, stay a while, and end."""

from __future__ import annotations

import random
import subprocess
import threading
from pathlib import Path

from canhazgpu_soak.cluster import SoakCluster, now
from canhazgpu_soak.records import Rogue
from demo_cluster.host.user_commands import popen_as

MEAN_PAUSE_S = 4.0
LONGEST_S = 25.0
MEMORY_MB = 3000
"""Above `validation.memory_threshold_mb`."""


class Rogues:
    """A user whose programs take GPUs without asking."""

    def __init__(self, seed: str, cluster: SoakCluster) -> None:
        self.seen: list[Rogue] = []
        self._cluster = cluster
        self._rng = random.Random(f"{seed}/rogues")  # noqa: S311 - it has to be repeatable

    def live(self, stop: threading.Event) -> None:
        """Start one after another until `stop`, then end all."""
        threads = []
        while not stop.wait(self._rng.expovariate(1 / MEAN_PAUSE_S)):
            node = self._rng.choice(self._cluster.nodes)
            gpu = self._rng.choice(self._cluster.gpus[node])
            stays_s = self._rng.uniform(1, LONGEST_S)
            one = threading.Thread(target=self._stay, args=(node, gpu, stays_s, stop))
            threads.append(one)
            one.start()
        for one in threads:
            one.join()

    def _stay(self, node: str, gpu: str, stays_s: float, stop: threading.Event) -> None:
        program = str(self._cluster.gpu_process)
        process = popen_as(
            self._cluster.rogue_user,
            [program, "--gpu", gpu, "--memory-mb", str(MEMORY_MB), "--name", "rogue"],
            env={"FAKE_NVML_NODE": node, "PATH": "/usr/bin:/bin"},
            cwd=Path("/"),
        )
        try:
            assert process.stdout is not None
            # It tells when it has its memory; without room on the GPU it ends instead.
            if process.stdout.readline():
                began = now()
                stop.wait(stays_s)
                if process.poll() is None:
                    self.seen.append(Rogue(node, gpu, began, now()))
        finally:
            process.terminate()
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
