"""Put the hook scripts where Slurm runs them: first a plan of every file, then the writing.

Nothing is written unless everything can be: a file in the way that canhazgpu did not install is
left alone, and so are all others.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from canhazgpu.errors import ConfigError
from canhazgpu.schedulers.slurm.site.checksum import difference_text
from canhazgpu.schedulers.slurm.site.layout import ScriptState, chained_script

MARKER = "# Installed by canhazgpu"
"""Begins one of the first lines of every file that canhazgpu may replace."""

MARKER_MAX_LINES = 3
SCRIPT_MODE = 0o755
DIRECTORY_MODE = 0o755

Action = Literal["created", "updated", "unchanged"]

_ACTIONS: Mapping[ScriptState, Action] = {
    "absent": "created",
    "different": "updated",
    "same": "unchanged",
}


@dataclass(frozen=True, slots=True)
class HookFile:
    """One script to install: its path as Slurm knows it, and its text."""

    path: Path
    text: str


@dataclass(frozen=True, slots=True)
class InstallStep:
    """What is done for one script; `target` is its path below the root installed into."""

    file: HookFile
    target: Path
    action: Action


def plan_install(
    files: Sequence[HookFile], states: Mapping[Path, ScriptState], root: Path
) -> tuple[InstallStep, ...]:
    """Decide what to do, from what is found at each file's target.

    Raises `ConfigError` naming every file that is in the way.
    """
    targets = [under_root(root, file.path) for file in files]
    foreign = [str(target) for target in targets if states[target] == "foreign"]
    if foreign:
        raise ConfigError(
            f"{', '.join(foreign)} was not installed by canhazgpu and is left as it is; move it"
            " away, or name another directory with --slurm-dir"
        )
    return tuple(
        InstallStep(file, target, _ACTIONS[states[target]])
        for file, target in zip(files, targets, strict=True)
    )


def under_root(root: Path, path: Path) -> Path:
    """Return the absolute `path` as it lies below `root`."""
    return root / path.relative_to("/")


def find_script_states(files: Sequence[HookFile], root: Path) -> dict[Path, ScriptState]:
    """Return what is at each file's target; raises `ConfigError` where that cannot be told."""
    targets = {under_root(root, file.path): file for file in files}
    with as_config_error():
        return {target: _script_state(target, file.text) for target, file in targets.items()}


def _script_state(target: Path, text: str) -> ScriptState:
    try:
        found = target.lstat()
    except FileNotFoundError:
        return "absent"
    # A link is somebody's arrangement, even where it leads to a script of ours.
    if not stat.S_ISREG(found.st_mode):
        return "foreign"
    content = target.read_bytes()
    if not is_marked(content):
        return "foreign"
    same = content == text.encode() and stat.S_IMODE(found.st_mode) == SCRIPT_MODE
    return "same" if same else "different"


def is_marked(content: bytes) -> bool:
    """Tell whether a file with this content is one that canhazgpu installed."""
    return any(line.startswith(MARKER.encode()) for line in content.split(b"\n")[:MARKER_MAX_LINES])


def read_marked(target: Path) -> str | None:
    """Return the text of a file of ours, None for anything else, a link to one too."""
    try:
        if not stat.S_ISREG(target.lstat().st_mode):
            return None
        content = target.read_bytes()
    except OSError:
        return None
    return content.decode("utf-8", "replace") if is_marked(content) else None


def read_chained_scripts(paths: Iterable[str], root: Path) -> dict[str, str]:
    """Return, of these scripts, those of ours that run one of the site's, with its path."""
    texts = {path: read_marked(under_root(root, Path(path))) for path in paths}
    return {path: site for path, text in texts.items() if text and (site := chained_script(text))}


def describe_difference(target: Path, wanted: str) -> str:
    """Say what a script of ours, which is not as `wanted`, is instead."""
    found = read_marked(target)
    if found is None:
        return "is gone meanwhile"
    if found == wanted:
        return f"has mode {stat.S_IMODE(target.lstat().st_mode):o}, not {SCRIPT_MODE:o}"
    return difference_text(found, wanted)


def step_diff(step: InstallStep) -> str:
    """Return what the step changes as a unified diff, empty for nothing."""
    if step.action == "unchanged":
        return ""
    before = read_marked(step.target)
    mode = "" if before is None else _mode_change(step.target)
    return mode + diff_text(step.target, before, step.file.text)


def _mode_change(target: Path) -> str:
    mode = stat.S_IMODE(target.lstat().st_mode)
    return "" if mode == SCRIPT_MODE else f"{target}: mode {mode:o} -> {SCRIPT_MODE:o}\n"


def diff_text(path: Path, before: str | None, after: str | None) -> str:
    """Return a unified diff of one file; None stands for no file."""
    from difflib import unified_diff  # noqa: PLC0415 - only a change that is shown needs it

    lines = unified_diff(
        (before or "").splitlines(keepends=True),
        (after or "").splitlines(keepends=True),
        "/dev/null" if before is None else str(path),
        "/dev/null" if after is None else str(path),
    )
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def apply_steps(steps: Sequence[InstallStep]) -> None:
    """Write what changed, each file as a whole; raises `ConfigError` where it cannot be written."""
    with as_config_error():
        for step in steps:
            if step.action != "unchanged":
                _make_directories(step.target.parent)
                remove_stale_drafts(step.target)
                replace_file(step.target, step.file.text, SCRIPT_MODE)


def _make_directories(directory: Path) -> None:
    missing = [one for one in (directory, *directory.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        one.chmod(DIRECTORY_MODE)  # whatever the umask is: jobs' users run the task prolog


def replace_file(target: Path, text: str, mode: int) -> None:
    """Write the file as a whole or not at all; a link in its place is replaced, not followed."""
    # The leading dot keeps a half-written file out of Slurm's pattern prolog.d/*.
    draft = target.with_name(_draft_name(target, str(os.getpid())))
    draft.unlink(missing_ok=True)
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(draft, flags, 0o600), "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _draft_name(target: Path, pid: str) -> str:
    return f".{target.name}.{pid}.new"


def remove_stale_drafts(target: Path) -> None:
    """Remove what an installation of this file left that was killed."""
    form = re.compile(re.escape(_draft_name(target, "PID")).replace("PID", r"(\d+)"))
    for path in target.parent.iterdir():
        found = form.fullmatch(path.name)
        if found and not Path("/proc", found[1]).exists():
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def as_config_error() -> Iterator[None]:
    """Turn what writing files raises into a `ConfigError`."""
    try:
        yield
    except OSError as exc:
        raise ConfigError(f"cannot install {exc.filename}: {exc.strerror}") from exc
