"""What ``scontrol`` says of one job alone."""

from __future__ import annotations

from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.control.job_gres import describes_several
from canhazgpu.schedulers.slurm.control.queries import SQUEUE_JOB, parse_job_address


def described_job(commands: SlurmCommands, job_id: str, share: float) -> str:
    """Return the output of ``scontrol show job -d``; raises `SchedulerError`.

    An array, and a heterogeneous job, have the id of one of their jobs; for that id it describes
    all of them. squeue's own address names one. `share` is that of the time for all commands.
    """

    def ask(program: str, *arguments: str) -> str:
        return commands.run(program, *arguments, share=share)

    answer = ask("scontrol", "show", "job", "-d", job_id)
    if describes_several(answer):
        address = parse_job_address(ask("squeue", *SQUEUE_JOB, job_id), job_id)
        answer = ask("scontrol", "show", "job", "-d", address or job_id)
    return answer
