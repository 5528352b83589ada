"""The checks of Slurm's HealthCheckProgram, and of whether it runs; pure."""

from __future__ import annotations

from collections.abc import Iterator

from canhazgpu.schedulers.slurm.site import health_lines
from canhazgpu.schedulers.slurm.site.checks.conf import missing_line_problem
from canhazgpu.schedulers.slurm.site.layout import HEALTH_KEY
from canhazgpu.schedulers.slurm.site.state import Problem, SiteState

MAX_MISSED_CHECKS = 3
INTERVAL_SLACK_S = 120
"""Extra time for a slow check, and for ``CYCLE``, which checks the nodes one after another."""


def health_check(site: SiteState) -> Iterator[Problem]:
    """Find a health check of canhazgpu that Slurm does not run, or runs seldom."""
    if site.installed.layout is None:
        return  # the check hooks-place reports it
    settings = site.slurm.settings
    for line in health_lines.health_lines(settings, site.installed.layout.health_check):
        yield missing_line_problem("warning", line)
    for program in site.slurm.programs.get(HEALTH_KEY, ()):
        if program.problem:
            yield Problem(
                "warning",
                f"{HEALTH_KEY}={program.path}, which {program.problem}: it never runs",
                "a program with mode 755",
                f"chmod 755 {program.path}, or {site.installed.install_command}",
            )


def published(site: SiteState) -> Iterator[Problem]:
    """Find a node whose GPUs were not published for several intervals of its health check."""
    if site.installed.layout is None:
        return
    settings = site.slurm.settings
    age_s = site.hook_probe.published_s
    interval_s = (
        settings.number(health_lines.HEALTH_CHECK_INTERVAL_KEY)
        or health_lines.HEALTH_CHECK_INTERVAL_S
    )
    if age_s is not None and age_s <= MAX_MISSED_CHECKS * interval_s + INTERVAL_SLACK_S:
        return
    since = "were never" if age_s is None else f"were last, {age_s:.0f} s ago,"
    own = health_lines.foreign_health_check(settings)
    script = site.installed.layout.health_check
    fix = f"SLURMD_NODENAME={site.node} {script} --exit-code; journalctl -t canhazgpu"
    if own and not site.installed.site_calls_health_check:
        fix = f"call {script} from {own}"
    yield Problem(
        "warning",
        f"the GPUs of {site.node} {since} published: the health check does not run",
        f"once in {interval_s} s",
        fix,
    )
