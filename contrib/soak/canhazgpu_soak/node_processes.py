"""Find the processes that end with a node: those that see its boot id, or have its mark."""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")
BOOT_ID = "proc/sys/kernel/random/boot_id"


def processes_on(boot_id: str, mark: str) -> list[int]:
    """Return the pids of who sees the node's boot id, or has its mark in the environment."""
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            sees = (entry / "root" / BOOT_ID).read_text()
            environ = {*(entry / "environ").read_bytes().split(b"\0")}
            if sees == boot_id or mark.encode() in environ:
                found.append(int(entry.name))
        except OSError:
            continue
    return found
