"""Warnings of nvidia-smi about a GPU whose infoROM is corrupted; pure.

nvidia-smi then prints everything that it was asked for, a warning after that, and exits with 14.
Only the GPU that the warning names is in doubt.
"""

from __future__ import annotations

import re

EXIT_STATUS = 14
"""``man nvidia-smi``, RETURN VALUE: infoROM is corrupted."""

_WARNING = re.compile(
    r"\s*WARNING: infoROM is corrupted at gpu ([0-9a-f:.]+)\s*", re.IGNORECASE | re.ASCII
)


def corrupted_gpus(output: str) -> frozenset[str]:
    """Return the PCI addresses that the warnings name, as they are written."""
    found = map(_WARNING.fullmatch, output.split("\n"))
    return frozenset(warning[1] for warning in found if warning)


def without_warnings(output: str) -> str:
    """Return the output without the warnings, and without the blank lines beside them."""
    if not corrupted_gpus(output):
        return output
    lines = output.split("\n")
    kept = [line for line in lines if line.strip() and not _WARNING.fullmatch(line)]
    cut_off = bool(lines[-1].strip()) and kept[-1:] == lines[-1:]
    return "".join(f"{line}\n" for line in kept).removesuffix("\n" if cut_off else "")
