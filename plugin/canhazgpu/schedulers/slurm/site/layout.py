"""Where the hook scripts go on a site, beside the site's own scripts or in front of them; pure.

Slurm's rules, measured on 22.05: The files that a pattern of Prolog or Epilog matches run from z to
0, and the first that fails ends the run. A pattern that matches nothing is a failure, and so is a
file that cannot be run. There is one TaskProlog; if its file is missing, every task fails.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from canhazgpu.errors import ConfigError
from canhazgpu.schedulers.slurm.conf.settings import Settings

OWN_DIR = "canhazgpu"
"""canhazgpu's own directory, below Slurm's."""

HOOK_FILE_NAMES = ("canhazgpu.sh", "canhazgpu", "00-canhazgpu.sh", "00-canhazgpu")
"""Names for canhazgpu's prolog and epilog; the first that a site's pattern matches is used."""

SITE_SCRIPT = "site.sh"
"""Runs the site's own script. Slurm runs it before canhazgpu's, since its name sorts after it."""

TASK_PROLOG = "task_prolog.sh"
TASK_CHAIN = "task_prolog_chain.sh"
HEALTH_CHECK = "health_check.sh"

HOOK_KEYS = ("Prolog", "Epilog")
JOB_SCRIPT_KEYS = (*HOOK_KEYS, "TaskProlog")
HEALTH_KEY = "HealthCheckProgram"

ScriptState = Literal["absent", "foreign", "same", "different"]
"""The state of a script's target; `foreign` is a file that canhazgpu did not install."""

