"""`canhazgpu status --summary --watch` without a terminal: a block for what the summary shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from click.testing import CliRunner, Result
from fakes.read_only_ledger import NOW, FakeLedger, FakeProbe, app

from canhazgpu.cli.main import cli
from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.ledger.values import Claim, NodeView, Reservation

USER = GpuProcess(7, 4321, "zoe", "x", 8000)
FREE = GpuReading(0, "GPU-0", 0, "H100", 45, 80000)
USED = GpuReading(1, "GPU-1", 1, "H100", 9000, 80000, (USER,))
N2 = NodeView("n2", NOW, Scan("n2", 0.0, 0.1, (FREE, USED)), NOW - 5)
OTHER_PID = replace(
    N2, scan=Scan("n2", 0.0, 0.1, (FREE, replace(USED, processes=(replace(USER, pid=8),))))
)
HELD = replace(
    N2, reservations={"GPU-0": Reservation("GPU-0", Claim("o", "manual", "alice"), NOW - 9)}
)


def watch(*options: str) -> Result:
    """Watch a node: first nothing but a pid and the time change, then alice gets a GPU."""
    ledger = FakeLedger(N2)
    steps: list[Callable[[], None]] = [
        lambda: ledger.show(replace(OTHER_PID, read_at=NOW + 60)),
        lambda: ledger.show(replace(HELD, read_at=NOW + 62)),
    ]

    def sleep(_seconds: float) -> None:
        if not steps:
            raise KeyboardInterrupt
        steps.pop(0)()

    found = app(ledger, FakeProbe(), sleep=sleep)
    return CliRunner().invoke(cli, ["status", "--watch", "--node", "n2", *options], obj=found)


def test_a_block_is_printed_where_the_summary_changes() -> None:
    result = watch("--summary")

    assert result.exit_code == 0
    first, second = result.stdout.split("\n\n")
    assert first.splitlines()[1:] == [
        "n2  2 GPUs  1 free  1 zoe WITHOUT RESERVATION  (scanned 5s ago)"
    ]
    assert "0 free  1 alice  1 zoe" in second
    # The tables show the pid, so that its change is one.
    assert len(watch().stdout.split("\n\n")) == 3


def test_a_filter_that_shows_nothing_says_so_once() -> None:
    result = watch("--summary", "--state", "quarantined")

    assert result.exit_code == 0
    assert result.stdout.splitlines()[1:] == ["no GPU matches --state quarantined"]


def test_json_is_one_summary_a_line() -> None:
    lines = watch("--summary", "--json").stdout.splitlines()

    assert [json.loads(line)["nodes"][0]["reserved"] for line in lines] == [0, 0, 1]
