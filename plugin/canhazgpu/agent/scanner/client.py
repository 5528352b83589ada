"""The client of the scanner: a scan by one source that comes from the scanner, not from a child.

Where there is no scanner to be had, the scan is made in a child of this process, in the time that
is left.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

from canhazgpu.agent.peer import UnknownPeerError, peer_uid
from canhazgpu.agent.scanner.messages import (
    MAX_ANSWER_BYTES,
    Answer,
    Failed,
    ReadSettings,
    Released,
    ReleaseRequest,
    Request,
    ScanRequest,
    Taken,
    decode_answer,
    encode_request,
)
from canhazgpu.agent.socket_files import short_address
from canhazgpu.agent.wire.framing import Inbox, WireError
from canhazgpu.config.schema import ValidationConfig
from canhazgpu.gpu.scan import Scan
from canhazgpu.probe import fault_messages
from canhazgpu.probe.node_probe import NodeProbe
from canhazgpu.probe.source_scan import (
    PendingSourceScan,
    ScanFailure,
    SourceScan,
    StartSourceScan,
)
from canhazgpu.probe.sources import GpuSource
from canhazgpu.schedulers.slurm.attribution.attribution import hook_attribution

TAKEN_TIME_SHARE = 0.25
MAX_TAKEN_TIME_S = 1.0
"""Longest time until the scanner says that it has the request. One that does not may be stopped."""


class ScannerUnavailableError(Exception):
    """No scanner takes the request: there is none, it ended, or it is not root's."""


def scanner_probe(
    node: str,
    validation: ValidationConfig,
    slurm_conf: Path,
    state_dir: Path,
    has_mps: Callable[[], bool],
    socket_path: Path,
    without_scanner: StartSourceScan = SourceScan,
) -> NodeProbe:
    """Return the probe of a node whose GPUs the scanner reads.

    `slurm_conf` and `state_dir` tell which job a process is in. `without_scanner` scans where no
    scanner is to be had.
    """
    start = ScannerSource(socket_path, slurm_conf, state_dir, without_scanner)
    attribution = hook_attribution(slurm_conf, node, state_dir)
    return NodeProbe(node, validation, attribution, has_mps, start)


class ScannerSource:
    """`StartSourceScan` by the scanner."""

    def __init__(
        self,
        socket_path: Path,
        slurm_conf: Path,
        state_dir: Path,
        without_scanner: StartSourceScan = SourceScan,
    ) -> None:
        self._socket_path = socket_path
        self._slurm_conf = slurm_conf
        self._state_dir = state_dir
        self._without_scanner = without_scanner

    def __call__(self, node: str, source: GpuSource, timeout_s: float) -> PendingSourceScan:
        """Ask for the scan and return at once."""
        deadline = time.monotonic() + timeout_s
        settings = ReadSettings(
            node,
            source.name,
            source.path,
            source.details_wait_s,
            str(self._slurm_conf),
            str(self._state_dir),
        )

        def scan_here() -> PendingSourceScan:
            return self._without_scanner(node, source, max(deadline - time.monotonic(), 0))

        try:
            question = _Question(self._socket_path, ScanRequest(settings, deadline))
        except ScannerUnavailableError:
            return scan_here()
        return _ScannerScan(question, ScanFailure(node, source.name), timeout_s, scan_here)


class _ScannerScan:
    """`PendingSourceScan` of the scanner."""

    def __init__(
        self,
        question: _Question,
        failure: ScanFailure,
        timeout_s: float,
        scan_here: Callable[[], PendingSourceScan],
    ) -> None:
        self._question = question
        self._failure = failure
        self._timeout_s = timeout_s
        self._asked = time.monotonic()
        self._scan_here = scan_here

    def result(self) -> Scan:
        """See `PendingSourceScan.result`."""
        with contextlib.closing(self._question):
            try:
                answer = self._answer()
            except ScannerUnavailableError:
                answer = None
            except TimeoutError:
                answer = Failed(f"no answer within {self._timeout_s:.3g} s")
        if isinstance(answer, Scan):
            return answer
        if isinstance(answer, Failed):
            return self._failure.scan(fault_messages.child_fault(answer.reason))
        return self._scan_here().result()

    def _answer(self) -> Answer:
        """Return the answer; raises `TimeoutError` at the deadline."""
        taken_by = self._asked + min(self._timeout_s * TAKEN_TIME_SHARE, MAX_TAKEN_TIME_S)
        try:
            first = self._question.answer(taken_by)
        except TimeoutError as exc:
            raise ScannerUnavailableError("it does not take the request") from exc
        if not isinstance(first, Taken):
            raise ScannerUnavailableError("it does not say that it took the request")
        return self._question.answer(self._asked + self._timeout_s)


class _Question:
    """A connection on which a request was sent. Raises `ScannerUnavailableError`."""

    def __init__(self, socket_path: Path, request: Request) -> None:
        self._peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._inbox = Inbox(max_bytes=MAX_ANSWER_BYTES)
        try:
            # A full queue refuses at once, and the request fits into an empty socket.
            self._peer.setblocking(False)
            with short_address(socket_path) as address:
                self._peer.connect(address)
            _require_trusted(self._peer)
            message = encode_request(request)
            if self._peer.send(message) != len(message):
                raise ScannerUnavailableError("the request does not fit")
        except OSError as exc:
            self._peer.close()
            raise ScannerUnavailableError(str(exc)) from exc
        except BaseException:
            self._peer.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._peer.close()

    def answer(self, deadline: float) -> Answer:
        """Return the next answer; raises `TimeoutError` and `ScannerUnavailableError`."""
        try:
            while (message := self._inbox.take()) is None:
                self._receive(deadline)
            return decode_answer(message)
        except TimeoutError:
            raise
        except (OSError, WireError) as exc:
            raise ScannerUnavailableError(str(exc)) from exc

    def _receive(self, deadline: float) -> None:
        poll = select.poll()
        poll.register(self._peer, select.POLLIN)
        if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
            raise TimeoutError
        chunk = self._peer.recv(1 << 18)
        if not chunk:
            raise ScannerUnavailableError("it ended")
        self._inbox.add(chunk)


def release_driver(socket_path: Path, timeout_s: float) -> tuple[int, ...]:
    """Have the scanner let go of the driver; returns the pids of those that hold it still.

    Raises `ScannerUnavailableError`, and `TimeoutError` where the scanner does not answer.
    """
    now = time.monotonic()
    question = _Question(socket_path, ReleaseRequest(now + timeout_s))
    with contextlib.closing(question):
        answer = question.answer(now + 2 * timeout_s)
    if not isinstance(answer, Released):
        raise ScannerUnavailableError("it does not understand the request")
    return answer.holding


def _require_trusted(peer: socket.socket) -> None:
    """Raise `ScannerUnavailableError` unless root, or this user, listens at the socket."""
    try:
        uid = peer_uid(peer)
    except UnknownPeerError as exc:
        raise ScannerUnavailableError(str(exc)) from exc
    if uid not in (0, os.geteuid()):
        raise ScannerUnavailableError("another user listens there")
