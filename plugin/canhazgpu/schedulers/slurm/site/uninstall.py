"""Uninstall the hook scripts, and find what in slurm.conf still names them."""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from canhazgpu.schedulers.slurm.conf.settings import Settings
from canhazgpu.schedulers.slurm.site.health_lines import HEALTH_CHECK_COMMAND
from canhazgpu.schedulers.slurm.site.installed_files import (
    as_config_error,
    read_marked,
    remove_stale_drafts,
    under_root,
)
from canhazgpu.schedulers.slurm.site.layout import (
    HEALTH_CHECK,
    HEALTH_KEY,
    HOOK_FILE_NAMES,
    HOOK_KEYS,
    JOB_SCRIPT_KEYS,
    OWN_DIR,
    SITE_SCRIPT,
    TASK_CHAIN,
    TASK_PROLOG,
    chained_script,
    default_pattern,
    is_pattern,
)
from canhazgpu.schedulers.slurm.site.state import Program

SCRIPT_NAMES = (*HOOK_FILE_NAMES, SITE_SCRIPT, TASK_PROLOG, TASK_CHAIN, HEALTH_CHECK)
PROGRAM_KEYS = (*JOB_SCRIPT_KEYS, HEALTH_KEY)


@dataclass(frozen=True, slots=True)
class Removal:
    """One script to remove: its path as Slurm knows it, the file below the root, and its text."""

    path: str
    target: Path
    text: str


@dataclass(frozen=True, slots=True)
class DanglingReference:
    """A value of slurm.conf that would name no file; `site` is the site's own script for it."""

    key: str
    value: str
    site: str | None

    @property
    def change(self) -> str:
        """Say what to do with the line."""
        line = f"{self.key}={self.value}"
        return f"{line}  ->  {self.key}={self.site}" if self.site else f"{line}  ->  take it out"


def script_directories(settings: Settings, slurm_dir: str) -> tuple[str, ...]:
    """Return every directory in which canhazgpu's scripts can be, deepest first."""
    own = [f"{slurm_dir}/{OWN_DIR}/{key.lower()}.d" for key in HOOK_KEYS]
    default = [posixpath.dirname(default_pattern(key, slurm_dir)) for key in HOOK_KEYS]
    named = [posixpath.dirname(value) for key in PROGRAM_KEYS for value in settings.all(key)]
    usable = [one for one in named if one.startswith("/") and not is_pattern(one)]
    return tuple(dict.fromkeys((*own, f"{slurm_dir}/{OWN_DIR}", *default, *usable)))


def find_installed(directories: Iterable[str], root: Path) -> tuple[list[Removal], list[Path]]:
    """Return canhazgpu's scripts in these directories, and other files with their names.

    Of other files, only those with a name that contains ``canhazgpu`` are returned.
    """
    removals: list[Removal] = []
    foreign: list[Path] = []
    for directory in directories:
        for name in SCRIPT_NAMES:
            target = under_root(root, Path(directory)) / name
            if (text := read_marked(target)) is not None:
                removals.append(Removal(f"{directory}/{name}", target, text))
            elif name in HOOK_FILE_NAMES and (target.is_symlink() or target.is_file()):
                foreign.append(target)
    return removals, foreign


def find_dangling_references(
    settings: Settings, matched: Mapping[str, Iterable[Program]], removals: Iterable[Removal]
) -> tuple[DanglingReference, ...]:
    """Return the values of slurm.conf that would name no file after the removals.

    Jobs would fail because of them. The command ``canhazgpu-healthcheck`` counts too: it is
    uninstalled after the scripts.
    """
    texts = {one.path: one.text for one in removals}
    named = [
        DanglingReference(key, settings.get(key), _chained_site_script(paths & texts.keys(), texts))
        for key in PROGRAM_KEYS
        if (paths := {one.path for one in matched.get(key, ())}) and paths <= texts.keys()
    ]
    program = settings.get(HEALTH_KEY)
    if texts and posixpath.basename(program) == HEALTH_CHECK_COMMAND:
        named.append(DanglingReference(HEALTH_KEY, program, None))
    return tuple(named)


def _chained_site_script(paths: Iterable[str], texts: Mapping[str, str]) -> str | None:
    return next((site for path in sorted(paths) if (site := chained_script(texts[path]))), None)


def remove_scripts(removals: Iterable[Removal], slurm_dir: str, root: Path) -> None:
    """Remove the scripts, and those of canhazgpu's directories that are empty afterwards.

    Raises `ConfigError` if a file cannot be removed.
    """
    emptied = {
        under_root(root, Path(directory)): None
        for directory in _own_directories(removals, slurm_dir)
    }
    with as_config_error():
        for one in removals:
            remove_stale_drafts(one.target)
            one.target.unlink(missing_ok=True)
    for directory in emptied:
        with contextlib.suppress(OSError):
            directory.rmdir()


def _own_directories(removals: Iterable[Removal], slurm_dir: str) -> Iterator[str]:
    """Give the directories that an installation makes, deepest first."""
    from_these = {posixpath.dirname(one.path) for one in removals}
    for key in HOOK_KEYS:
        yield f"{slurm_dir}/{OWN_DIR}/{key.lower()}.d"
    yield f"{slurm_dir}/{OWN_DIR}"
    for key in HOOK_KEYS:
        if (directory := posixpath.dirname(default_pattern(key, slurm_dir))) in from_these:
            yield directory
