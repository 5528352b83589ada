"""The tables that users know, made from values: each line has to be the same.

Spaces between columns are compared as one: the columns' places are held by the dashes, and by the
table's own tests.
"""

from __future__ import annotations

import re

from canhazgpu.cli.status_display.table import table_lines
from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.owner import MANUAL, RUN
from canhazgpu.ledger.values import Claim, NodeView, Reservation
from canhazgpu.status.node_status import node_status
from canhazgpu.status.table_cells import cells

NOW = 1_000_000.0
MINUTE, HOUR = 60, 3600
POLICY = UsagePolicy(512)

HEADER = "GPU STATUS USER DURATION TYPE MODEL DETAILS VALIDATION"
DASHES = (
    "--- --------- -------- ----------- ------- ---------------- -------------------------- "
    "---------------------"
)


def gpu(index: int, used_mb: int, *processes: GpuProcess) -> GpuReading:
    return GpuReading(index, f"GPU-{index}", index, "H100", used_mb, 80000, processes)


def process(pid: int, user: str | None, name: str | None, model: str | None = None) -> GpuProcess:
    return GpuProcess(pid, None, user, name, 500, model)


def held(index: int, type_: str, user: str, seconds: float, **more: float) -> Reservation:
    return Reservation(f"GPU-{index}", Claim(f"{type_}:1", type_, user), NOW - seconds, **more)


def table(*readings: GpuReading, held: tuple[Reservation, ...] = ()) -> list[str]:
    view = NodeView(
        "n1", NOW, Scan("n1", 0.0, 0.1, readings), NOW,
        {one.gpu: one for one in held}, {"GPU-0": NOW - 30 * MINUTE},
    )  # fmt: skip
    rows = [cells(one, NOW) for one in node_status(view, POLICY, live=True).gpus]
    return [re.sub(" +", " ", line) for line in table_lines(rows, None)]


def test_every_kind_of_gpu() -> None:
    shown = table(
        gpu(0, 45),
        gpu(1, 8452, process(1, "alice", "python3", "meta-llama/Llama-2-7b-chat-hf")),
        gpu(2, 1024, process(12345, "bob", "python3")),
        gpu(3, 45),
        held=(
            held(1, RUN, "alice", 15 * MINUTE + 30, renewed_at=NOW - 5),
            held(3, MANUAL, "charlie", HOUR + 2 * MINUTE + 15,
                 expires_at=NOW + 3 * HOUR + 15 * MINUTE + 45),
        ),
    )  # fmt: skip

    assert shown == [
        HEADER,
        DASHES,
        "0 available free for 30m 45MB used",
        "1 in use alice 15m 30s run llama-2-7b-chat heartbeat 5s ago 8452MB, 1 processes",
        "2 in use bob WITHOUT RESERVATION 1024MB used by PID 12345 (python3)",
        "3 in use charlie 1h 2m 15s manual expires in 3h 15m 45s no usage detected",
    ]


def test_users_to_be_contacted() -> None:
    shown = table(
        gpu(2, 1024, process(12345, "bob", "python3")),
        gpu(5, 8192, process(23456, "charlie", "jupyter")),
    )

    assert shown == [
        HEADER,
        DASHES,
        "2 in use bob WITHOUT RESERVATION 1024MB used by PID 12345 (python3)",
        "5 in use charlie WITHOUT RESERVATION 8GB used by PID 23456 (jupyter)",
    ]


def test_a_reservation_that_could_be_released_early() -> None:
    idle = held(3, MANUAL, "alice", 8 * HOUR, expires_at=NOW + 30 * MINUTE)

    assert table(gpu(3, 45), held=(idle,)) == [
        HEADER,
        DASHES,
        "3 in use alice 8h 0m 0s manual expires in 30m 0s no usage detected",
    ]


def test_several_users_on_one_gpu() -> None:
    several = (
        process(12345, "alice", "python3"),
        process(23456, "bob", "pytorch"),
        process(3, "charlie", "c"),
        process(4, "alice", "d"),
    )

    # The column is as wide as the three names, whatever it was drawn with.
    assert table(gpu(4, 2048, *several)) == [
        HEADER,
        DASHES.replace(" -------- ", f" {'-' * len('alice,bob,charlie')} "),
        "4 in use alice,bob,charlie WITHOUT RESERVATION "
        "2048MB used by PID 12345 (python3), PID 23456 (pytorch) and 2 more",
    ]


def test_a_process_of_which_nothing_is_known() -> None:
    assert table(gpu(4, 1024, process(12345, None, None))) == [
        HEADER,
        DASHES,
        "4 in use unknown WITHOUT RESERVATION 1024MB used by PID 12345 (unknown process)",
    ]
