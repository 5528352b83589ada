"""Ask ``squeue`` about jobs: their names and ends, their present state, their numbers.

Slurm does not give a prolog the job's name, nor, before 23.02, its end time.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from canhazgpu.config.schema import SlurmConfig
from canhazgpu.errors import SchedulerError
from canhazgpu.ledger.values import bounded_name
from canhazgpu.schedulers.slurm.control.commands import MAX_OUTPUT
from canhazgpu.schedulers.slurm.control.queries import SQUEUE_JOB
from canhazgpu.schedulers.slurm.control.shortened_comment import shortened_comment
from canhazgpu.schedulers.slurm.time_limit import limited_end
from canhazgpu.status.scheduler_jobs import JobInfo, JobNow

LOOKUP_TIMEOUT_S = 2.0
"""Longest wait for squeue. A status without names is better than a late one."""

UNKNOWN_JOB = "Invalid job id"
"""In squeue's message about a job that slurmctld does not know (any more)."""

DEFAULT_DIRECTORIES = ("/usr/bin", "/usr/local/bin")

_KEPT_VARIABLES = ("SLURM_CONF", "PATH", "HOME", "LD_LIBRARY_PATH")


class SqueueLookup:
    """`JobLookup` over ``squeue``; see `canhazgpu.status.scheduler_jobs.JobLookup`."""

    def __init__(self, slurm: SlurmConfig, environ: Mapping[str, str]) -> None:
        self._bin_dir = slurm.bin_dir
        self._environ = environ

    def job_now(self, job_id: str) -> JobNow | None:
        """See `JobLookup.job_now`."""
        marker = secrets.token_hex(8)
        try:
            text = self._output_of(state_arguments(job_id, marker))
        except SchedulerError as exc:
            if UNKNOWN_JOB in str(exc):
                return None
            raise
        return parse_state(text, marker, job_id)

    def resolve_job_id(self, address: str) -> str | None:
        """See `JobLookup.resolve_job_id`, for ``ARRAYID_TASKID`` and ``LEADER+OFFSET``."""
        lines = self._ask([*SQUEUE_JOB, address]).splitlines()
        found = [words[0] for words in map(str.split, lines) if words[1:2] == [address]]
        return found[0] if len(found) == 1 and found[0].isdecimal() else None

    def _ask(self, arguments: Sequence[str]) -> str:
        """Return the output of squeue, "" if it fails."""
        try:
            return self._output_of(arguments)
        except SchedulerError:
            return ""

    def _output_of(self, arguments: Sequence[str]) -> str:
        """Return the output of squeue; raises `SchedulerError`."""
        squeue = find_command("squeue", self._bin_dir, self._environ)
        if squeue is None:
            raise SchedulerError("squeue is not on this machine; slurm.bin_dir names its directory")
        try:
            done = subprocess.run(
                [squeue, *arguments],
                env=squeue_environment(self._environ),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=LOOKUP_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise SchedulerError(f"squeue gave no answer in {LOOKUP_TIMEOUT_S:g} s") from exc
        except OSError as exc:
            raise SchedulerError(f"cannot run {squeue}: {exc.strerror}") from exc
        if done.returncode != 0:
            said = " ".join(done.stderr.decode("utf-8", "replace").split())
            raise SchedulerError(f"squeue failed: {shortened_comment(said, MAX_OUTPUT)}")
        return done.stdout.decode("utf-8", "replace")


def find_command(name: str, bin_dir: str, environ: Mapping[str, str]) -> str | None:
    """Return the command's absolute path: in `bin_dir`, else in PATH or the usual directories."""
    directories = (
        [bin_dir] if bin_dir else [*environ.get("PATH", "").split(":"), *DEFAULT_DIRECTORIES]
    )
    for directory in directories:
        path = Path(directory) / name
        if path.is_absolute() and os.access(path, os.X_OK) and path.is_file():
            return str(path)
    return None


def node_arguments(node: str, marker: str) -> list[str]:
    """Return squeue's arguments for the node's jobs, for output that `parse_squeue` reads."""
    form = f"{marker}|%A|%e %S|%u|%j"
    return ["--noheader", "--array", f"--nodelist={node}", f"--format={form}"]


def state_arguments(job_id: str, marker: str) -> list[str]:
    """Return squeue's arguments for output that `parse_state` reads; no field is a user's text."""
    form = f"{marker}|%A|%i|%u|%T|%Q|%S|%e|%N|%r"
    return ["--noheader", "--array", "--states=all", f"--jobs={job_id}", f"--format={form}"]


def parse_state(text: str, marker: str, job_id: str) -> JobNow | None:
    """Return the job's state, None if the output does not name the job.

    For the id of an array squeue prints all tasks. A waiting job of priority 0 is held.
    """
    for line in text.splitlines():
        fields = line.split("|", 9)
        if len(fields) != 10 or fields[:2] != [marker, job_id]:
            continue
        _, _, address, user, state, priority, starts, ends, nodes, reason = fields
        return JobNow(
            job_id,
            address,
            user,
            state,
            reason.strip(),
            nodes,
            _parsed_time(starts),
            limited_end(_parsed_time(starts), _parsed_time(ends)),
            is_held=state == "PENDING" and priority == "0",
        )
    return None


def squeue_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return squeue's environment: times in epoch seconds, without the user's ``SQUEUE_…``."""
    kept = {name: environ[name] for name in _KEPT_VARIABLES if name in environ}
    return {**kept, "SLURM_TIME_FORMAT": "%s", "LC_ALL": "C.UTF-8"}


def parse_squeue(text: str, marker: str) -> dict[str, JobInfo]:
    """Return the jobs by id.

    Each record begins with the marker, which is new for every call. A job's name may contain
    separators and line ends, but cannot forge another job's record. The name is the last field and
    is cut at its first line end.
    """
    found = {}
    for line in text.split("\n"):
        fields = line.split("|", 4)
        if len(fields) != 5 or fields[0] != marker:
            continue
        _, job_id, times, user, name = fields
        ends_at, _, started_at = times.partition(" ")
        end = limited_end(_parsed_time(started_at), _parsed_time(ends_at))
        found[job_id] = JobInfo(user, bounded_name(name), end)
    return found


def _parsed_time(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdecimal() else None
