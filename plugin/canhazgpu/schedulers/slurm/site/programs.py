"""Inspect the programs that slurm.conf makes Slurm run."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from canhazgpu.node.state_files import open_regular_file
from canhazgpu.path_presence import may_exist
from canhazgpu.schedulers.slurm.conf.settings import Settings
from canhazgpu.schedulers.slurm.site.file_permissions import find_closed_to_users
from canhazgpu.schedulers.slurm.site.health_lines import HEALTH_CHECK_COMMAND
from canhazgpu.schedulers.slurm.site.installed_files import under_root
from canhazgpu.schedulers.slurm.site.layout import (
    HEALTH_CHECK,
    HEALTH_KEY,
    HOOK_KEYS,
    JOB_SCRIPT_KEYS,
    OWN_DIR,
    is_pattern,
)
from canhazgpu.schedulers.slurm.site.state import Program

MAX_SCRIPT_BYTES = 2**20
MAX_FIRST_LINE = 256
"""Bytes of the first line that the kernel reads."""


def matched_programs(settings: Settings, root: Path = Path("/")) -> dict[str, tuple[Program, ...]]:
    """Return the programs that each key of slurm.conf makes Slurm run, by key."""
    found = {}
    for key in (*JOB_SCRIPT_KEYS, HEALTH_KEY):
        values = settings.all(key) if key in HOOK_KEYS else (settings.get(key),)
        paths = [path for value in values if value for path in _expanded(value, root)]
        by_users = key == "TaskProlog"
        found[key] = tuple(inspect_program(path, root, by_users=by_users) for path in paths)
    return found


def _expanded(value: str, root: Path) -> Iterator[str]:
    if not value.startswith("/"):
        return
    if not is_pattern(value):
        yield value
        return
    # All matched files. As glob(3) does, this excludes names with a leading dot.
    for path in sorted(glob.glob(str(under_root(root, Path(value))))):  # noqa: PTH207 - as Slurm does
        yield f"/{Path(path).relative_to(root)}"


def calls_our_health_check(path: str, root: Path = Path("/")) -> bool:
    """Tell whether a site's own script names canhazgpu's health check outside comments."""
    try:
        target = under_root(root, Path(path))
        text = _beginning(target, MAX_SCRIPT_BYTES)
    except (OSError, ValueError):
        return False
    our_names = (HEALTH_CHECK_COMMAND, f"/{OWN_DIR}/{HEALTH_CHECK}")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(b"#")]
    return any(name.encode() in line for line in lines for name in our_names)


def _beginning(target: Path, size: int) -> bytes:
    """Return the file's first bytes; raises `OSError`, also for what is no file."""
    with os.fdopen(open_regular_file(Path(os.path.realpath(target)), os.O_RDONLY), "rb") as stream:
        return stream.read(size)


def _execution_problem(target: Path, root: Path) -> str | None:
    """Return why the kernel would not execute the file, whose mode allows it; None if it would.

    Slurm starts no shell for a file without ``#!``.
    """
    if os.geteuid() == 0 and not os.access(target, os.X_OK):
        return "cannot be executed where it is (a file system that is mounted noexec?)"
    try:
        head = _beginning(target, MAX_FIRST_LINE)
    except OSError:
        return None  # another user than root may run what it cannot read
    if head.startswith(b"#!"):
        return _interpreter_problem(head, root)
    return None if head.startswith(b"\x7fELF") else "begins with no #! line"


def _interpreter_problem(head: bytes, root: Path) -> str | None:
    words = head[2:].split(b"\n")[0].strip(b" \t").split(b" ")
    interpreter = words[0].decode("utf-8", "backslashreplace")
    # In an image, links with absolute targets lead out of it.
    if root != Path("/") or not interpreter.startswith("/") or may_exist(Path(interpreter)):
        return None
    return f"names {interpreter.encode('unicode_escape').decode()}, which is not there"


def inspect_program(path: str, root: Path = Path("/"), *, by_users: bool) -> Program:
    """Return the program, and why root, or every user if `by_users`, cannot run it."""
    target = under_root(root, Path(path))
    try:
        found = target.stat()
    except OSError as exc:
        return Program(path, f"cannot be read ({exc.strerror})")
    if not stat.S_ISREG(found.st_mode):
        return Program(path, "is no file")
    if not found.st_mode & 0o111:
        return Program(path, f"cannot be executed (mode {stat.S_IMODE(found.st_mode):o})")
    if by_users and found.st_mode & 0o005 != 0o005:
        return Program(path, f"users cannot execute (mode {stat.S_IMODE(found.st_mode):o})")
    if by_users and (closed := find_closed_to_users(target)):
        return Program(path, f"users cannot reach ({closed} is closed)")
    return Program(path, _execution_problem(target, root))
