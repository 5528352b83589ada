"""Recognise, read and write the files that canhazgpu installs."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from canhazgpu.errors import ConfigError
from canhazgpu.node.state_files import read_regular_file

MARKER = "# Installed by canhazgpu"
"""Begins one of the first lines of every file that canhazgpu may replace."""
MARKER_MAX_LINES = 3


def under_root(root: Path, path: Path) -> Path:
    """Return the absolute `path` below `root`."""
    return root / path.relative_to("/")


def is_marked(content: bytes) -> bool:
    """Tell whether canhazgpu installed the file with this content."""
    return any(line.startswith(MARKER.encode()) for line in content.split(b"\n")[:MARKER_MAX_LINES])


def read_marked(target: Path) -> str | None:
    """Return the text of a file that canhazgpu installed, None for all others and for links."""
    try:
        content = read_regular_file(target)
    except OSError:
        return None
    return content.decode("utf-8", "replace") if is_marked(content) else None


def replace_file(target: Path, text: str, mode: int) -> None:
    """Write the file atomically; a link at its path is replaced, not followed."""
    # With the leading dot, Slurm's pattern prolog.d/* does not match a half-written file.
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
    """Remove the drafts that a killed installation of this file left."""
    form = re.compile(re.escape(_draft_name(target, "PID")).replace("PID", r"(\d+)"))
    for path in target.parent.iterdir():
        found = form.fullmatch(path.name)
        if found and not Path("/proc", found[1]).exists():
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def as_config_error() -> Iterator[None]:
    """Translate `OSError` into `ConfigError`."""
    try:
        yield
    except OSError as exc:
        step = "run it as root" if isinstance(exc, PermissionError) and os.geteuid() else None
        raise ConfigError(f"cannot install {exc.filename}: {exc.strerror}", next_step=step) from exc
