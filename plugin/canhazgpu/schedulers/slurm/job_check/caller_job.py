"""Which of Slurm's jobs a process on this node is in: by its control group, else by slurmd."""

from __future__ import annotations

from canhazgpu.gpu.process_job import identified_job
from canhazgpu.node.hook_caller import CallingProcess
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.attribution.attribution import hook_attribution
from canhazgpu.schedulers.slurm.hook.node_context import NodeContext

QUERY_SHARE = 0.5
_PREFIX = identified_job(names.SCHEDULER_TYPE, "")


def job_of_process(context: NodeContext, process: CallingProcess) -> str:
    """Return the job's id, "" if it is in no job that can be named.

    Where Slurm makes no control groups, the slurmstepds of this node say which processes are
    theirs. Raises `ProcessLookupError` if the process has ended, and `SchedulerError`.
    """
    groups = process.control_groups()
    job = hook_attribution(context.conf, context.node, context.state_dir)(groups)
    if job is not None:
        job_id = job.removeprefix(_PREFIX)
        return job_id if job_id.isdecimal() else ""
    listed = context.commands.run("scontrol", "listpids", "*", context.node, share=QUERY_SHARE)
    # The list names a pid: it is this process's if that lives yet.
    process.require_alive()
    return parse_job_of_pid(listed, process.pid)


def parse_job_of_pid(text: str, pid: int) -> str:
    """Return the job with this process, from the output of ``scontrol listpids``; "" for none."""
    lines = (line.split() for line in text.splitlines())
    found = {words[1] for words in lines if len(words) > 2 and words[0] == str(pid)}
    job_id = found.pop() if len(found) == 1 else ""
    return job_id if job_id.isascii() and job_id.isdecimal() else ""
