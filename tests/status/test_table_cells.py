"""The words of the table, as its users know them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from canhazgpu.durations import duration_text, short_duration_text
from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.gpu.usage import GpuState, Usage, UsagePolicy
from canhazgpu.ledger.values import Claim, NodeView, Quarantine, Reservation, Waiter
from canhazgpu.status.node_status import GpuStatus, NodeStatus, node_status
from canhazgpu.status.table_cells import (
    Cells,
    Tone,
    cells,
    details_text,
    heading_text,
    queue_text,
    tones,
    utilization_text,
    validation_text,
)

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


@pytest.mark.parametrize(("percent", "shown"), [(0, "0%"), (100, "100%"), (None, "N/A")])
def test_utilization(percent: int | None, shown: str) -> None:
    seen = replace(reading(), utilization_percent=percent)
    free = GpuStatus(0, "GPU-a", GpuState.AVAILABLE, Usage.FREE, seen)
    assert utilization_text(free) == shown
    # What the scan cannot tell of the present, it does not tell here either.
    assert utilization_text(replace(free, unknown_reason="never scanned")) == "N/A"
    assert utilization_text(replace(free, reading=None)) == "N/A"


def job(**more: object) -> Claim:
    return Claim("job:c:123:0", "slurm", "alice", job_id="123", **more)  # type: ignore[arg-type]


MANUAL = Claim("manual:x", "manual", "charlie", ends_at=NOW + 3 * HOUR + 15 * MINUTE + 45)
ALICE = process(1, "alice", "python3")
PYTHON = process(12345, "bob", "python3")
POLICY = UsagePolicy(1024)
IGNORING = UsagePolicy(1024, frozenset({"root:Xorg"}), frozenset({"monitor"}))
XORG = process(7, "root", "Xorg", 40)
DCGM = process(6, "monitor", "dcgm", 40)


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
        (row(reading(None, process(1, "alice", "python3", None)), job()),
         ("0", "in use", "alice", "15m 30s", "slurm", "", "job 123", "1 processes")),
        (row(reading(), job(ends_at=NOW - 300)),
         ("0", "in use", "alice", "15m 30s", "slurm", "",
          "job 123, should have ended 5m ago", "no usage detected")),
        (row(reading(), job(ends_at=NOW - 30)),
         ("0", "in use", "alice", "15m 30s", "slurm", "",
          "job 123, ending", "no usage detected")),
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
        (row(reading(None, process(12345, "bob", "python3", None))),
         ("0", "in use", "bob", "", "", "", "WITHOUT RESERVATION",
          "used by PID 12345 (python3)")),
        # Unified memory: the amounts of the processes are what is known.
        (row(reading(None, process(12345, "bob", "python3", 4096))),
         ("0", "in use", "bob", "", "", "", "WITHOUT RESERVATION",
          "4GB used by PID 12345 (python3)")),
        (row(reading(None, process(7, "root", "Xorg", 43), process(8, "ann", "gnome-shell", 18))),
         ("0", "available", "", "", "", "", "", "61MB used")),
        # Processes that hold more than the GPU's sum says.
        (row(reading(45, process(12345, "bob", "python3", 3000))),
         ("0", "in use", "bob", "", "", "", "WITHOUT RESERVATION",
          "3000MB used by PID 12345 (python3)")),
        (row(reading(), quarantine="row remap pending"),
         ("0", "quarantined", "", "", "", "", "row remap pending", "45MB used")),
        (row(reading(), job(), quarantine="ECC"),
         ("0", "in use", "alice", "15m 30s", "slurm", "", "job 123; quarantined: ECC",
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


def status_of(
    one: GpuReading,
    claim: Claim | None = None,
    quarantine: Quarantine | None = None,
    policy: UsagePolicy = POLICY,
    **times: float,
) -> GpuStatus:
    view = NodeView(
        "n1", NOW, Scan("n1", 0.0, 0.1, (one,)), NOW,
        {"GPU-a": Reservation("GPU-a", claim, NOW - 60, **times)} if claim else {},
        {}, {"GPU-a": quarantine} if quarantine else {},
    )  # fmt: skip
    (gpu,) = node_status(view, policy, live=True).gpus
    return gpu


RUN_CLAIM = Claim("run:x", "run", "alice")
BOB = process(23456, "bob", "python3", 1200)
CAROL = process(34567, "carol", "c")
HIDDEN = process(9, None, None)


@pytest.mark.parametrize(
    ("gpu", "details", "validation"),
    [
        (status_of(reading(8452, ALICE), RUN_CLAIM, renewed_at=NOW - 5),
         "heartbeat 5s ago", "8452MB, 1 processes"),
        # The grant is the first sign of life.
        (status_of(reading(), RUN_CLAIM), "heartbeat 1m ago", "no usage detected"),
        (status_of(reading(), RUN_CLAIM, expires_at=NOW + 90),
         "heartbeat 1m ago, expires in 1m 30s", "no usage detected"),
        (status_of(reading(), MANUAL, expires_at=NOW + 90),
         "expires in 1m 30s", "no usage detected"),
        (status_of(reading(), replace(MANUAL, ends_at=None, note="until\nit \"works\"")),
         "\"until\nit 'works'\"", "no usage detected"),
        (status_of(reading(), replace(MANUAL, ends_at=None, note="n" * 41)),
         f'"{"n" * 37}..."', "no usage detected"),
        # Somebody else is on it too.
        (status_of(reading(8452, ALICE, BOB), RUN_CLAIM, renewed_at=NOW - 5),
         "bob WITHOUT RESERVATION: PID 23456 (python3); heartbeat 5s ago", "8452MB, 2 processes"),
        (status_of(reading(300, BOB), RUN_CLAIM),
         "bob WITHOUT RESERVATION: PID 23456 (python3); heartbeat 1m ago", "1200MB, 1 processes"),
        # Below the threshold somebody else's memory is no use of the GPU.
        (status_of(reading(49, XORG), RUN_CLAIM), "heartbeat 1m ago", "no usage detected"),
        (status_of(reading(8452, ALICE, XORG), RUN_CLAIM),
         "heartbeat 1m ago", "8452MB, 2 processes"),
        (status_of(reading(9000, BOB, CAROL, replace(BOB, pid=5)), job()),
         "bob,carol WITHOUT RESERVATION: PID 23456 (python3), PID 34567 (c) and 1 more; job 123",
         "9000MB, 3 processes"),
        (status_of(reading(9000, replace(ALICE, job="slurm:9", memory_mb=8900)), job(note="x")),
         'alice (slurm job 9) WITHOUT RESERVATION: PID 1 (python3); job 123; "x"',
         "9000MB, 1 processes"),
        # A process whose owner nobody tells is shown, and nobody is accused.
        (status_of(reading(9000, ALICE, HIDDEN), job()),
         "job 123", "9000MB, 2 processes (1 of unknown owner)"),
        # What is ignored does not count, and is shown.
        (status_of(reading(45, XORG), policy=IGNORING), "", "45MB used (Xorg ignored)"),
        (status_of(reading(9000, XORG, BOB), policy=IGNORING),
         "WITHOUT RESERVATION", "9000MB used by PID 23456 (python3) (Xorg ignored)"),
        (status_of(reading(9000, ALICE, XORG, XORG, HIDDEN, DCGM), job(), policy=IGNORING),
         "job 123", "9000MB, 2 processes (1 of unknown owner, Xorg, dcgm ignored)"),
        (status_of(reading(45, XORG), job(), policy=IGNORING),
         "job 123", "no usage detected (Xorg ignored)"),
        (status_of(reading(130, XORG, DCGM, replace(DCGM, name=None, pid=8)), policy=IGNORING),
         "", "130MB used (Xorg, dcgm and 1 more ignored)"),
        # Held back: why, by whom, since when.
        (status_of(reading(), None, Quarantine("GPU-a", "fan", NOW - 300, "root")),
         "fan (root, 5m ago)", "45MB used"),
        (status_of(reading(), job(), Quarantine("GPU-a", "fan", NOW - 300)),
         "job 123; quarantined: fan (health, 5m ago)", "no usage detected"),
    ],
)  # fmt: skip
def test_details_and_validation(gpu: GpuStatus, details: str, validation: str) -> None:
    assert (details_text(gpu, NOW), validation_text(gpu)) == (details, validation)


def test_a_long_job_name_is_shortened_unless_all_is_wanted() -> None:
    gpu = status_of(reading(), job(job_name="x" * 1000))

    assert cells(gpu, NOW).details == f"job 123 {'x' * 37}..."
    assert cells(gpu, NOW, wide=True).details == f"job 123 {'x' * 1000}"


def test_wide_names_every_process() -> None:
    many = tuple(process(pid, "bob", "p") for pid in range(1, 9))

    for gpu in (status_of(reading(9000, *many)), status_of(reading(9000, *many), job())):
        row = cells(gpu, NOW, wide=True)
        assert "PID 8 (p)" in row.details + row.validation
        assert "more" not in row.details + row.validation


@pytest.mark.parametrize(
    ("models", "short", "wide"),
    [
        ((), "", ""),
        ((None, "o/Llama-2-7b"), "llama-2-7b", "o/Llama-2-7b"),
        (("o/a", "o/a", "o/a"), "a", "o/a"),
        (("o/a", "o/b", "o/a", "o/c"), "a +2", "o/a,o/b,o/c"),
    ],
)
def test_models(models: tuple[str | None, ...], short: str, wide: str) -> None:
    some = (replace(ALICE, pid=pid, model=model) for pid, model in enumerate(models, 1))
    gpu = status_of(reading(9000, *some), RUN_CLAIM)

    assert (cells(gpu, NOW).model, cells(gpu, NOW, wide=True).model) == (short, wide)


def test_several_models_fit_into_the_column() -> None:
    some = (replace(ALICE, pid=pid, model=f"{pid}{'x' * 40}") for pid in range(1, 15))

    shown = cells(status_of(reading(9000, *some), RUN_CLAIM), NOW).model

    assert len(shown) <= 16
    assert shown.endswith(" +13")


def test_a_mig_instance_has_its_place_on_its_gpu() -> None:
    instance = replace(reading(), index=2, mig_index=1, parent_uuid="GPU-p")

    assert cells(status_of(instance), NOW).gpu == "2:1"


@pytest.mark.parametrize(
    ("gpu", "expected"),
    [
        (status_of(reading()), (Tone.FREE, Tone.PLAIN)),
        (status_of(reading(9000, ALICE), job()), (Tone.IN_USE, Tone.PLAIN)),
        (status_of(reading(9000, BOB), job()), (Tone.IN_USE, Tone.ALARM)),
        (status_of(reading(9000, BOB)), (Tone.ALARM, Tone.ALARM)),
        (status_of(reading(), None, Quarantine("GPU-a", "x", 1.0)), (Tone.ALARM, Tone.ALARM)),
        (status_of(reading(), job(), Quarantine("GPU-a", "x", 1.0)), (Tone.IN_USE, Tone.ALARM)),
        (status_of(replace(reading(), fault="lost")), (Tone.ALARM, Tone.ALARM)),
    ],
)
def test_tones(gpu: GpuStatus, expected: tuple[Tone, Tone]) -> None:
    assert tones(gpu) == expected


def waiter(user: str, count: int, *gpus: str, waited_s: float = 300) -> Waiter:
    return Waiter(f"run:{user}", user, None, count, gpus, since=NOW - waited_s, renewed_at=NOW)


@pytest.mark.parametrize(
    ("queue", "text"),
    [
        ((), ""),
        ((waiter("alice", 2),), "1 waiting: alice 2 GPUs (5m)"),
        ((waiter("alice", 1, waited_s=7), waiter("bob", 2, "GPU-a", "GPU-gone")),
         "2 waiting: alice 1 GPU (7s), bob GPU 0,GPU-gone (5m)"),
        (tuple(waiter(f"u{n}", 2) for n in range(7)),
         "7 waiting: u0 2 GPUs (5m), u1 2 GPUs (5m), u2 2 GPUs (5m), u3 2 GPUs (5m), "
         "u4 2 GPUs (5m) and 2 more"),
    ],
)  # fmt: skip
def test_the_queue(queue: tuple[Waiter, ...], text: str) -> None:
    view = NodeView("n1", NOW, Scan("n1", 0.0, 0.1, (reading(),)), NOW, queue=queue)
    status = node_status(view, POLICY)

    assert queue_text(status) == text
    assert "more" not in queue_text(status, wide=True)


@pytest.mark.parametrize(
    ("status", "heading"),
    [
        (NodeStatus("n1", NOW, NOW, True, None, ()), "n1"),
        (NodeStatus("n2", NOW, NOW - 185, False, None, ()), "n2 (scanned 3m ago)"),
        (NodeStatus("n3", NOW, None, False, "never scanned", ()), "n3 (never scanned)"),
        (NodeStatus("n4", NOW, NOW - 60, False, "driver", ()), "n4 (scanned 1m ago; driver)"),
        (NodeStatus("n5", NOW, NOW, True, None, (), expected_gpus=8), "n5 (0 of 8 GPUs)"),
        (NodeStatus("n6", NOW, NOW, True, "driver", (), expected_gpus=8), "n6 (driver)"),
    ],
)
def test_headings(status: NodeStatus, heading: str) -> None:
    assert heading_text(status) == heading
