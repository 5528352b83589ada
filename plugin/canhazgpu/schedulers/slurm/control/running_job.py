"""Ask slurmctld for a job that runs here: whose it is, its state, and its GPUs on this node.

It is what a prolog is told by its environment, for a job whose prolog did not run.
"""

from __future__ import annotations

from dataclasses import replace

from canhazgpu.errors import SchedulerError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.control.described_job import described_job
from canhazgpu.schedulers.slurm.control.job_gres import gres_on_node, positions_in_gres
from canhazgpu.schedulers.slurm.control.queries import RUNNING_STATES

FIELDS = (
    "JobID",
    "UserID",
    "UserName",
    "State",
    "RestartCnt",
    "Partition",
    "StartTime",
    "EndTime",
    "Comment",
)
"""Only the comment is a user's text. It comes last, and is cut at the end of its line."""
SQUEUE_JOB_FACTS = (
    "--noheader",
    "--array",
    "--states=all",
    f"--Format={','.join(f'{field}: ' for field in FIELDS)}",
    "--jobs",
)
EPOCH_TIMES = {"SLURM_TIME_FORMAT": "%s"}
QUERY_SHARE = 0.5
"""The share of the time for all commands that each query may take."""


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job by slurmctld's word; `gres` and `positions` are those of one node."""

    job_id: str
    uid: int
    user: str
    state: str
    attempt: int
    partition: str
    starts: str
    ends: str
    comment: str
    gres: str = ""
    positions: tuple[int, ...] = ()

    @property
    def runs(self) -> bool:
        """Whether it runs: it has not ended, and is not in its epilog."""
        return self.state in RUNNING_STATES

    def hook_environment(self) -> dict[str, str]:
        """Return the variables that slurmd would have given to the job's prolog."""
        given = {
            names.JOB_ID: self.job_id,
            names.JOB_UID: str(self.uid),
            names.JOB_USER: self.user,
            names.JOB_GPUS: ",".join(map(str, self.positions)),
            names.RESTART_COUNT: str(self.attempt),
            names.JOB_PARTITION: self.partition,
            names.JOB_COMMENT: self.comment,
            names.SCRIPT_CONTEXT: "prolog_slurmd",
        }
        times = {names.JOB_START_TIME: self.starts, names.JOB_END_TIME: self.ends}
        return given | {name: text for name, text in times.items() if text.isdecimal()}


def find_running_job(commands: SlurmCommands, job_id: str, node: str) -> RunningJob | None:
    """Return the job, with its GPUs on the node if it runs; None if slurmctld has no such job.

    Raises `SchedulerError` where slurmctld does not answer, or not clearly.
    """
    text = commands.run(
        "squeue", *SQUEUE_JOB_FACTS, job_id, share=QUERY_SHARE, variables=EPOCH_TIMES
    )
    job = parse_job(text, job_id)
    if job is None or not job.runs:
        return job
    gres = gres_on_node(described_job(commands, job_id, QUERY_SHARE), node)
    return replace(job, gres=gres, positions=positions_in_gres(gres))


def parse_job(text: str, job_id: str) -> RunningJob | None:
    """Return the job, from the output for `SQUEUE_JOB_FACTS`; None if it is not named.

    Raises `SchedulerError` if there are two such lines: a comment may look like another job's line.
    """
    lines = [line.split(maxsplit=len(FIELDS) - 1) for line in text.splitlines()]
    found = [words for words in lines if words and words[0] == job_id]
    if not found:
        return None
    try:
        (words,) = found
        _, uid, user, state, attempt, partition, starts, ends, *comment = words
        return RunningJob(
            job_id,
            int(uid),
            user,
            state,
            int(attempt),
            partition,
            starts,
            ends,
            "".join(comment).strip(),
        )
    except ValueError as exc:
        raise SchedulerError(
            f"squeue's answer about job {job_id} is not understood", next_step="report it"
        ) from exc
