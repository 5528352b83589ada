"""The checks of the scripts that Slurm runs; pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from canhazgpu.schedulers.slurm.conf.settings import Settings
from canhazgpu.schedulers.slurm.site import required_lines
from canhazgpu.schedulers.slurm.site.checks.conf import missing_line_problem
from canhazgpu.schedulers.slurm.site.hook_paths import finds_relative_hooks
from canhazgpu.schedulers.slurm.site.layout import (
    HOOK_FILE_NAMES,
    HOOK_KEYS,
    JOB_SCRIPT_KEYS,
    ScriptState,
)
from canhazgpu.schedulers.slurm.site.state import Problem, SiteState

RECONFIGURE_COMMAND = "scontrol reconfigure"

PLUGIN_KEYS = {"TaskPlugin": "task", "ProctrackType": "proctrack"}
"""Settings that name plugins, each with the plugins' kind."""


NUMBER_KEYS = (
    *("PrologTimeout", "EpilogTimeout", "PrologEpilogTimeout", "MessageTimeout"),
    *("BatchStartTimeout", "UnkillableStepTimeout", "HealthCheckInterval"),
)
OTHER_KEYS = ("GresTypes", "HealthCheckProgram")


def hooks_place(site: SiteState) -> Iterator[Problem]:
    """Find a site with no location for canhazgpu's scripts."""
    if fault := site.installed.layout_fault:
        yield Problem(
            "error",
            fault,
            f"a pattern that matches {HOOK_FILE_NAMES[0]}",
            "canhazgpu hooks install",
        )


def hooks_installed(site: SiteState) -> Iterator[Problem]:
    """Find scripts that are missing, changed or of another release."""
    scripts = site.installed.scripts
    if scripts and set(scripts.values()) == {"absent"}:
        yield Problem(
            "error",
            "none of canhazgpu's scripts is there",
            ", ".join(scripts),
            site.installed.install_command,
        )
        return
    for path, state in scripts.items():
        if state != "same":
            found, fix = _mismatch(site, path, state)
            yield Problem("error", f"{path} {found}", "the script of this release", fix)


def _mismatch(site: SiteState, path: str, state: ScriptState) -> tuple[str, str]:
    """Return what is at the path of a script of canhazgpu, and what fixes it."""
    command = site.installed.install_command
    if state == "foreign":
        return "was not installed by canhazgpu", f"move {path} away"
    if state == "absent":
        return "is not there", command
    what = site.installed.differences[path]
    _, names_another, file = what.partition(": CANHAZGPU_CONFIG=")
    if names_another:
        return (
            what,
            f"where that file is meant: canhazgpu --config {file} hooks check; else {command}",
        )
    return what, f"{command} (with --dry-run it shows the difference)"


def prolog(site: SiteState) -> Iterator[Problem]:
    """Find a Prolog= without canhazgpu's script."""
    yield from _missing_script_line(site, "Prolog")


def epilog(site: SiteState) -> Iterator[Problem]:
    """Find an Epilog= without canhazgpu's script."""
    yield from _missing_script_line(site, "Epilog")


def _missing_script_line(site: SiteState, key: str) -> Iterator[Problem]:
    layout = site.installed.layout
    if layout is None:
        return  # the check hooks-place reports it
    location = layout.prolog if key == "Prolog" else layout.epilog
    if line := required_lines.script_line(site.slurm.settings, location):
        yield missing_line_problem("error", line)
        return
    programs = {one.path: one for one in site.slurm.programs.get(key, ())}
    own = programs.get(location.script)
    if own is None or own.problem:
        why = f"{own.problem}" if own else "is not there"
        yield Problem(
            "error",
            f"{key}={location.value} runs nothing of canhazgpu's: {location.script} {why}",
            "the script",
            site.installed.install_command,
        )


