"""What the scanner keeps, shares and gives up: real processes over the simulated driver."""

from __future__ import annotations

import os
import platform
import re
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from polling import poll_until
from process_details import open_files
from scanner_host import ScannerHost, children_of, is_running

import fake_nvml
from canhazgpu.agent.scanner import capabilities, client, reader
from canhazgpu.agent.scanner.client import ScannerUnavailableError, release_driver
from canhazgpu.agent.scanner.driver_state import DriverState
from canhazgpu.probe.node_probe import PendingNodeScan
from canhazgpu.probe.source_scan import SourceScan

Ask = Callable[..., PendingNodeScan]
PAUSE = {"x86_64": "34", "aarch64": "73"}[platform.machine()]
"""The number of the system call in which the simulated driver hangs: pause, or ppoll for it."""


def reader_of(scanner: ScannerHost) -> int:
    (found,) = poll_until(scanner.readers, "a reader")
    return found


def test_one_reader_scans_again_and_again(ask: Ask, scanner: ScannerHost) -> None:
    assert len(ask().observe().scan.gpus) == 4
    own_reader, server = reader_of(scanner), scanner.scanner()
    for _ in range(20):
        assert ask().observe().scan.fault is None
    assert (reader_of(scanner), scanner.scanner()) == (own_reader, server)


