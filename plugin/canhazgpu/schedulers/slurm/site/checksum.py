"""Pure: the last line of an installed script, and what it tells of one that is not as it should be.

It names the release that wrote the script, and the digest of everything above it: so an
administrator learns whether somebody changed the file, or a release, a Python or a configuration.
"""

from __future__ import annotations

import hashlib
import re

_CHECKSUM_LINE = re.compile(
    r"^# canhazgpu (\S+) wrote this file, sha256 ([0-9a-f]{64})(?:\n|\Z)", re.MULTILINE
)
MAX_LINE_LENGTH = 80


def with_checksum(text: str, release: str) -> str:
    """Return the text with its seal below."""
    return f"{text}# canhazgpu {release} wrote this file, sha256 {_digest(text)}\n"


def is_edited(found: str) -> bool:
    """Tell whether a sealed text is not what was sealed; one without a seal tells nothing."""
    seals = list(_CHECKSUM_LINE.finditer(found))
    if not seals:
        return False
    last = seals[-1]
    return last.end() != len(found) or _digest(found[: last.start()]) != last[2]


def difference_text(found: str, wanted: str) -> str:
    """Say why a script of ours is not the one that is wanted; both as they are in the file."""
    seals = _CHECKSUM_LINE.findall(found)
    if not seals:
        return "is of a release before the one that seals its scripts, or was changed by hand"
    if is_edited(found):
        return "was changed by hand since 'hooks install' wrote it"
    ours, theirs = _CHECKSUM_LINE.findall(wanted)[-1][0], seals[-1][0]
    if theirs != ours:
        return f"is of release {theirs}, this is {ours}"
    return f"is this release's, for another Python or configuration{_first_different_line(found, wanted)}"


def _first_different_line(found: str, wanted: str) -> str:
    expected = set(wanted.splitlines())
    lines = [line.strip() for line in found.splitlines() if line not in expected]
    return f": {lines[0][:MAX_LINE_LENGTH]}" if len(lines) > 1 else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
