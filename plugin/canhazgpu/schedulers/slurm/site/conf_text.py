"""Format the lines that slurm.conf needs; pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from canhazgpu.schedulers.slurm.site.required_lines import ConfLine

COMMENT_WIDTH = 100


def conf_text(lines: Iterable[ConfLine]) -> str:
    """Return the lines as text for slurm.conf, the reason of each as a comment above it."""
    return "\n".join("".join(f"{one}\n" for one in _paragraph(line)) for line in lines)


def _paragraph(line: ConfLine) -> Iterator[str]:
    for part in textwrap.wrap(
        line.reason, COMMENT_WIDTH, break_long_words=False, break_on_hyphens=False
    ):
        yield f"# {part}"
    if line.instead_of:
        yield f"# Instead of: {line.key}={line.instead_of}"
    yield line.text
