"""Warnings of an installation: other scripts of the site, and hooks that are active at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from canhazgpu.schedulers.slurm.conf.settings import Settings
from canhazgpu.schedulers.slurm.site.checksum import is_edited
from canhazgpu.schedulers.slurm.site.health_lines import foreign_health_check
from canhazgpu.schedulers.slurm.site.install import InstallStep
from canhazgpu.schedulers.slurm.site.installed_files import read_marked
from canhazgpu.schedulers.slurm.site.layout import HEALTH_KEY, Layout
from canhazgpu.schedulers.slurm.site.programs import calls_our_health_check, matched_programs
from canhazgpu.schedulers.slurm.site.required_lines import script_line


def install_warnings(
    site: Settings, layout: Layout, steps: Sequence[InstallStep], root: Path, *, slurm_picks: bool
) -> Iterator[str]:
    """Yield what an administrator should know before the scripts are installed.

    `slurm_picks` is True if the ledger takes the GPUs that Slurm has picked.
    """
    yield from _active_immediately(site, layout, steps, slurm_picks=slurm_picks)
    yield from _coexisting_scripts(site, layout, steps, root)
    yield from _overwritten_edits(steps)
    program = foreign_health_check(site)
    if program and not calls_our_health_check(program, root):
        yield f"{HEALTH_KEY}={program} is the site's: call {layout.health_check} from there"


def _active_immediately(
    site: Settings, layout: Layout, steps: Sequence[InstallStep], *, slurm_picks: bool
) -> Iterator[str]:
    """Warn of hooks that Slurm runs as soon as their files exist, with no change of slurm.conf."""
    new = {str(step.file.path) for step in steps if step.action == "created"}
    live = [
        place.key
        for place in (layout.prolog, layout.epilog)
        if place.script in new and script_line(site, place) is None
    ]
    if not live:
        return
    yield (
        f"slurm.conf names the directory of {' and '.join(live)} already: the node's next job runs"
        " canhazgpu. See first that 'canhazgpu hooks check' finds nothing wrong with gpus and store"
    )
    if script_line(site, layout.task_prolog) and not slurm_picks:
        yield (
            "until TaskProlog is in force, tasks see the GPUs that Slurm has picked, and not those"
            ' that canhazgpu picks: have slurm.assignment = "slurm" until then'
        )


def _coexisting_scripts(
    site: Settings, layout: Layout, steps: Sequence[InstallStep], root: Path
) -> Iterator[str]:
    """Warn of other scripts that a new pattern makes Slurm run, and of those it cannot run."""
    ours = {str(step.file.path) for step in steps}
    new = {
        place.key.lower(): (place.value,)
        for place in (layout.prolog, layout.epilog)
        if place.value not in site.all(place.key)
    }
    others = {
        (key, one.path, one.problem)
        for settings in (Settings(new), site)
        for key, found in matched_programs(settings, root).items()
        for one in found
        if key in ("Prolog", "Epilog")
        and one.path not in ours
        and (one.problem or settings is not site)
    }
    for key, path, problem in sorted(others, key=str):
        drains = f", which {problem}: it drains the node" if problem else ""
        yield f"{key} runs {path} as well{drains}"


def _overwritten_edits(steps: Sequence[InstallStep]) -> Iterator[str]:
    for step in steps:
        if step.action == "updated" and is_edited(read_marked(step.target) or ""):
            yield (
                f"{step.target} was changed by hand, and what was changed is not kept:"
                " see it with --dry-run"
            )
