"""Pure: the checks of what Slurm runs to look after the nodes, and of whether it does."""

from __future__ import annotations

from collections.abc import Iterator

from canhazgpu.schedulers.slurm.site import required_lines
from canhazgpu.schedulers.slurm.site.checks.conf import missing_line_problem
from canhazgpu.schedulers.slurm.site.layout import HEALTH_KEY
from canhazgpu.schedulers.slurm.site.state import Problem, SiteState

MAX_MISSED_CHECKS = 3
INTERVAL_SLACK_S = 120
"""For a check that is slow, and for ``CYCLE``, which gives each node its own moment."""


def health_check(site: SiteState) -> Iterator[Problem]:
    """Find a health check of ours that Slurm does not run, or seldom."""
    if site.installed.layout is None:
        return  # hooks-place tells
    settings = site.slurm.settings
    for line in required_lines.health_lines(settings, site.installed.layout.health_check):
        yield missing_line_problem("warning", line)
    for program in site.slurm.matches.get(HEALTH_KEY, ()):
        if program.problem:
            yield Problem(
                "warning",
                f"{HEALTH_KEY}={program.path}, which {program.problem}: it never runs",
                "a program with mode 755",
                f"chmod 755 {program.path}, or {site.installed.install_command}",
            )


def published(site: SiteState) -> Iterator[Problem]:
    """Find a node whose GPUs have not been published for longer than its health check takes."""
    if site.installed.layout is None:
        return
    settings = site.slurm.settings
    age_s = site.hook_probe.published_s
    interval_s = (
        settings.number(required_lines.HEALTH_CHECK_INTERVAL_KEY)
        or required_lines.HEALTH_CHECK_INTERVAL_S
    )
    if age_s is not None and age_s <= MAX_MISSED_CHECKS * interval_s + INTERVAL_SLACK_S:
        return
    since = "were never" if age_s is None else f"were last, {age_s:.0f} s ago,"
    own = required_lines.foreign_health_check(settings)
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
