"""What goes on beside: `status` is asked, drained nodes are noted."""

from __future__ import annotations

import json
import subprocess
import threading
from collections import Counter

from canhazgpu_soak.cluster import SoakCluster, now
from canhazgpu_soak.records import RUNNING, Answer, HookRun, parse_answer

LOOK_EVERY_S = 2.0
COMMAND_S = 60.0
TASK_NOT_KILLED = "Kill task failed"
"""Slurm's own reason for a drain, on a machine that is too busy."""
NO_NOTICE = "REQUEST_LAUNCH_PROLOG notification failed"
"""In slurmd's log: the batch script of a job that was requeued and came back soon, with its old
credential, has waited for a prolog that slurmd does not run then. Slurm calls it a prolog error."""
PROLOG_FAILED = "prolog failed"
"""In slurmd's log: the hook's script itself has ended with an error."""


class Observer:
    """Notes what it sees; what it changes is what an administrator would."""

    def __init__(self, cluster: SoakCluster) -> None:
        self.answers: list[Answer] = []
        self.running: list[HookRun] = []
        """That Slurm said that a job ran: such a job may have its GPUs, whatever its tasks do."""
        self.silent: list[str] = []
        self.unanswered: Counter[str] = Counter()
        self.drained: list[str] = []
        self.drained_by_slurm: list[str] = []
        self._cluster = cluster
        self._read_of_log: dict[str, int] = {}

    def ask(self, stop: threading.Event) -> None:
        """Ask for the status of each node, again and again."""
        while not stop.wait(LOOK_EVERY_S):
            for node in self._cluster.nodes:
                answer = self.status(node)
                if answer is not None:
                    self.answers.append(answer)

    def status(self, node: str) -> Answer | None:
        """Return what the node's agent says now; None where it does not answer."""
        asked = now()
        try:
            done = subprocess.run(
                [str(self._cluster.program), "status", "--json", "--node", node],
                env=self._cluster.person_environ(node),
                capture_output=True,
                text=True,
                timeout=COMMAND_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            self.unanswered["status timeout"] += 1
            return None
        # With the store away the status is 4, and what the node knows is told all the same.
        if not done.stdout.strip():
            self.unanswered[f"status {done.returncode}"] += 1
            self.silent.append(f"{asked:.2f} {node}: {done.returncode} {done.stderr.strip()}")
            return None
        return parse_answer(done.stdout, asked, now())

    def administer(self, stop: threading.Event) -> None:
        """Let requeued jobs start soon; note drained nodes and resume them."""
        while not stop.wait(LOOK_EVERY_S):
            for line in self._slurm("squeue", "-h", "-t", "PD", "-o", "%A %r").splitlines():
                job, _, reason = line.partition(" ")
                if reason == "BeginTime":
                    self._slurm("scontrol", "update", f"job={job}", "StartTime=now+2")
            self._look_at_jobs()
            self._look_at_nodes()

    def _look_at_jobs(self) -> None:
        # One that completes has its epilog before it.
        for job in self._slurm("squeue", "-h", "-t", "R,CG", "-o", "%A").split():
            self.running.append(HookRun(RUNNING, "", job, now()))

    def _look_at_nodes(self) -> None:
        for line in self._slurm("sinfo", "-h", "-N", "-o", "%N|%T|%E").splitlines():
            node, state, reason = line.split("|", 2)
            if state.startswith("drain"):
                is_slurms = reason.startswith(TASK_NOT_KILLED) or self._lacked_notice(node)
                seen = self.drained_by_slurm if is_slurms else self.drained
                seen.append(f"{now():.2f} {node}: {reason}")
                self._slurm("scontrol", "update", f"NodeName={node}", "State=RESUME")

    def _lacked_notice(self, node: str) -> bool:
        """Whether slurmd has lacked a notice since the last drain, and no prolog has failed."""
        log = self._cluster.slurm.log(node)
        new = log[self._read_of_log.get(node, 0) :]
        self._read_of_log[node] = len(log)
        return NO_NOTICE in new and PROLOG_FAILED not in new

    def _slurm(self, *command: str) -> str:
        try:
            return self._cluster.slurm.run(command, timeout_s=COMMAND_S).stdout
        except subprocess.TimeoutExpired:
            return ""

    def jobs(self) -> list[str]:
        """The jobs that Slurm still has: number and state."""
        return self._slurm("squeue", "-h", "-o", "%A %T %r").splitlines()

    def queue(self, node: str) -> list[str]:
        """The keys of those who wait in the node's queue; empty where it cannot be read."""
        done = subprocess.run(
            [str(self._cluster.program), "queue", "--node", node, "--json"],
            env=self._cluster.person_environ(node),
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        nodes = json.loads(done.stdout)["nodes"] if done.returncode == 0 else []
        return [str(one.get("note")) for node in nodes for one in node["queue"]]
