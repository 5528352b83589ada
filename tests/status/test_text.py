"""The words of the table, as its users know them."""

from __future__ import annotations

import pytest

from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.values import Claim, NodeView, Quarantine, Reservation
from canhazgpu.status.model import NodeStatus, node_status
from canhazgpu.status.text import Cells, cells, duration_text, heading_text, short_duration_text

NOW = 1_000_000.0
MINUTE = 60
HOUR = 3600


@pytest.mark.parametrize(
    ("seconds", "long", "short"),
    [
        (-5, "0s", "0s"),
        (0.9, "0s", "0s"),
        (45, "45s", "45s"),
        (15 * MINUTE + 30, "15m 30s", "15m"),
        (30 * MINUTE, "30m 0s", "30m"),
        (HOUR + 2 * MINUTE + 15, "1h 2m 15s", "1h 2m"),
        (8 * HOUR, "8h 0m 0s", "8h"),
        (51 * HOUR, "2d 3h 0m 0s", "2d 3h"),
        (48 * HOUR, "2d 0h 0m 0s", "2d"),
    ],
)
def test_durations(seconds: float, long: str, short: str) -> None:
    assert duration_text(seconds) == long
    assert short_duration_text(seconds) == short


def reading(used_mb: int | None = 45, *processes: GpuProcess) -> GpuReading:
    return GpuReading(0, "GPU-a", 0, "H100", used_mb, 80000, processes)


def process(pid: int, user: str | None, name: str | None, mb: int | None = 500) -> GpuProcess:
    return GpuProcess(pid, None, user, name, mb)


def row(
    one: GpuReading | None,
    claim: Claim | None = None,
    *,
    held_s: float = 15 * MINUTE + 30,
    free_s: float | None = None,
    quarantine: str = "",
) -> Cells:
    view = NodeView(
        "n1",
        NOW,
        Scan("n1", 0.0, 0.1, (one,) if one else ()),
        NOW - 1,
        {"GPU-a": Reservation("GPU-a", claim, NOW - held_s)} if claim else {},
        {} if free_s is None else {"GPU-a": NOW - free_s},
        {"GPU-a": Quarantine("GPU-a", quarantine, 0.0)} if quarantine else {},
    )
    (gpu,) = node_status(view, UsagePolicy(1024)).gpus
    return cells(gpu, NOW)


def job(**more: object) -> Claim:
    return Claim("job:c:123:0", "slurm", "alice", job_id="123", **more)  # type: ignore[arg-type]


MANUAL = Claim("manual:x", "manual", "charlie", ends_at=NOW + 3 * HOUR + 15 * MINUTE + 45)
ALICE = process(1, "alice", "python3")
PYTHON = process(12345, "bob", "python3")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (row(reading(), free_s=30 * MINUTE),
         ("0", "available", "", "", "", "", "free for 30m", "45MB used")),
        (row(reading()), ("0", "available", "", "", "", "", "", "45MB used")),
        (row(reading(None)), ("0", "available", "", "", "", "", "", "no usage detected")),
        (row(reading(8452, ALICE), job(job_name="train.sh", ends_at=NOW + 11745)),
         ("0", "in use", "alice", "15m 30s", "slurm", "",
          "job 123 train.sh, ends in 3h 15m 45s", "8452MB, 1 processes")),
        (row(reading(None, ALICE), job()),
         ("0", "in use", "alice", "15m 30s", "slurm", "", "job 123", "1 processes")),
        (row(reading(), job(ends_at=NOW - 300)),
         ("0", "in use", "alice", "15m 30s", "slurm", "",
          "job 123, should have ended 5m ago", "no usage detected")),
        (row(reading(), MANUAL, held_s=HOUR + 2 * MINUTE + 15),
         ("0", "in use", "charlie", "1h 2m 15s", "manual", "",
          "expires in 3h 15m 45s", "no usage detected")),
        (row(reading(1025, PYTHON)),
         ("0", "in use", "bob", "", "", "", "WITHOUT RESERVATION",
          "1025MB used by PID 12345 (python3)")),
        (row(reading(2048, process(12345, "alice", "python3"), process(23456, "bob", "pytorch"),
                     process(3, "charlie", "c"), process(4, "alice", "d"))),
         ("0", "in use", "alice,bob,charlie", "", "", "", "WITHOUT RESERVATION",
          "2048MB used by PID 12345 (python3), PID 23456 (pytorch) and 2 more")),
        (row(reading(1025, process(12345, None, None))),
         ("0", "in use", "unknown", "", "", "", "WITHOUT RESERVATION",
          "1025MB used by PID 12345 (unknown process)")),
        (row(reading(2048)),
         ("0", "in use", "unknown", "", "", "", "WITHOUT RESERVATION", "2048MB used")),
        (row(reading(None, PYTHON)),
         ("0", "in use", "bob", "", "", "", "WITHOUT RESERVATION",
          "used by PID 12345 (python3)")),
        (row(reading(), quarantine="row remap pending"),
         ("0", "quarantined", "", "", "", "", "row remap pending", "45MB used")),
        (row(reading(), job(), quarantine="ECC"),
         ("0", "in use", "alice", "15m 30s", "slurm", "", "job 123, quarantined: ECC",
          "no usage detected")),
        (row(GpuReading(3, "GPU-a", None, "", None, None, fault="GPU is lost")),
         ("3", "unknown", "", "", "", "", "", "GPU is lost")),
        (row(GpuReading(3, "GPU-a", None, "", None, None, fault="GPU is lost"), job()),
         ("3", "in use", "alice", "15m 30s", "slurm", "", "job 123", "cannot tell: GPU is lost")),
        (row(None, job()),
         ("?", "in use", "alice", "15m 30s", "slurm", "", "job 123",
          "cannot tell: not found by the scan")),
        # A record that could not be read has no time of its grant.
        (row(reading(), Claim("unreadable", "unknown", "unknown"), held_s=NOW),
         ("0", "in use", "unknown", "", "unknown", "", "", "no usage detected")),
    ],
)  # fmt: skip
def test_rows(given: Cells, expected: tuple[str, ...]) -> None:
    assert tuple(given) == expected


def test_a_long_job_name_is_shortened() -> None:
    shown = row(reading(), job(job_name="x" * 1000)).details

    assert shown == f"job 123 {'x' * 37}..."


@pytest.mark.parametrize(
    ("status", "heading"),
    [
        (NodeStatus("n1", NOW, NOW, True, None, ()), "n1"),
        (NodeStatus("n2", NOW, NOW - 185, False, None, ()), "n2 (scanned 3m ago)"),
        (NodeStatus("n3", NOW, None, False, "never scanned", ()), "n3 (never scanned)"),
        (NodeStatus("n4", NOW, NOW - 60, False, "driver", ()), "n4 (scanned 1m ago; driver)"),
    ],
)
def test_headings(status: NodeStatus, heading: str) -> None:
    assert heading_text(status) == heading
