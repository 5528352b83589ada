"""The checks of the node's agent, and of the page that may read through it; pure."""

from __future__ import annotations

from collections.abc import Iterator

from canhazgpu.schedulers.slurm.site.state import Problem, SiteState

NO_AGENT = (
    "no agent runs, so hooks do their work in their own processes: 'canhazgpu agent install' makes"
    " them faster"
)


def agent_text(site: SiteState) -> str:
    """Say what is there, where nothing is wrong with it."""
    return NO_AGENT if site.agent.release is None else "the agent answers, with this release"


def agent(site: SiteState) -> Iterator[Problem]:
    """Find an agent of another release, one that gives no answer, and one that was not started."""
    found = site.agent
    start = f"systemctl restart {found.unit}" if found.unit else "canhazgpu agent install"
    if found.release is not None:
        if found.not_taken:
            yield Problem(
                "warning",
                f"the agent stays with release {found.release}, because the installed one does not"
                f" start: {found.not_taken}",
                "a release that starts: 'canhazgpu agent run --check' says it",
                "mend the installation, then canhazgpu agent reload",
            )
        elif found.release != found.wanted:
            yield Problem(
                "warning",
                f"the agent is of release {found.release}: hooks are answered with that one",
                f"release {found.wanted}",
                "canhazgpu agent install; or agent reload where another supervisor runs it",
            )
    elif found.fault:
        yield Problem(
            "warning",
            f"{found.fault}; hooks wait for it, some seconds at most, and do their work themselves",
            "an agent that answers, or none",
            start,
        )
    elif found.unit:
        yield Problem("warning", f"{found.unit} is installed, and no agent runs", "an agent", start)


def page_text(site: SiteState) -> str:
    """Say what a page here reads, where nothing is wrong with it."""
    source = site.config.config.web.source
    if source == "agent":
        return "a page here asks the agent"
    if source == "auto" and site.agent.release is not None:
        return "a page here reads the store, or asks the agent where its user has no login"
    return "a page here reads the store, with the login of its user"


def page(site: SiteState) -> Iterator[Problem]:
    """Find a page that is to ask an agent where none answers."""
    if site.config.config.web.source == "agent" and site.agent.release is None:
        yield Problem(
            "warning",
            "web.source is agent, and none answers: a page here shows no present state",
            "an agent",
            'canhazgpu agent install; or source = "auto" in [web]',
        )
