"""What an installation meets on a site, as warnings: scripts beside ours, and what runs at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from canhazgpu.schedulers.slurm.install import Step, read_marked
from canhazgpu.schedulers.slurm.layout import HEALTH_KEY, Layout
from canhazgpu.schedulers.slurm.lines import place_line, runs_no_check_of_ours
from canhazgpu.schedulers.slurm.seal import changed_by_hand
from canhazgpu.schedulers.slurm.settings import Settings
from canhazgpu.schedulers.slurm.survey import matches, says_health_check


def install_warnings(
    site: Settings, layout: Layout, steps: Sequence[Step], root: Path, *, slurm_picks: bool
) -> Iterator[str]:
    """Tell what an administrator should know before the scripts are there.

    `slurm_picks` tells whether the GPUs in the ledger are those that Slurm has picked.
    """
    yield from _at_once(site, layout, steps, slurm_picks=slurm_picks)
    yield from _company(site, layout, steps, root)
    yield from _lost_edits(steps)
    program = runs_no_check_of_ours(site)
    if program and not says_health_check(program, root):
        yield f"{HEALTH_KEY}={program} is the site's: call {layout.health_check} from there"


def _at_once(
    site: Settings, layout: Layout, steps: Sequence[Step], *, slurm_picks: bool
) -> Iterator[str]:
    """Tell of a hook that Slurm runs as soon as its file is there, whatever slurm.conf lacks."""
    new = {str(step.file.path) for step in steps if step.action == "created"}
    live = [
        place.key
        for place in (layout.prolog, layout.epilog)
        if place.script in new and place_line(site, place) is None
    ]
    if not live:
        return
    yield (
        f"slurm.conf names the directory of {' and '.join(live)} already: the node's next job runs"
        " canhazgpu. See first that 'canhazgpu hooks check' finds nothing wrong with gpus and store"
    )
    if place_line(site, layout.task_prolog) and not slurm_picks:
        yield (
            "until TaskProlog is in force, tasks see the GPUs that Slurm has picked, and not those"
            ' that canhazgpu picks: have slurm.assignment = "slurm" until then'
        )


def _company(site: Settings, layout: Layout, steps: Sequence[Step], root: Path) -> Iterator[str]:
    """Tell which other scripts a new pattern makes Slurm run, and which it cannot run."""
    ours = {str(step.file.path) for step in steps}
    new = {
        place.key.lower(): (place.value,)
        for place in (layout.prolog, layout.epilog)
        if place.value not in site.all(place.key)
    }
    others = {
        (key, one.path, one.problem)
        for settings in (Settings(new), site)
        for key, found in matches(settings, root).items()
        for one in found
        if key in ("Prolog", "Epilog")
        and one.path not in ours
        and (one.problem or settings is not site)
    }
    for key, path, problem in sorted(others, key=str):
        drains = f", which {problem}: it drains the node" if problem else ""
        yield f"{key} runs {path} as well{drains}"


def _lost_edits(steps: Sequence[Step]) -> Iterator[str]:
    for step in steps:
        if step.action == "updated" and changed_by_hand(read_marked(step.target) or ""):
            yield (
                f"{step.target} was changed by hand, and what was changed is not kept:"
                " see it with --dry-run"
            )
