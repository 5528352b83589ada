"""Speak to a private cluster as one of its users: submit, wait, look."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

from demo_cluster.daemons import log_tail, read_log
from demo_cluster.errors import CommandFailed, WaitTimeout
from demo_cluster.host.processes import wait_until
from demo_cluster.host.user_commands import login_environment, popen_as, run_as
from demo_cluster.layout import Layout, agent_name
from demo_cluster.scontrol import FINAL_STATES, parse_records
from demo_cluster.spec import ClusterSpec

COMMAND_TIMEOUT_S = 60.0
JOB_TIMEOUT_S = 240.0
"""A job that was sent back begins again after two minutes, and a busy machine adds to that."""
POLL_S = 0.05


class SlurmClient:
    """The client commands of one cluster, run as a Unix user with nothing of our environment."""

    def __init__(self, layout: Layout, spec: ClusterSpec) -> None:
        self.layout = layout
        self.spec = spec

    def home(self, user: str) -> Path:
        """Return the user's own directory in the cluster, made when it is missing."""
        home = self.layout.home(user)
        if not home.exists():
            account = pwd.getpwnam(user)
            home.mkdir(mode=0o755)
            home.chmod(0o755)
            os.chown(home, account.pw_uid, account.pw_gid)
        return home

    def env(self, user: str = "root") -> dict[str, str]:
        """Return the environment for client commands: a plain login and SLURM_CONF."""
        login = login_environment(user, self.layout.home(user))
        return {**login, "SLURM_CONF": str(self.layout.slurm_conf)}

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "root",
        stdin_text: str | None = None,
        timeout_s: float = COMMAND_TIMEOUT_S,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the user's home; with `check` a non-zero exit raises CommandFailed."""
        done = run_as(
            user, argv, env=self.env(user), cwd=self.home(user), timeout_s=timeout_s,
            stdin_text=stdin_text,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise CommandFailed(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr}")
        return done

    def popen(self, argv: Sequence[str], *, user: str = "root") -> subprocess.Popen[str]:
        """Start a command and return at once; whoever starts it ends it."""
        return popen_as(user, argv, env=self.env(user), cwd=self.home(user))

    def submit(self, script: str, *args: str, user: str = "root") -> int:
        """Submit a batch script (`#!/bin/sh` is put before it where it has no such line)."""
        text = script if script.startswith("#!") else f"#!/bin/sh\n{script}\n"
        done = self.run(["sbatch", "--parsable", *args], user=user, stdin_text=text, check=True)
        return int(done.stdout.strip().partition(";")[0])

    def output(self, job_id: int, *, user: str = "root") -> str:
        """Return what a batch job has printed to its default output file so far."""
        return read_log(self.layout.home(user) / f"slurm-{job_id}.out")

    def job(self, job_id: int) -> dict[str, str]:
        """Return the fields of `scontrol show job`; of an array, those of its first task."""
        done = self.run(["scontrol", "show", "job", "-d", "-o", str(job_id)], check=True)
        return parse_records(done.stdout)[0]

    def wait_job(
        self,
        job_id: int,
        states: Collection[str] = FINAL_STATES,
        timeout_s: float = JOB_TIMEOUT_S,
    ) -> dict[str, str]:
        """Wait until the job is in one of the states (by default: over); return its fields."""
        record: dict[str, str] = {}

        def reached() -> bool:
            record.clear()
            record.update(self.job(job_id))
            return record["JobState"] in states

        if not wait_until(reached, timeout_s, POLL_S):
            raise WaitTimeout(f"job {job_id} is {record}, not {states}\n{self.diagnosis()}")
        return record

    def node_states(self, *, check: bool = True) -> dict[str, str]:
        """Return each node's state in lower case, such as `idle`, `mixed`, `idle+drain`.

        Without `check` there are none where the controller does not answer.
        """
        done = self.run(["scontrol", "show", "node", "-o"], check=check)
        return {
            record["NodeName"]: record["State"].lower() for record in parse_records(done.stdout)
        }

    def wait_nodes_idle(self, timeout_s: float = JOB_TIMEOUT_S) -> None:
        """Wait until every node is exactly idle: nothing runs, completes, or is drained."""
        states: dict[str, str] = {}

        def reached() -> bool:
            states.clear()
            states.update(self.node_states(check=False))
            return bool(states) and set(states.values()) == {"idle"}

        if not wait_until(reached, timeout_s, POLL_S):
            raise WaitTimeout(f"nodes are {states}, not all idle\n{self.diagnosis()}")

    def log(self, daemon: str) -> str:
        """Return the whole log of `slurmctld`, `munged` or a node."""
        return read_log(self.layout.log(daemon))

    def log_end(self, daemon: str) -> str:
        """Return the ends of a daemon's log and of what it printed."""
        return log_tail(self.layout, daemon)

    def diagnosis(self) -> str:
        """Return the ends of all logs, for the message of a failure."""
        nodes = self.spec.node_names()
        daemons = ("munged", "slurmctld", *nodes, *map(agent_name, nodes))
        return "\n".join(log_tail(self.layout, daemon) for daemon in daemons)
