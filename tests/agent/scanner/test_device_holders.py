"""Who has the driver's devices open: real processes of real users with files in their place."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from canhazgpu.agent.scanner.device_holders import device_holders

PYTHON = "/usr/bin/python3"
HOLD = "import sys; files = [open(one) for one in sys.argv[1:]]; print(flush=True); input()"


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_processes_with_open_devices(place: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "other"):
        (place / name).touch()
    devices = [place / "nvidiactl", place / "nvidia0", place / "other"]
    holder = subprocess.Popen(
        [PYTHON, "-c", HOLD, *devices, place / "nvidia0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        user="nobody",
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        (found,) = device_holders(f"{place}/nvidia")
    finally:
        holder.communicate(b"\n")
    assert (found.pid, found.user) == (holder.pid, "nobody")
    assert found.devices == (f"{place}/nvidia0", f"{place}/nvidiactl")
    assert device_holders(f"{place}/nvidia") == ()