_RUNS = re.compile(r"^# Runs: (/.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ScriptLocation:
    """Where one script of canhazgpu goes, and the value that slurm.conf needs for it.

    `chain` is another script of canhazgpu, which also runs `site`, the site's own script. Both are
    None if there is no script to chain.
    """

    key: str
    script: str
    value: str
    chain: str | None = None
    site: str | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """The locations of all scripts; `health_check` is the path of the health check's script."""

    prolog: ScriptLocation
    epilog: ScriptLocation
    task_prolog: ScriptLocation
    health_check: str

    @property
    def locations(self) -> tuple[ScriptLocation, ...]:
        """The locations of a job's hooks."""
        return (self.prolog, self.epilog, self.task_prolog)


def plan_layout(
    settings: Settings, slurm_dir: str, given: Mapping[str, str], chained: Mapping[str, str]
) -> Layout:
    """Return where the scripts go on a site with these settings.

    `given` has, by key, the site's own script to chain, empty for none; it overrides slurm.conf.
    `chained` has, by chaining script, the site's script that it runs now. Raises `ConfigError` if
    the site's settings allow no location, or do not say which script to chain.
    """
    prolog, epilog = (
        _hook_for_site_script(key, slurm_dir, given[key])
        if key in given
        else _hook_location(key, settings.all(key), slurm_dir, chained)
        for key in HOOK_KEYS
    )
    task_prolog = _task_prolog_location(
        settings.get("TaskProlog"), slurm_dir, given.get("TaskProlog"), chained
    )
    # Beside the task prolog: one directory has all of canhazgpu's own files.
    health_check = f"{posixpath.dirname(task_prolog.script)}/{HEALTH_CHECK}"
    return Layout(prolog, epilog, task_prolog, health_check)


def is_pattern(value: str) -> bool:
    """Tell whether Slurm treats the value as a pattern of file names."""
    return any(letter in value for letter in "*?[")


def chained_script(text: str) -> str | None:
    """Return the site's script that a chaining script runs, None for any other text."""
    found = _RUNS.search(text)
    return found[1] if found else None


def chain_script_paths(settings: Settings, slurm_dir: str) -> tuple[str, ...]:
    """Return the paths at which chaining scripts can be."""
    own = (*(f"{_own_directory(key, slurm_dir)}/{SITE_SCRIPT}" for key in HOOK_KEYS),)
    task = settings.get("TaskProlog")
    extra = (task,) if task.endswith(f"/{OWN_DIR}/{TASK_CHAIN}") else ()
    return tuple(dict.fromkeys((*own, f"{slurm_dir}/{OWN_DIR}/{TASK_CHAIN}", *extra)))


def default_pattern(key: str, slurm_dir: str) -> str:
    """Return the pattern for a site without a pattern."""
    return f"{slurm_dir}/{key.lower()}.d/*"


def _own_directory(key: str, slurm_dir: str) -> str:
    return f"{slurm_dir}/{OWN_DIR}/{key.lower()}.d"


def _hook_for_site_script(key: str, slurm_dir: str, site: str) -> ScriptLocation:
    if site:
        own = _own_directory(key, slurm_dir)
        return ScriptLocation(
            key, f"{own}/{HOOK_FILE_NAMES[0]}", f"{own}/*", f"{own}/{SITE_SCRIPT}", site
        )
    pattern = default_pattern(key, slurm_dir)
    return ScriptLocation(key, f"{posixpath.dirname(pattern)}/{HOOK_FILE_NAMES[0]}", pattern)


def _hook_location(
    key: str, values: tuple[str, ...], slurm_dir: str, chained: Mapping[str, str]
) -> ScriptLocation:
    if not values:
        return _hook_for_site_script(key, slurm_dir, "")
    for value in reversed(values):
        if script := _script_for(value):
            return _location_in_pattern(key, script, value, slurm_dir, chained)
    value = values[-1]
    if is_pattern(value):
        raise ConfigError(
            f"{key}={value} matches none of {', '.join(HOOK_FILE_NAMES)},"
            " so canhazgpu's script has no place: use a pattern such as"
            f" {posixpath.dirname(value)}/*"
        )
    if not value.startswith("/"):
        raise ConfigError(f"{key}={value} is not an absolute path: give one, or a pattern")
    return _hook_for_site_script(key, slurm_dir, value)


def _script_for(value: str) -> str | None:
    """Return the path at which Slurm runs canhazgpu's script for this value, None for none."""
    directory, name = posixpath.split(value)
    if not directory.startswith("/") or is_pattern(directory):
        return None
    fitting = [one for one in HOOK_FILE_NAMES if fnmatchcase(one, name)]
    return f"{directory}/{fitting[0]}" if fitting else None


def _location_in_pattern(
    key: str, script: str, value: str, slurm_dir: str, chained: Mapping[str, str]
) -> ScriptLocation:
    own = _own_directory(key, slurm_dir)
    chain = f"{own}/{SITE_SCRIPT}"
    if posixpath.dirname(script) != own:
        return ScriptLocation(key, script, value)
    if chain not in chained:
        raise ConfigError(_unknown_chain_text(key, value, chain))
    return ScriptLocation(key, script, value, chain, chained[chain])


def _task_prolog_location(
    value: str, slurm_dir: str, given: str | None, chained: Mapping[str, str]
) -> ScriptLocation:
    directory = f"{slurm_dir}/{OWN_DIR}"
    if value.endswith((f"/{OWN_DIR}/{TASK_PROLOG}", f"/{OWN_DIR}/{TASK_CHAIN}")):
        directory = posixpath.dirname(value)
    script, chain = f"{directory}/{TASK_PROLOG}", f"{directory}/{TASK_CHAIN}"
    site = value if given is None else given
    if given is None and value == chain:
        if chain not in chained:
            raise ConfigError(_unknown_chain_text("TaskProlog", value, chain))
        site = chained[chain]
    if site in ("", script):
        return ScriptLocation("TaskProlog", script, script)
    if not site.startswith("/"):
        raise ConfigError(f"TaskProlog={site} is not an absolute path")
    return ScriptLocation("TaskProlog", script, chain, chain, site)


def _unknown_chain_text(key: str, value: str, chain: str) -> str:
    return (
        f"slurm.conf has {key}={value}, but {chain} does not say which script of the site it runs:"
        f" say it with --chain {key}=/its/path, or with --chain {key}= for none"
    )
