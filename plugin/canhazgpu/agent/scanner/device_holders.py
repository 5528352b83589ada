"""Which processes of this node have the driver's devices open: what blocks a reset of a GPU."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.probe.processes.describe import describe_processes

DEVICE_PREFIX = "/dev/nvidia"
DETAILS_WAIT_S = 1.0
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class DeviceHolder:
    """A process with open devices, in order; `user` and `name` are None where not known."""

    pid: int
    user: str | None
    name: str | None
    devices: tuple[str, ...]


def device_holders(prefix: str = DEVICE_PREFIX) -> tuple[DeviceHolder, ...]:
    """Return the processes that have a file open whose path begins so; root sees all of them."""
    found = {pid: devices for pid in _pids() if (devices := _open_devices(pid, prefix))}
    known = describe_processes(found, lambda _: None, DETAILS_WAIT_S)
    return tuple(
        DeviceHolder(pid, known[pid].user, known[pid].name, devices)
        for pid, devices in sorted(found.items())
    )


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(PROC) if name.isdecimal()]  # noqa: PTH208 - names


def _open_devices(pid: int, prefix: str) -> tuple[str, ...]:
    links = set(_links(PROC / str(pid) / "fd"))
    return tuple(sorted(one for one in links if one.startswith(prefix)))


def _links(directory: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):  # it has ended, or is another user's
        for one in directory.iterdir():
            with contextlib.suppress(OSError):
                yield str(one.readlink())
