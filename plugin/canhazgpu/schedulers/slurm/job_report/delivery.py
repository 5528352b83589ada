"""Tell Slurm's accounting what jobs made of their GPUs, in their AdminComment.

Slurm's controller takes no comment of a job that has ended: ``scontrol update`` says "Job has
already finished", in the epilog and after it (seen with 22.05, 24.11 and 26.05). slurmdbd takes it
from ``sacctmgr modify job``, as soon as it knows of the job's end.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from canhazgpu.errors import SchedulerError, error_text
from canhazgpu.logfmt import log_line
from canhazgpu.node.system_log import DAEMON_INFO, write_syslog
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.job_report.accounted_job import (
    FIELDS,
    TIMES,
    AccountedJob,
    JobReport,
    Step,
    decide,
    parse_jobs,
)
from canhazgpu.schedulers.slurm.job_report.pending_reports import PendingReports, remove

SACCT_SHARE = 0.5
"""The part of the time for all commands that the question may take."""
ADMIN_COMMENT = "admin_comment"
"""The value of slurm.job_report with which this is wanted."""


def deliver_reports(node: str, state_dir: Path, commands: SlurmCommands) -> None:
    """Deliver the node's reports, as far as the time of `commands` goes; the rest stays.

    What prevents it is logged, and tried again by the next call.
    """
    reports = list(PendingReports(state_dir).read())
    if not reports:
        return
    try:
        jobs = _accounted_jobs([one for _, one in reports], commands)
    except SchedulerError as exc:
        _log_wait(node, len(reports), exc)
        return
    fault, steps = None, Counter[Step]()
    for path, report in reports:
        if fault is not None and commands.left_s <= 0.0:
            break
        try:
            step = _deliver(report, jobs, node, commands)
        except SchedulerError as exc:
            # One that is refused holds up no other.
            fault = fault or exc
            continue
        if step in (Step.DROP, Step.WRITE):
            remove(path)
        steps[step] += 1
    if fault is not None:
        _log_wait(node, len(reports) - steps[Step.DROP] - steps[Step.WRITE], fault)
    if written := steps[Step.WRITE] + steps[Step.WRITE_AND_LOOK]:
        write_syslog(log_line("job-reports", node=node, written=written), DAEMON_INFO)


def _deliver(
    report: JobReport, jobs: Mapping[str, AccountedJob], node: str, commands: SlurmCommands
) -> Step:
    step, comment = decide(report, jobs, node, time.time())
    if step in (Step.WRITE, Step.WRITE_AND_LOOK):
        change = ("jobid=" + jobs[report.job_id].address, "set", f"admincomment={comment}")
        commands.run("sacctmgr", "--immediate", "modify", "job", "where", *change)
    return step


def _log_wait(node: str, count: int, fault: SchedulerError) -> None:
    write_syslog(log_line("job-reports-wait", node=node, reports=count, reason=error_text(fault)))


def _accounted_jobs(reports: list[JobReport], commands: SlurmCommands) -> dict[str, AccountedJob]:
    delimiter = f"|{secrets.token_hex(8)}|"
    ids = ",".join(sorted({one.job_id for one in reports}))
    text = commands.run(
        "sacct",
        "--allocations", "--allusers", "--noheader", "--parsable2", f"--delimiter={delimiter}",
        f"--jobs={ids}", f"--format={','.join(FIELDS)}",
        share=SACCT_SHARE,
        variables=TIMES,
    )  # fmt: skip
    return parse_jobs(text, delimiter)
