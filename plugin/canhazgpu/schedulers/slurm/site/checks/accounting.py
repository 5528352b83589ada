"""The check of what slurm.job_report needs; pure."""

from __future__ import annotations

from collections.abc import Iterator

from canhazgpu.schedulers.slurm.site.state import Problem, SiteState

SLURMDBD = "slurmdbd"


def job_report(site: SiteState) -> Iterator[Problem]:
    """Find a Slurm that takes no comment of a job that has ended."""
    if site.config.config.slurm.job_report == "off":
        return
    kinds = site.slurm.settings.plugins("AccountingStorageType", "accounting_storage")
    if SLURMDBD not in kinds:
        yield Problem(
            "warning",
            "slurm.job_report is on, and Slurm has no slurmdbd: its controller takes no comment of"
            " a job that has ended, so nobody is told what jobs made of their GPUs",
            "AccountingStorageType=accounting_storage/slurmdbd",
            'job_report = "off" in [slurm]; canhazgpu explain JOB tells it without Slurm',
        )
    elif site.slurm.accounting_fault:
        yield Problem(
            "warning",
            f"slurm.job_report is on, and Slurm's accounting gives no answer here:"
            f" {site.slurm.accounting_fault}",
            "an answer: the health check tells it what jobs made of their GPUs",
            "sacct -X -j 1; what is told waits for a day",
        )
