"""Put the hook scripts where Slurm runs them: first a plan of every file, then the writing.

Nothing is written unless everything can be: a file in the way that canhazgpu did not install is
left alone, and so are all others.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from canhazgpu.errors import ConfigError

MARKER = "# Installed by canhazgpu"
"""Begins one of the first lines of every file that canhazgpu may replace."""

MARKED_LINES = 3
SCRIPT_MODE = 0o755
DIRECTORY_MODE = 0o755

State = Literal["absent", "foreign", "same", "different"]
Action = Literal["created", "updated", "unchanged"]

_ACTIONS: Mapping[State, Action] = {
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
class Step:
    """What is done for one script; `target` is its path below the root installed into."""

    file: HookFile
    target: Path
    action: Action


def plan(files: Sequence[HookFile], states: Mapping[Path, State], root: Path) -> tuple[Step, ...]:
    """Decide what to do, from what is found at each file's target.

    Raises `ConfigError` naming every file that is in the way.
    """
    targets = [below(root, file.path) for file in files]
    foreign = [str(target) for target in targets if states[target] == "foreign"]
    if foreign:
        raise ConfigError(
            f"{', '.join(foreign)} was not installed by canhazgpu and is left as it is; move it"
            " away, or name another directory with --slurm-dir"
        )
    return tuple(
        Step(file, target, _ACTIONS[states[target]])
        for file, target in zip(files, targets, strict=True)
    )


def below(root: Path, path: Path) -> Path:
    """Return the absolute `path` as it lies below `root`."""
    return root / path.relative_to("/")


def look(files: Sequence[HookFile], root: Path) -> dict[Path, State]:
    """Return what is at each file's target; raises `ConfigError` where that cannot be told."""
    targets = {below(root, file.path): file for file in files}
    with _translated():
        return {target: _state(target, file.text) for target, file in targets.items()}


def _state(target: Path, text: str) -> State:
    try:
        found = target.lstat()
    except FileNotFoundError:
        return "absent"
    # A link is somebody's arrangement, even where it leads to a script of ours.
    if not stat.S_ISREG(found.st_mode):
        return "foreign"
    content = target.read_bytes()
    if not any(line.startswith(MARKER.encode()) for line in content.split(b"\n")[:MARKED_LINES]):
        return "foreign"
    same = content == text.encode() and stat.S_IMODE(found.st_mode) == SCRIPT_MODE
    return "same" if same else "different"


def carry_out(steps: Sequence[Step]) -> None:
    """Write what changed, each file as a whole; raises `ConfigError` where it cannot be written."""
    with _translated():
        for step in steps:
            if step.action != "unchanged":
                _make_directories(step.target.parent)
                replace_file(step.target, step.file.text, SCRIPT_MODE)


def _make_directories(directory: Path) -> None:
    missing = [one for one in (directory, *directory.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        one.chmod(DIRECTORY_MODE)  # whatever the umask is: jobs' users run the task prolog


def replace_file(target: Path, text: str, mode: int) -> None:
    """Write the file as a whole or not at all; a link in its place is replaced, not followed."""
    # The leading dot keeps a half-written file out of Slurm's pattern prolog.d/*.
    draft = target.with_name(f".{target.name}.{os.getpid()}.new")
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


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ConfigError(f"cannot install {exc.filename}: {exc.strerror}") from exc


def changeable_by_others(path: Path) -> tuple[Path, ...]:
    """Return what another user than root could change to put his own in the place of `path`.

    Looks at the file, at what its links lead to, and at every directory above; a path that is not
    there has nothing to say.
    """
    found: dict[Path, None] = {}
    for start in _link_chain(path):
        for one in (start, *start.parents):
            with contextlib.suppress(OSError):
                if _is_changeable(one.lstat()):
                    found[one] = None
    return tuple(found)


def _link_chain(path: Path) -> Iterator[Path]:
    yield path
    with contextlib.suppress(OSError, RuntimeError):
        if (resolved := path.resolve(strict=True)) != path:
            yield resolved


def _is_changeable(found: os.stat_result) -> bool:
    if stat.S_ISLNK(found.st_mode):
        return found.st_uid != 0
    # Nobody replaces another's entry of a directory that is sticky, as /tmp is.
    sticky = stat.S_ISDIR(found.st_mode) and bool(found.st_mode & stat.S_ISVTX)
    by_mode = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky
    return found.st_uid != 0 or bool(by_mode)