def task_prolog(site: SiteState) -> Iterator[Problem]:
    """Find a TaskProlog without canhazgpu's script, or one that makes every task fail."""
    layout = site.installed.layout
    if layout and (line := required_lines.script_line(site.slurm.settings, layout.task_prolog)):
        yield missing_line_problem("error", line)
    for program in site.slurm.programs.get("TaskProlog", ()):
        if program.problem:
            yield Problem(
                "error",
                f"TaskProlog={program.path}, which {program.problem}: every task dies",
                "a script with mode 755",
                site.installed.install_command,
            )
    for program in site.installed.chained_scripts:
        if program.problem and site.installed.scripts.get(program.path) != "absent":
            yield Problem(
                "error",
                f"{program.path}, which TaskProlog runs beside the site's, {program.problem}:"
                " tasks may see no GPU",
                "a script with mode 755",
                site.installed.install_command,
            )


def hook_patterns(site: SiteState) -> Iterator[Problem]:
    """Find a pattern that matches no file: Slurm then drains the node."""
    for key in HOOK_KEYS:
        values = site.slurm.settings.all(key)
        if values and not site.slurm.programs.get(key):
            yield Problem(
                "error",
                f"{key}={values[-1]} matches no file: the next job drains the node",
                "at least one script",
                site.installed.install_command,
            )


def hook_names(site: SiteState) -> Iterator[Problem]:
    """Find hooks without a directory, which older releases of Slurm do not find."""
    if finds_relative_hooks(site.slurm.version):
        return
    for line in site.slurm.relative_hooks:
        yield Problem(
            "error",
            f"{line} is no absolute path, and {site.slurm.version} does not look beside slurm.conf",
            "an absolute path",
            _absolute_hook_line(site, line),
        )


def _absolute_hook_line(site: SiteState, line: str) -> str:
    """Return the line for a relative hook: that which the hook's own check wants, if any."""
    layout, (key, _, name) = site.installed.layout, line.partition("=")
    wanted = {one.key: one.value for one in layout.locations} if layout else {}
    return f"{key}={wanted.get(key, f'{posixpath.dirname(site.slurm.conf.path)}/{name}')}"


def hook_scripts(site: SiteState) -> Iterator[Problem]:
    """Find a matched file that Slurm cannot run: Slurm then drains the node."""
    for key in HOOK_KEYS:
        for program in site.slurm.programs.get(key, ()):
            if program.problem:
                yield Problem(
                    "error",
                    f"{key} runs {program.path}, which {program.problem}: the next job drains"
                    " the node",
                    "scripts alone, each with mode 755",
                    f"chmod 755 {program.path}, or move it out of the directory",
                )


def site_scripts(site: SiteState) -> Iterator[Problem]:
    """Find scripts of the site that canhazgpu's scripts cannot run."""
    for program in site.installed.site_scripts:
        if program.problem:
            yield Problem(
                "error",
                f"{program.path}, which canhazgpu runs for the site, {program.problem}",
                "a script with mode 755",
                f"chmod 755 {program.path}, or canhazgpu hooks install --chain KEY=PATH",
            )


def running_config(site: SiteState) -> Iterator[Problem]:
    """Find a controller that has not read this slurm.conf."""
    running, settings = site.slurm.controller_settings, site.slurm.settings
    if running is None:
        return
    for key in (*JOB_SCRIPT_KEYS, "PrologFlags", *PLUGIN_KEYS, *NUMBER_KEYS, *OTHER_KEYS):
        if _setting_differs(settings, running, key):
            yield Problem(
                "warning",
                f"slurm.conf has {key}={settings.get(key)}, the controller runs with"
                f" {running.get(key) or 'none'}",
                "the same",
                RECONFIGURE_COMMAND,
            )


def _setting_differs(settings: Settings, running: Settings, key: str) -> bool:
    if key == "PrologFlags":  # the controller adds implied flags
        return not set(settings.words(key)) <= set(running.words(key))
    if kind := PLUGIN_KEYS.get(key):  # the controller may add prefixes, and has defaults
        own = set(settings.plugins(key, kind))
        return bool(own) and own != set(running.plugins(key, kind))
    if key in NUMBER_KEYS:  # the controller says "60 sec"
        wanted, used = settings.number(key), running.get(key).partition(" ")[0]
        return wanted is not None and used.isdecimal() and wanted != int(used)
    if key == "GresTypes":
        return set(settings.words(key)) != set(running.words(key)) and bool(settings.words(key))
    if key in OTHER_KEYS and not settings.get(key):
        return False  # the controller has defaults
    return settings.get(key) != running.get(key)