def test_who_waits_shares_the_next_scan(
    ask: Ask, scanner: ScannerHost, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a scan that is held up and three requests after it, I expect one scan for the three."""
    gate, state_of = place / "gate", reader.read_driver_state

    def wait_at_the_gate(*libraries: str) -> DriverState:
        while gate.exists():
            time.sleep(0.01)
        return state_of(*libraries)

    monkeypatch.setattr(reader, "read_driver_state", wait_at_the_gate)
    ask(scan_timeout_s=60.0).observe()
    scanned_by = reader_of(scanner)
    gate.touch()
    first = ask(scan_timeout_s=60.0)
    others = [ask(scan_timeout_s=60.0) for _ in range(3)]
    answered_taken(others)
    gate.unlink()
    begun = [one.observe().scan.started_at for one in (first, *others)]
    assert begun[0] < begun[1]
    assert begun[1] == begun[2] == begun[3]
    assert ask(scan_timeout_s=60.0).observe().scan.started_at > begun[3]
    assert reader_of(scanner) == scanned_by


def answered_taken(pending: list[PendingNodeScan]) -> None:
    """Wait until the scanner has received these requests."""
    for one in pending:
        peer = one._source_scan._question._peer  # type: ignore[attr-defined]
        readable, _, _ = select.select([peer], [], [], 60)
        assert readable


@pytest.mark.slow
def test_a_later_request_gets_no_older_scan(
    ask: Ask, scanner: ScannerHost, node: fake_nvml.FakeNode
) -> None:
    """Given a scan that is past GPU 0 when that gets used, I expect the next request to see it."""
    ask().observe()
    node.inject("nvmlDeviceGetHandleByIndex", delay_ms=300, gpu=3)
    first = ask()
    time.sleep(0.15)
    node.gpu(0).override_used(9000)
    assert ask().observe().in_use == {node.gpu(0).uuid}
    assert len(first.observe().scan.gpus) == 4


def test_other_settings_have_a_scan_of_their_own(
    ask: Ask, scanner: ScannerHost, library: Path
) -> None:
    link = library.with_name("link.so")
    link.symlink_to(library)
    one, other = ask(), ask(nvml_library=str(link))
    assert one.observe().scan.started_at != other.observe().scan.started_at
    assert len(scanner.readers()) == 2


def test_settings_of_the_judgement_share(ask: Ask, scanner: ScannerHost) -> None:
    ask().observe()
    ask(memory_threshold_mb=10).observe()
    assert len(scanner.readers()) == 1


FAULTS = [("nvmlDeviceGetMemoryInfo", 15), ("nvmlDeviceGetCount", 999), ("nvmlDeviceGetUUID", 18)]


@pytest.mark.parametrize(("function", "code"), FAULTS)
def test_a_device_error_makes_a_new_reader(
    ask: Ask, scanner: ScannerHost, node: fake_nvml.FakeNode, function: str, code: int
) -> None:
    """Given a fault that stays, I expect it from a driver initialised anew, then a new reader."""
    ask().observe()
    first = reader_of(scanner)
    node.inject(function, return_=code, **({} if "Count" in function else {"gpu": 2}))  # type: ignore[arg-type]
    seen = ask().observe().scan
    assert f"NVML error {code}" in (seen.fault or seen.gpus[2].fault or "")
    poll_until(lambda: not scanner.readers(), "the end of both readers")
    node.clear_injections()
    assert all(gpu.fault is None for gpu in ask().observe().scan.gpus)
    assert reader_of(scanner) != first


def add_gpu(node: fake_nvml.FakeNode) -> None:
    node.add_gpu(7)


def remove_gpu(node: fake_nvml.FakeNode) -> None:
    (node.path / "gpus" / "3").rename(node.path / "gpus" / ".3")


def add_instance(node: fake_nvml.FakeNode) -> None:
    node.gpu(1).add_mig(0)


@pytest.mark.parametrize("change", [add_gpu, remove_gpu, add_instance])
def test_another_count_makes_a_new_reader(
    ask: Ask,
    scanner: ScannerHost,
    node: fake_nvml.FakeNode,
    change: Callable[[fake_nvml.FakeNode], None],
) -> None:
    ask().observe()
    first = reader_of(scanner)
    change(node)
    found = [gpu.display_index for gpu in ask().observe().scan.gpus]
    assert (
        found
        == {
            add_gpu: ["0", "1", "2", "3", "4"],
            remove_gpu: ["0", "1", "2"],
            add_instance: ["0", "1:0", "2", "3"],
        }[change]
    )
    poll_until(lambda: not is_running(first), "the end of the first reader")
    assert reader_of(scanner) != first


def test_mig_mode_without_instances_is_no_device_error(
    ask: Ask, scanner: ScannerHost, node: fake_nvml.FakeNode
) -> None:
    node.gpu(1).add_mig(0)
    (node.gpu(1).path / "mig" / "0").rename(node.gpu(1).path / "mig" / ".gone")
    assert "MIG is on" in (ask().observe().scan.gpus[1].fault or "")
    first = reader_of(scanner)
    ask().observe()
    assert reader_of(scanner) == first


@pytest.mark.slow
def test_a_driver_that_hangs_costs_its_reader_and_no_other_request(
    ask: Ask, scanner: ScannerHost, node: fake_nvml.FakeNode
) -> None:
    ask(scan_timeout_s=6.0).observe()
    first = reader_of(scanner)
    node.inject("nvmlDeviceGetMemoryInfo", hang=True)
    hanging = ask(scan_timeout_s=6.0)
    poll_until(lambda: in_pause(first), "the hanging call")
    node.clear_injections()
    seen = ask(scan_timeout_s=6.0).observe()
    assert (seen.scan.fault, len(seen.scan.gpus)) == (None, 4)
    assert is_running(first), "its own request still waits"
    assert re.search(r"no answer within [56]", hanging.observe().scan.fault or "")
    poll_until(lambda: not is_running(first), "the end of the reader that hung")


def in_pause(pid: int) -> bool:
    """Whether it sleeps in the simulated driver's endless wait."""
    return Path(f"/proc/{pid}/syscall").read_text().split()[0] == PAUSE


def test_a_reader_that_dies_is_replaced_within_the_request(
    ask: Ask, scanner: ScannerHost, node: fake_nvml.FakeNode
) -> None:
    ask().observe()
    first = reader_of(scanner)
    node.inject("nvmlDeviceGetMemoryInfo", hang=True)
    pending = ask()
    poll_until(lambda: in_pause(first), "the hanging call")
    node.clear_injections()
    os.kill(first, signal.SIGKILL)
    assert pending.observe().scan.fault is None


def test_a_new_reader_that_dies_is_a_fault(
    ask: Ask, scanner: ScannerHost, node: fake_nvml.FakeNode
) -> None:
    node.inject("nvmlInit", hang=True)
    pending = ask()
    os.kill(reader_of(scanner), signal.SIGKILL)
    assert "died of SIGKILL" in (pending.observe().scan.fault or "")


def test_a_scanner_that_is_killed_in_mid_scan(
    ask: Ask, scanner: ScannerHost, node: fake_nvml.FakeNode
) -> None:
    """I expect the scan from a child of the one who asked, and a new scanner for the next."""
    node.inject("nvmlInit", hang=True)
    pending = ask(SourceScan)
    own_reader, server = reader_of(scanner), scanner.scanner()
    poll_until(lambda: in_pause(own_reader), "the hanging call")
    node.clear_injections()
    os.kill(server, signal.SIGKILL)
    assert len(pending.observe().scan.gpus) == 4
    poll_until(lambda: not is_running(own_reader), "the end of the reader with its scanner")
    assert ask().observe().scan.fault is None
    assert scanner.scanner() not in (0, server)


def test_a_stopped_scanner_is_not_waited_for(
    ask: Ask, scanner: ScannerHost, node: fake_nvml.FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask().observe()
    monkeypatch.setattr(client, "MAX_TAKEN_TIME_S", 0.5)
    server = scanner.scanner()
    os.kill(server, signal.SIGSTOP)
    assert len(ask(SourceScan).observe().scan.gpus) == 4
    os.kill(server, signal.SIGCONT)
    monkeypatch.setattr(client, "MAX_TAKEN_TIME_S", 60.0)
    assert ask().observe().scan.fault is None


def test_a_stopped_reader_is_replaced_at_once(
    ask: Ask, scanner: ScannerHost, node: fake_nvml.FakeNode
) -> None:
    ask().observe()
    first = reader_of(scanner)
    node.inject("nvmlDeviceGetMemoryInfo", hang=True)
    pending = ask()
    poll_until(lambda: in_pause(first), "the hanging call")
    node.clear_injections()
    os.kill(first, signal.SIGSTOP)
    assert pending.observe().scan.fault is None
    assert not is_running(first)


@pytest.mark.parametrize("gone", ["socket", "listener"])
def test_without_a_scanner_the_one_who_asks_scans(
    ask: Ask, scanner: ScannerHost, gone: str
) -> None:
    ask().observe()
    if gone == "socket":
        scanner.socket_path.unlink()
    else:
        scanner.stop()
    assert len(ask(SourceScan).observe().scan.gpus) == 4


def test_it_ends_after_a_while(
    ask: Ask, place: Path, node: fake_nvml.FakeNode, scanner: ScannerHost
) -> None:
    scanner._idle_s = 0.3
    ask().observe()
    own_reader, server = reader_of(scanner), scanner.scanner()
    poll_until(lambda: not is_running(own_reader), "the end of the reader")
    poll_until(lambda: not is_running(server), "the end of the scanner")
    assert ask().observe().scan.fault is None, "the next request starts a new one"


def test_it_ends_with_the_listener(
    ask: Ask, scanner: ScannerHost, node: fake_nvml.FakeNode
) -> None:
    node.inject("nvmlInit", hang=True)
    pending = ask(SourceScan, scan_timeout_s=60.0)
    own_reader, server = reader_of(scanner), scanner.scanner()
    poll_until(lambda: in_pause(own_reader), "the hanging call")
    os.kill(scanner.pid, signal.SIGKILL)
    poll_until(lambda: not is_running(server), "the end of the scanner")
    poll_until(lambda: not is_running(own_reader), "the end of the reader")
    node.clear_injections()
    assert pending.observe().scan.fault is None


def test_releasing_the_driver(ask: Ask, scanner: ScannerHost) -> None:
    ask().observe()
    own_reader = reader_of(scanner)
    assert release_driver(scanner.socket_path, 10.0) == ()
    assert not is_running(own_reader)
    assert ask().observe().scan.fault is None, "and a scan opens it again"


@pytest.mark.slow
def test_releasing_waits_for_the_scan_under_way(
    ask: Ask, scanner: ScannerHost, node: fake_nvml.FakeNode
) -> None:
    node.inject("nvmlInit", delay_ms=500)
    pending = ask()
    own_reader = reader_of(scanner)
    assert release_driver(scanner.socket_path, 30.0) == ()
    assert not is_running(own_reader)
    assert pending.observe().scan.fault is None


def test_a_reader_that_does_not_let_go_is_named(
    ask: Ask, scanner: ScannerHost, node: fake_nvml.FakeNode
) -> None:
    node.inject("nvmlInit", hang=True)
    pending = ask(scan_timeout_s=60.0)
    own_reader = reader_of(scanner)
    assert release_driver(scanner.socket_path, 0.3) == (own_reader,)
    os.kill(own_reader, signal.SIGKILL)
    pending.observe()


def test_releasing_without_an_agent(place: Path) -> None:
    with pytest.raises(ScannerUnavailableError):
        release_driver(place / "scanner.sock", 1.0)


def test_nothing_is_inherited_but_what_is_its_own(ask: Ask, scanner: ScannerHost) -> None:
    ask().observe()
    for pid in (scanner.scanner(), reader_of(scanner)):
        wait_for_descriptors(pid, 8 if pid == scanner.scanner() else 5)
        links = open_files(pid)
        assert [one for one in links if not one.startswith(("/dev/null", "socket:", "pipe:"))] == []
        assert sum(one.startswith("socket:") for one in links) == (pid == scanner.scanner())
        assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
        assert os.getsid(pid) == pid


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_it_keeps_only_the_rights_that_it_needs(ask: Ask, scanner: ScannerHost) -> None:
    ask().observe()
    for pid in (scanner.scanner(), reader_of(scanner)):
        rights = re.findall(r"Cap(\w+):\s+([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
        kept = sum(1 << number for number in capabilities.KEPT.values())
        assert all(int(mask, 16) & ~kept == 0 for _, mask in rights), rights
        assert int(dict(rights)["Eff"], 16) & (1 << capabilities.KEPT["sys_ptrace"])


def wait_for_descriptors(pid: int, count: int) -> None:
    """Until the scanner has closed what it has just answered."""
    poll_until(lambda: len(list(Path(f"/proc/{pid}/fd").iterdir())) == count, "descriptors")


@pytest.mark.slow
def test_a_thousand_requests_leave_nothing(ask: Ask, scanner: ScannerHost) -> None:
    def left() -> tuple[int, list[int], int, int]:
        server, reader = scanner.scanner(), reader_of(scanner)
        counts = [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in (server, reader)]
        return server, children_of(server), *counts  # type: ignore[return-value]

    def resident_kb() -> int:
        return sum(
            int(re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])  # type: ignore[index]
            for pid in (scanner.scanner(), reader_of(scanner))
        )

    for _ in range(200):
        ask().observe()
    before, memory_kb = left(), resident_kb()
    for _ in range(1000):
        assert ask().observe().scan.fault is None
    after = left()
    assert after[:2] == before[:2]
    # One connection each may still be closing.
    assert all(now <= earlier + 1 for now, earlier in zip(after[2:], before[2:], strict=True))
    assert resident_kb() < memory_kb + 512
