"""A process that SIGTERM does not end, on a simulated GPU."""

from __future__ import annotations

import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import fake_nvml

SIGTERM_IMMUNE_PROGRAM = (
    "import signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('ready', flush=True)\n"
    "time.sleep(600)\n"
)


@contextmanager
def sigterm_immune_process(gpu: fake_nvml.FakeGpu, user: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        ["/usr/bin/python3", "-c", SIGTERM_IMMUNE_PROGRAM],
        cwd="/",
        stdout=subprocess.PIPE,
        user=user,
        group=pwd.getpwnam(user).pw_gid,
        extra_groups=[],
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        gpu.add_process(process.pid, 8000, start=fake_nvml.start_time(process.pid))
        yield process
    finally:
        process.kill()
        process.communicate()
