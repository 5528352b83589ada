"""Whether an installation of the package is another one than before, and whether it is whole."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "canhazgpu"
RECORD = "RECORD"
INSTALLER = "INSTALLER"
MAX_NAMED = 3

Identity = tuple[int, int, int, int] | None
"""Of a file that every installation writes anew; None where there is none."""


def identity_of(file: Path) -> Identity:
    """Return what differs when the file was written anew, by whatever program."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def installation_fault() -> str:
    """Return what is missing in the installation that this process runs from, "" for nothing.

    pip and uv write the list of the files last; packages of distributions may have none.
    """
    try:
        found = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return "the package's description is missing"
    if found.read_text(RECORD) is None:
        # They write their own name before that list.
        return "its list of files is missing" if found.read_text(INSTALLER) else ""
    differing = sorted(_differing(found))
    if not differing:
        return ""
    more = f" and {len(differing) - MAX_NAMED} more" if len(differing) > MAX_NAMED else ""
    return f"not as installed: {', '.join(differing[:MAX_NAMED])}{more}"


def _differing(found: importlib.metadata.Distribution) -> Iterator[str]:
    """Yield the files of another size than the list says, and those that are not there."""
    for file in found.files or ():
        if file.size is None:
            continue
        try:
            size = Path(str(file.locate())).stat().st_size
        except OSError:
            size = -1
        if size != file.size:
            yield str(file)
