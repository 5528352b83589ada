"""The checksum line at the end of an installed script, and why a script differs; pure.

The line names the release that wrote the script, and the digest of all lines above. It tells
whether a script was edited, or is of another release, Python or configuration.
"""

from __future__ import annotations

import hashlib
import re

_CHECKSUM_LINE = re.compile(
    r"^# canhazgpu (\S+) wrote this file, sha256 ([0-9a-f]{64})(?:\n|\Z)", re.MULTILINE
)
MAX_LINE_LENGTH = 80


def with_checksum(text: str, release: str) -> str:
    """Return the text with its checksum line appended."""
    return f"{text}# canhazgpu {release} wrote this file, sha256 {_digest(text)}\n"


def is_edited(found: str) -> bool:
    """Tell whether the text does not match its checksum line. False without such a line."""
    matches = list(_CHECKSUM_LINE.finditer(found))
    if not matches:
        return False
    last = matches[-1]
    return last.end() != len(found) or _digest(found[: last.start()]) != last[2]


def difference_text(found: str, wanted: str) -> str:
    """Say why an installed script differs from the wanted one; both with their checksum lines."""
    checksums = _CHECKSUM_LINE.findall(found)
    if not checksums:
        return "is of a release before the one that seals its scripts, or was changed by hand"
    if is_edited(found):
        return "was changed by hand since 'hooks install' wrote it"
    this, other = _CHECKSUM_LINE.findall(wanted)[-1][0], checksums[-1][0]
    if other != this:
        return f"is of release {other}, this is {this}"
    line = _first_different_line(found, wanted)
    return f"is this release's, for another Python or configuration{line}"


def _first_different_line(found: str, wanted: str) -> str:
    expected = set(wanted.splitlines())
    lines = [line.strip() for line in found.splitlines() if line not in expected]
    return f": {lines[0][:MAX_LINE_LENGTH]}" if len(lines) > 1 else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
