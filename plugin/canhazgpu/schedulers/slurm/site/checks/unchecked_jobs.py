"""The check of what becomes of a job that Slurm starts without its prolog; pure."""

from __future__ import annotations

from collections.abc import Iterator

from canhazgpu.schedulers.slurm.job_check.task_view import hides
from canhazgpu.schedulers.slurm.site.state import Problem, SiteState

ASKS = "a task of a job that Slurm started without its prolog has the agent check the job first"
IN_CONTAINER = "; in a container of pyxis it cannot, and the health check finds the job later"
NO_AGENT = (
    "no agent runs that a task could ask: the health check finds a job that Slurm started without"
    " its prolog, when its code runs already"
)


def unchecked_jobs_text(site: SiteState) -> str:
    """Say who checks such a job, where nothing is wrong."""
    if site.agent.release is None:
        return NO_AGENT
    return ASKS + (IN_CONTAINER if site.slurm.task_view.has_pyxis else "")


def unchecked_jobs(site: SiteState) -> Iterator[Problem]:
    """Find private directories of jobs that hide what a task needs to be told of its GPUs."""
    layout = site.installed.layout
    needed = [site.state_dir.path, *([layout.task_prolog.script] if layout else [])]
    for path in needed:
        if private := hides(site.slurm.task_view.private, path):
            yield Problem(
                "warning",
                f"each job has its own {private} (Dirs= in job_container.conf), which hides {path}:"
                " its tasks are not told their GPUs, and cannot ask the agent",
                f"{path} outside of the jobs' own directories",
                "take it out of Dirs=, or move the file",
            )
