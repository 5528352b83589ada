"""The process that reads the GPUs: it keeps the driver initialised from one scan to the next.

It is told to scan by one byte, and answers with a kind, a length and the scan as JSON. What it
reads can hang for ever, so it is a process that its parent can abandon. It ends when its parent
closes the pipe, and with its parent.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from dataclasses import replace
from pathlib import Path

# What a scan imports when it needs it is imported before the fork.
import canhazgpu.probe.nvidia_smi.reader
import canhazgpu.probe.processes.describe  # noqa: F401
from canhazgpu.agent.scanner.driver_state import (
    DriverState,
    gpu_identities,
    is_sound,
    loaded_library,
    read_driver_state,
)
from canhazgpu.agent.scanner.messages import ReadSettings
from canhazgpu.errors import ScanError
from canhazgpu.gpu.scan import Scan
from canhazgpu.gpu.scan_json import scan_to_json
from canhazgpu.probe.nvml.reader import nvml_session
from canhazgpu.probe.source_scan import ScanFailure, read_source
from canhazgpu.probe.sources import NVML, GpuSource
from canhazgpu.schedulers.slurm.attribution.attribution import hook_attribution

SCAN = b"S"
"""The order to scan."""
HEADER = struct.Struct(">cQ")
"""Of an answer: its kind, and the number of bytes that follow."""
STAYS, LEAVES, STALE = b"K", b"L", b"A"
"""The kinds of answers: a scan, and the reader waits for the next order; a scan, and it ends; no
scan, because the driver is no longer what it was: a new reader has to read."""

MAX_SCANS = 10_000
"""Scans of one reader: what a driver's library loses in each, it loses for so long."""
THREAD_END_S = 0.05
"""Time for threads of the scan before to end. One that does not hangs in a lookup."""


class GpuReader:
    """Scans as often as it is told, with a driver that is initialised once."""

    def __init__(self, settings: ReadSettings) -> None:
        self._settings = settings
        self._session = contextlib.ExitStack()
        self._libraries: tuple[str, ...] = ()
        self._state: DriverState | None = None
        self._gpus: tuple[tuple[int, int | None, str], ...] = ()
        self._scans = 0

    def answer(self) -> tuple[bytes, bytes]:
        """Scan; return the answer's kind and the scan."""
        if self._state is None:
            return self._first_answer()
        if _hanging_threads() or read_driver_state(*self._libraries) != self._state:
            return STALE, b""
        scan = self._scan()
        if not is_sound(scan) or gpu_identities(scan) != self._gpus:
            return STALE, b""
        return (STAYS if self._scans < MAX_SCANS else LEAVES), _encoded(scan)

    def close(self) -> None:
        """Let go of the driver."""
        self._session.close()

    def _first_answer(self) -> tuple[bytes, bytes]:
        """Initialise the driver and scan; only a driver without any fault is kept."""
        failure = ScanFailure(self._settings.node, self._settings.source)
        if self._settings.source != NVML:
            return LEAVES, _encoded(self._scan())
        before = read_driver_state()
        try:
            self._session.enter_context(nvml_session(self._settings.path))
        except ScanError as exc:
            return LEAVES, _encoded(failure.scan(str(exc)))
        scan = self._scan()
        self._libraries = loaded_library(), self._settings.path
        self._state = read_driver_state(*self._libraries)
        self._gpus = gpu_identities(scan)
        changed = replace(self._state, libraries=()) != before
        # A change meanwhile: which of the two the driver saw is not known.
        return (LEAVES if changed or not is_sound(scan) else STAYS), _encoded(scan)

    def _scan(self) -> Scan:
        one = self._settings
        self._scans += 1
        # Anew in each scan: groups and records of jobs change.
        job_of = hook_attribution(Path(one.slurm_conf), one.node, Path(one.state_dir))
        source = GpuSource(one.source, one.path, one.details_wait_s, job_of)
        return read_source(one.node, source)


def run_reader(settings: ReadSettings, orders: int, answers: int) -> None:
    """Serve orders until the pipe is closed, or until the reader is no longer of use."""
    reader = GpuReader(settings)
    kind = STAYS
    while kind == STAYS and os.read(orders, 1):
        kind, scan = reader.answer()
        _write(answers, HEADER.pack(kind, len(scan)) + scan)
    reader.close()


def _hanging_threads() -> bool:
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(THREAD_END_S)
    return threading.active_count() > 1


def _encoded(scan: Scan) -> bytes:
    return scan_to_json(scan).encode()


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
