"""Read what `scontrol show … -o` prints."""

from __future__ import annotations

import re

_FIELD = re.compile(r"(?:^|\s)([A-Z][A-Za-z_]*(?:[/:][A-Za-z:/_]+)?)=")

FINAL_STATES = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
    "PREEMPTED", "TIMEOUT",
)  # fmt: skip


def parse_record(line: str) -> dict[str, str]:
    """Split one line of NAME=VALUE into fields.

    Values may hold spaces. The output has no quoting, so a value that holds ` Word=` with a capital
    letter is taken for a field; free text such as a comment should avoid that.
    """
    marks = list(_FIELD.finditer(line))
    ends = [mark.start() for mark in marks[1:]] + [len(line)]
    return {
        mark.group(1): line[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)
    }


def parse_records(text: str) -> list[dict[str, str]]:
    return [parse_record(line) for line in text.splitlines() if line.strip()]
