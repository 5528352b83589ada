"""Pure: the checks of the scripts, and of what Slurm runs."""

from __future__ import annotations

from collections.abc import Iterator

from canhazgpu.schedulers.slurm import lines
from canhazgpu.schedulers.slurm.checks_conf import line_problem
from canhazgpu.schedulers.slurm.layout import HOOK_KEYS, KEYS, NAMES, State
from canhazgpu.schedulers.slurm.settings import Settings
from canhazgpu.schedulers.slurm.site import Problem, Site

RECONFIGURE = "scontrol reconfigure"


def hooks_place(site: Site) -> Iterator[Problem]:
    """Find an arrangement that leaves no place for our scripts."""
    if fault := site.ours.layout_fault:
        yield Problem(
            "error", fault, f"a pattern that matches {NAMES[0]}", "canhazgpu hooks install"
        )


def hooks_installed(site: Site) -> Iterator[Problem]:
    """Find scripts that are missing, changed or of another release."""
    scripts = site.ours.scripts
    if scripts and set(scripts.values()) == {"absent"}:
        yield Problem(
            "error",
            "none of canhazgpu's scripts is there",
            ", ".join(scripts),
            site.ours.install_command,
        )
        return
    for path, state in scripts.items():
        if state != "same":
            found, fix = _not_ours(site, path, state)
            yield Problem("error", f"{path} {found}", "the script of this release", fix)


def _not_ours(site: Site, path: str, state: State) -> tuple[str, str]:
    """Return what is where a script of ours should be, and what mends it."""
    command = site.ours.install_command
    if state == "foreign":
        return "was not installed by canhazgpu", f"move {path} away"
    if state == "absent":
        return "is not there", command
    what = site.ours.differences[path]
    _, names_another, file = what.partition(": CANHAZGPU_CONFIG=")
    if names_another:
        return (
            what,
            f"where that file is meant: canhazgpu --config {file} hooks check; else {command}",
        )
    return what, f"{command} (with --dry-run it shows the difference)"


def prolog(site: Site) -> Iterator[Problem]:
    """Find a Prolog= without ours."""
    yield from _runs_ours(site, "Prolog")


def epilog(site: Site) -> Iterator[Problem]:
    """Find an Epilog= without ours."""
    yield from _runs_ours(site, "Epilog")


def _runs_ours(site: Site, key: str) -> Iterator[Problem]:
    layout = site.ours.layout
    if layout is None:
        return  # hooks-place tells
    place = layout.prolog if key == "Prolog" else layout.epilog
    if line := lines.place_line(site.slurm.settings, place):
        yield line_problem("error", line)


def task_prolog(site: Site) -> Iterator[Problem]:
    """Find a TaskProlog that is not ours, or that kills every task."""
    layout = site.ours.layout
    if layout and (line := lines.place_line(site.slurm.settings, layout.task_prolog)):
        yield line_problem("error", line)
    for program in site.slurm.matches.get("TaskProlog", ()):
        if program.problem:
            yield Problem(
                "error",
                f"TaskProlog={program.path}, which {program.problem}: every task dies",
                "a script with mode 755",
                site.ours.install_command,
            )


def hook_patterns(site: Site) -> Iterator[Problem]:
    """Find a pattern that matches nothing, which drains nodes."""
    for key in HOOK_KEYS:
        values = site.slurm.settings.all(key)
        if values and not site.slurm.matches.get(key):
            yield Problem(
                "error",
                f"{key}={values[-1]} matches no file: the next job drains the node",
                "at least one script",
                site.ours.install_command,
            )


def hook_scripts(site: Site) -> Iterator[Problem]:
    """Find what a pattern matches and Slurm cannot run, which drains nodes."""
    for key in HOOK_KEYS:
        for program in site.slurm.matches.get(key, ()):
            if program.problem:
                yield Problem(
                    "error",
                    f"{key} runs {program.path}, which {program.problem}: the next job drains"
                    " the node",
                    "scripts alone, each with mode 755",
                    f"chmod 755 {program.path}, or move it out of the directory",
                )


def site_scripts(site: Site) -> Iterator[Problem]:
    """Find scripts of the site that ours are to run, and cannot."""
    for program in site.ours.site_scripts:
        if program.problem:
            yield Problem(
                "error",
                f"{program.path}, which canhazgpu runs for the site, {program.problem}",
                "a script with mode 755",
                f"chmod 755 {program.path}, or canhazgpu hooks install --chain KEY=PATH",
            )


def running_config(site: Site) -> Iterator[Problem]:
    """Find a controller that has not read this slurm.conf."""
    running, settings = site.slurm.running, site.slurm.settings
    if running is None:
        return
    for key in (*KEYS, "PrologFlags"):
        if _differs(settings, running, key):
            yield Problem(
                "warning",
                f"slurm.conf has {key}={settings.get(key)}, the controller runs with"
                f" {running.get(key) or 'none'}",
                "the same",
                RECONFIGURE,
            )


def _differs(settings: Settings, running: Settings, key: str) -> bool:
    if key == "PrologFlags":  # the controller adds the flags that others imply
        return not set(settings.words(key)) <= set(running.words(key))
    return settings.get(key) != running.get(key)
