"""Pure: the checks of what Slurm runs to look after the nodes, and of whether it does."""

from __future__ import annotations

from collections.abc import Iterator

from canhazgpu.schedulers.slurm import lines
from canhazgpu.schedulers.slurm.checks_conf import line_problem
from canhazgpu.schedulers.slurm.layout import HEALTH_KEY
from canhazgpu.schedulers.slurm.site import Problem, Site

MISSED_CHECKS = 3
SLACK_S = 120
"""For a check that is slow, and for ``CYCLE``, which gives each node its own moment."""


def health_check(site: Site) -> Iterator[Problem]:
    """Find a health check of ours that Slurm does not run, or seldom."""
    if site.ours.layout is None:
        return  # hooks-place tells
    settings = site.slurm.settings
    for line in lines.health_lines(settings, site.ours.layout.health_check):
        yield line_problem("warning", line)
    for program in site.slurm.matches.get(HEALTH_KEY, ()):
        if program.problem:
            yield Problem(
                "warning",
                f"{HEALTH_KEY}={program.path}, which {program.problem}: it never runs",
                "a program with mode 755",
                f"chmod 755 {program.path}, or {site.ours.install_command}",
            )


def published(site: Site) -> Iterator[Problem]:
    """Find a node whose GPUs have not been published for longer than its health check takes."""
    if site.ours.layout is None:
        return
    settings = site.slurm.settings
    age_s = site.as_hook.published_s
    interval_s = settings.number(lines.INTERVAL_KEY) or lines.HEALTH_CHECK_INTERVAL_S
    if age_s is not None and age_s <= MISSED_CHECKS * interval_s + SLACK_S:
        return
    since = "were never" if age_s is None else f"were last, {age_s:.0f} s ago,"
    own = lines.runs_no_check_of_ours(settings)
    script = site.ours.layout.health_check
    fix = f"SLURMD_NODENAME={site.node} {script} --exit-code; journalctl -t canhazgpu"
    if own and not site.ours.check_called:
        fix = f"call {script} from {own}"
    yield Problem(
        "warning",
        f"the GPUs of {site.node} {since} published: the health check does not run",
        f"once in {interval_s} s",
        fix,
    )
