"""Who connects to the scanner: garbage, the slow, the many, other users, and those who leave."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from polling import poll_until
from scanner_host import ScannerHost

import fake_nvml
from canhazgpu.agent.scanner import connection, messages, server
from canhazgpu.gpu.scan_json import scan_to_json
from canhazgpu.probe.bounded_child import BoundedChild
from canhazgpu.probe.node_probe import PendingNodeScan
from canhazgpu.probe.source_scan import SourceScan

Ask = Callable[..., PendingNodeScan]

SETTINGS = messages.ReadSettings("n1", "nvml", "/nowhere.so", 1.0, "/nowhere", "/nowhere")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")


@pytest.fixture
def connect(ask: Ask, scanner: ScannerHost) -> Iterator[Callable[[], socket.socket]]:
    opened: list[socket.socket] = []

    def one() -> socket.socket:
        scanner.start()
        peer = socket.socket(socket.AF_UNIX)
        opened.append(peer)
        peer.settimeout(60)
        peer.connect(str(scanner.socket_path))
        return peer

    yield one
    for peer in opened:
        peer.close()


def request(seconds: float = 60.0) -> bytes:
    return messages.encode_request(messages.ScanRequest(SETTINGS, time.monotonic() + seconds))


GARBAGE = [
    b"\0",
    b"GET / HTTP/1.1\r\n\r\n\0",
    b"{}\0",
    b"[" * 60_000 + b"\0",
    b"x" * 70_000,
    bytes(range(1, 256)) * 4 + b"\0",
    b'{"method":"Scan","parameters":{"interface":1}}\0',
]


@pytest.mark.slow
@pytest.mark.parametrize("sent", GARBAGE, ids=lambda one: repr(one[:12]))
def test_garbage_is_cut_off(ask: Ask, connect: Callable[[], socket.socket], sent: bytes) -> None:
    peer = connect()
    try:
        peer.sendall(sent)
        assert peer.recv(100) == b""
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert ask().observe().scan.fault is None


def test_a_request_with_another_behind_it_is_none(connect: Callable[[], socket.socket]) -> None:
    peer = connect()
    peer.sendall(request() + request())
    assert peer.recv(100) == b""


def test_a_request_may_come_in_pieces(connect: Callable[[], socket.socket]) -> None:
    peer = connect()
    for byte in request():
        peer.sendall(bytes([byte]))
    received = b""
    while chunk := peer.recv(1000):
        received += chunk
    taken, answer, end = received.split(b"\0")
    assert (taken + b"\0", end) == (messages.TAKEN, b"")
    assert isinstance(messages.decode_answer(answer), messages.Scan)


@pytest.mark.slow
def test_the_slow_are_cut_off(
    ask: Ask,
    scanner: ScannerHost,
    connect: Callable[[], socket.socket],
) -> None:
    """Given peers that send nothing, or half a request, I expect an end, and service meanwhile."""
    slow = [connect() for _ in range(20)]
    for peer in slow[:10]:
        peer.sendall(request()[:40])
    assert ask().observe().scan.fault is None
    assert [peer.recv(10) for peer in slow] == [b""] * 20


def test_more_connections_than_are_taken_wait(
    ask: Ask,
    scanner: ScannerHost,
    connect: Callable[[], socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given all places are taken by the silent, I expect service once those are cut off."""
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 5)
    monkeypatch.setattr(connection, "REQUEST_TIME_S", 0.5)
    silent = [connect() for _ in range(5)]
    poll_until(lambda: descriptors(scanner) == descriptors_idle() + 5, "the silent")
    waiting = ask()
    assert waiting.observe().scan.fault is None
    assert [peer.recv(10) for peer in silent] == [b""] * 5


def test_who_does_not_read_the_answer_is_cut_off(
    scanner: ScannerHost,
    connect: Callable[[], socket.socket],
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    node: fake_nvml.FakeNode,
    library: Path,
) -> None:
    monkeypatch.setattr(connection, "ANSWER_TIME_S", 0.3)
    monkeypatch.setattr(messages, "TAKEN", b"x" * 2_000_000)
    monkeypatch.setattr(server, "TAKEN", b"x" * 2_000_000)
    peer = connect()
    peer.sendall(request())
    poll_until(lambda: descriptors(scanner) == descriptors_idle(), "the end of the connection")


def descriptors(scanner: ScannerHost) -> int:
    pid = scanner.scanner()
    return len(list(Path(f"/proc/{pid}/fd").iterdir())) if pid else 0


def descriptors_idle() -> int:
    """Standard streams, the socket, and the pipe that tells of ended children."""
    return 3 + 1 + 2


def test_who_leaves_costs_nothing(
    ask: Ask, scanner: ScannerHost, connect: Callable[[], socket.socket]
) -> None:
    ask().observe()
    before = descriptors(scanner)
    for _ in range(50):
        peer = connect()
        peer.sendall(request())
        peer.close()
    assert ask().observe().scan.fault is None
    poll_until(lambda: descriptors(scanner) <= before, "the end of the connections")


@needs_root
@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_another_user_is_not_served(
    scanner: ScannerHost, ask: Ask, mode: int, node: fake_nvml.FakeNode
) -> None:
    """By the socket's mode, and by the kernel's word where that was opened."""
    ask().observe()
    scanner.socket_path.chmod(mode)
    path = str(scanner.socket_path)

    def work() -> bytes:
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(60)
            try:
                peer.connect(path)
                peer.sendall(request())
                return peer.recv(100)
            except PermissionError:
                return b"refused"
            except (ConnectionResetError, BrokenPipeError):
                return b""

    assert BoundedChild(work, 60).result() == (b"refused" if mode == 0o600 else b"")
    assert ask().observe().scan.fault is None


@needs_root
def test_the_socket_of_another_user_is_not_trusted(
    place: Path, ask: Ask, scanner: ScannerHost
) -> None:
    """Given nobody listens in the scanner's place, I expect a scan of one's own."""
    place.chmod(0o777)
    scan = scan_to_json(messages.Scan("n1", 0.0, 0.0, ()))
    forged = messages.encode_scan(scan.encode())
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(65534, 65534, 65534)
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(str(scanner.socket_path))
                scanner.socket_path.chmod(0o666)
                listening.listen()
                os.write(told, b"x")
                while True:
                    peer, _ = listening.accept()
                    peer.sendall(messages.TAKEN + forged)
        finally:
            os._exit(1)
    try:
        assert os.read(ready, 1) == b"x"
        assert len(ask(SourceScan).observe().scan.gpus) == 4
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(told)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        messages.TAKEN,
        messages.TAKEN + b"nonsense\0",
        messages.TAKEN + messages.encode_scan(b'{"gpus":[{}]}'),
        messages.TAKEN + messages.encode_released(()),
        messages.encode_scan(b"{}"),
        b"\xff\0",
    ],
    ids=range(7),
)
def test_an_answer_that_is_none_is_no_scanner(
    ask: Ask, scanner: ScannerHost, answer: bytes
) -> None:
    """Given a scanner of another release, or a broken one, I expect a scan of one's own."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(scanner.socket_path))
        listening.listen()
        pending = ask(SourceScan)
        peer, _ = listening.accept()
        with peer:
            peer.sendall(answer)
        assert len(pending.observe().scan.gpus) == 4
