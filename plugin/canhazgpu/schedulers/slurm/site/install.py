"""Install the hook scripts: plan every file, then write them.

If one target is a file that canhazgpu did not install, nothing is written at all.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from canhazgpu.errors import ConfigError
from canhazgpu.node.state_files import open_new_directory
from canhazgpu.path_presence import may_exist
from canhazgpu.schedulers.slurm.site.checksum import difference_text
from canhazgpu.schedulers.slurm.site.installed_files import (
    as_config_error,
    is_marked,
    read_marked,
    remove_stale_drafts,
    replace_file,
    under_root,
)
from canhazgpu.schedulers.slurm.site.layout import ScriptState, chained_script

SCRIPT_MODE = 0o755

Action = Literal["created", "updated", "unchanged"]

_ACTIONS: Mapping[ScriptState, Action] = {
    "absent": "created",
    "different": "updated",
    "same": "unchanged",
}


@dataclass(frozen=True, slots=True)
class HookFile:
    """One file to install: its path on the node, its text and its mode."""

    path: Path
    text: str
    mode: int = SCRIPT_MODE


@dataclass(frozen=True, slots=True)
class InstallStep:
    """What to do for one script; `target` is its path below the installation's root."""

    file: HookFile
    target: Path
    action: Action


def plan_install(
    files: Sequence[HookFile],
    states: Mapping[Path, ScriptState],
    root: Path,
    advice: str = "move it away, or name another directory with --slurm-dir",
) -> tuple[InstallStep, ...]:
    """Decide what to do for each file, from the state of its target.

    Raises `ConfigError` that names every target that canhazgpu did not install.
    """
    targets = [under_root(root, file.path) for file in files]
    foreign = [str(target) for target in targets if states[target] == "foreign"]
    if foreign:
        raise ConfigError(
            f"{', '.join(foreign)} was not installed by canhazgpu and is left as it is; {advice}"
        )
    return tuple(
        InstallStep(file, target, _ACTIONS[states[target]])
        for file, target in zip(files, targets, strict=True)
    )


def find_script_states(files: Sequence[HookFile], root: Path) -> dict[Path, ScriptState]:
    """Return the state of each file's target; raises `ConfigError` if one cannot be read."""
    targets = {under_root(root, file.path): file for file in files}
    with as_config_error():
        return {target: _script_state(target, file) for target, file in targets.items()}


def _script_state(target: Path, file: HookFile) -> ScriptState:
    try:
        found = target.lstat()
    except FileNotFoundError:
        return "absent"
    # Somebody else made a link, even one that leads to a script of canhazgpu.
    if not stat.S_ISREG(found.st_mode):
        return "foreign"
    content = target.read_bytes()
    if not is_marked(content):
        return "foreign"
    same = content == file.text.encode() and stat.S_IMODE(found.st_mode) == file.mode
    return "same" if same else "different"


def read_chained_scripts(paths: Iterable[str], root: Path) -> dict[str, str]:
    """Return those of these scripts that run a script of the site, each with that script's path."""
    texts = {path: read_marked(under_root(root, Path(path))) for path in paths}
    return {path: site for path, text in texts.items() if text and (site := chained_script(text))}


def describe_difference(target: Path, wanted: str) -> str:
    """Say how an installed script differs from the `wanted` text."""
    found = read_marked(target)
    if found is None:
        return "is gone meanwhile"
    if found == wanted:
        return f"has mode {stat.S_IMODE(target.lstat().st_mode):o}, not {SCRIPT_MODE:o}"
    return difference_text(found, wanted)


def step_diff(step: InstallStep) -> str:
    """Return the step's change as a unified diff, empty for no change."""
    if step.action == "unchanged":
        return ""
    before = read_marked(step.target)
    mode = "" if before is None else _mode_change(step)
    return mode + diff_text(step.target, before, step.file.text)


def _mode_change(step: InstallStep) -> str:
    mode, wanted = stat.S_IMODE(step.target.lstat().st_mode), step.file.mode
    return "" if mode == wanted else f"{step.target}: mode {mode:o} -> {wanted:o}\n"


def diff_text(path: Path, before: str | None, after: str | None) -> str:
    """Return a unified diff of one file; None stands for no file."""
    from difflib import unified_diff  # noqa: PLC0415 - only for --dry-run

    lines = unified_diff(
        (before or "").splitlines(keepends=True),
        (after or "").splitlines(keepends=True),
        "/dev/null" if before is None else str(path),
        "/dev/null" if after is None else str(path),
    )
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def apply_steps(steps: Sequence[InstallStep]) -> None:
    """Write the changed files, each atomically; raises `ConfigError` if one cannot be written."""
    with as_config_error():
        for step in steps:
            if step.action != "unchanged":
                _make_directories(step.target.parent)
                remove_stale_drafts(step.target)
                replace_file(step.target, step.file.text, step.file.mode)


def _make_directories(directory: Path) -> None:
    missing = [one for one in (directory, *directory.parents) if not may_exist(one)]
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        open_new_directory(one)  # regardless of the umask: users run the task prolog
