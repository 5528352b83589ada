"""`canhazgpu status` with a ledger and a probe in memory."""

from __future__ import annotations

import json
import os
import pwd
from dataclasses import replace

import pytest
from click.testing import CliRunner, Result
from fakes.read_only_ledger import NOW, FakeLedger, FakeProbe, app

from canhazgpu.cli.app import App
from canhazgpu.cli.main import cli
from canhazgpu.errors import StoreError
from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.ledger.values import Claim, Event, NodeView, Quarantine, Reservation, Waiter
from canhazgpu.node.identity import boot_id, pid_namespace
from canhazgpu.node.process_id import ProcessId


def gpu(index: int, used_mb: int = 45, *processes: GpuProcess, node: str = "n1") -> GpuReading:
    return GpuReading(index, f"GPU-{node}-{index}", index, "H100", used_mb, 80000, processes)


def held(gpu_uuid: str, user: str, job_id: str, seconds: float, **more: object) -> Reservation:
    claim = Claim(f"job:c:{job_id}:0", "slurm", user, job_id=job_id, **more)  # type: ignore[arg-type]
    return Reservation(gpu_uuid, claim, NOW - seconds)


ALICE = held("GPU-n1-1", "alice", "123", 930, job_name="train.sh", ends_at=NOW + 11745)
N1 = NodeView(
    "n1",
    NOW,
    None,
    None,
    {"GPU-n1-1": ALICE, "GPU-n1-9": held("GPU-n1-9", "carol", "9", 60, job_name="x", ends_at=NOW)},
    {"GPU-n1-0": NOW - 1800},
    {"GPU-n1-3": Quarantine("GPU-n1-3", "row remap pending", NOW - 5)},
)
GPUS = (
    gpu(0),
    gpu(1, 8452, GpuProcess(1, 1, "alice", "python3", 8400)),
    gpu(2, 1025, GpuProcess(12345, 2, "bob", "python3", 980)),
    gpu(3),
    GpuReading(4, "GPU-n1-4", None, "", None, None, fault="GPU is lost (NVML error 15)"),
)
N2 = NodeView("n2", NOW, Scan("n2", 0.0, 0.1, (gpu(0, node="n2"),)), NOW - 185)

TABLE = """\
GPU STATUS      USER     DURATION    TYPE    MODEL            DETAILS                                VALIDATION
--- ----------- -------- ----------- ------- ---------------- -------------------------------------- -----------------------------------
0   available                                                 free for 30m                           45MB used
1   in use      alice    15m 30s     slurm                    job 123 train.sh, ends in 3h 15m 45s   8452MB, 1 processes
2   in use      bob                                           WITHOUT RESERVATION                    1025MB used by PID 12345 (python3)
3   quarantined                                               row remap pending (health, 5s ago)     45MB used
4   unknown                                                                                          GPU is lost (NVML error 15)
?   in use      carol    1m 0s       slurm                    job 9 x, ending      cannot tell: not found by the scan
"""  # noqa: E501 - the table is that wide

BLOCK_N2 = """\
n2 (scanned 3m ago)
GPU STATUS    USER     DURATION    TYPE    MODEL            DETAILS                    VALIDATION
--- --------- -------- ----------- ------- ---------------- -------------------------- ---------------------
0   available                                                                          45MB used
"""  # noqa: E501 - the table is that wide


def run(app: App, *args: str) -> Result:
    return CliRunner().invoke(cli, [*args], obj=app)


def without_dashes(text: str) -> list[str]:
    """The table's words, column by column; widths are held by the table's own tests."""
    return [" ".join(line.split()) for line in text.splitlines() if not line.startswith("---")]


def test_this_node_alone_is_a_table_without_heading() -> None:
    result = run(app(FakeLedger(N1), FakeProbe(GPUS)), "status")

    assert (result.exit_code, result.stderr) == (0, "")
    assert without_dashes(result.stdout) == without_dashes(TABLE)
    starts = {line.find("VALIDATION") for line in result.stdout.splitlines()[:1]}
    assert {line[min(starts) - 1] for line in result.stdout.splitlines()} == {" "}


def test_several_nodes_have_headings_and_the_others_the_age_of_their_scan() -> None:
    result = run(app(FakeLedger(N1, N2), FakeProbe(GPUS)), "status")

    assert result.stdout.startswith("n1\nGPU STATUS")
    assert result.stdout.endswith(f"\n\n{BLOCK_N2}")


def test_the_scan_runs_while_the_ledger_is_read() -> None:
    probe = FakeProbe(GPUS)

    run(app(FakeLedger(N1), probe), "status")

    assert probe.events == ["start", "ledger", "observe"]


def test_another_node_alone_is_not_scanned_and_shows_its_scans_age() -> None:
    probe = FakeProbe(GPUS)

    result = run(app(FakeLedger(N1, N2), probe), "status", "--node", "n2")

    assert result.stdout == BLOCK_N2
    assert probe.events == ["ledger"]


def test_the_threshold_of_the_command_line_counts() -> None:
    result = run(app(FakeLedger(N1), FakeProbe(GPUS)), "status", "--memory-threshold", "2048")

    assert "WITHOUT RESERVATION" not in result.stdout


def test_a_login_node_shows_the_other_nodes() -> None:
    result = run(app(FakeLedger(N2), FakeProbe(fault="no driver")), "status")

    assert (result.exit_code, result.stdout, result.stderr) == (0, BLOCK_N2, "")


@pytest.mark.parametrize("probe", [FakeProbe(fault="no driver"), FakeProbe()])
def test_no_gpu_anywhere_is_an_error(probe: FakeProbe) -> None:
    result = run(app(FakeLedger(), probe), "status")

    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith(f"Error: {probe.fault or 'this node has no GPU'}")


def test_a_driver_that_fails_hides_no_reservation_and_frees_nothing() -> None:
    published = replace(N1, scan=Scan("n1", 0.0, 0.1, GPUS), scanned_at=NOW - 60)

    result = run(app(FakeLedger(published), FakeProbe(fault="driver gone")), "status")

    assert result.exit_code == 3
    assert "Error: driver gone" in result.stderr
    assert "available" not in result.stdout
    assert "alice" in result.stdout
    assert len(result.stdout.splitlines()) == 2 + 6


def test_a_driver_that_fails_beside_other_nodes_is_in_the_heading() -> None:
    result = run(app(FakeLedger(N1, N2), FakeProbe(fault="driver gone")), "status")

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("n1 (driver gone)\n")


def test_without_the_ledger_the_scan_is_shown_and_nothing_is_available() -> None:
    error = StoreError("cannot reach the store at redis://h: Connection refused")

    result = run(app(FakeLedger(error=error), FakeProbe(GPUS)), "status")

    assert result.exit_code == 4
    assert result.stdout.startswith("n1 (not all reservations are known)\n")
    table = without_dashes(result.stdout)
    assert table[2] == "0 unknown reservation not known 45MB used"
    assert table[4] == "2 unknown bob reservation not known 1025MB used by PID 12345 (python3)"
    assert table[6] == "4 unknown GPU is lost (NVML error 15)"
    assert "available" not in result.stdout
    assert "WITHOUT" not in result.stdout
    assert result.stderr.startswith(f"Error: {error}; shown is n1 alone, without the reservations")
    assert len(result.stderr.splitlines()) == 1


def test_without_the_ledger_a_node_without_gpus_has_nothing_to_show() -> None:
    error = StoreError("cannot reach the store at redis://h: Connection refused")

    result = run(app(FakeLedger(error=error), FakeProbe(fault="no driver")), "status")

    assert (result.exit_code, result.stdout) == (4, "")
    assert result.stderr.startswith(f"Error: {error} (")


def test_without_the_ledger_none_of_ones_own_is_said_of_what_is_known() -> None:
    result = run(app(FakeLedger(error=StoreError("away")), FakeProbe(GPUS[:2])), "status", "--me")

    assert result.exit_code == 4
    assert result.stdout.endswith(" awaits no GPU, as far as this node knows\n")


def test_a_node_that_nobody_knows_is_refused() -> None:
    result = run(app(FakeLedger(N2), FakeProbe(GPUS)), "status", "--node", "nX")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "'nX'" in result.stderr


def test_interrupt() -> None:
    result = run(app(FakeLedger(error=KeyboardInterrupt()), FakeProbe(GPUS)), "status")

    assert (result.exit_code, result.stdout) == (130, "")


def test_json_holds_the_same() -> None:
    result = run(app(FakeLedger(N1, N2), FakeProbe(GPUS)), "status", "--json")

    form = json.loads(result.stdout)
    first, second = form["nodes"]
    assert form["generated_at"] == "2023-11-14T22:13:20Z"
    assert (first["node"], first["live"], second["node"], second["live"]) == (
        "n1", True, "n2", False,
    )  # fmt: skip
    assert [one["state"] for one in first["gpus"]] == [
        "available", "reserved", "unreserved", "quarantined", "unknown", "reserved",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("boot", "namespace", "intruders"),
    [
        (boot_id(), pid_namespace(), 0),
        ("an earlier boot", pid_namespace(), 1),
        (boot_id(), 1, 1),
    ],
)
def test_a_runs_processes_are_those_of_this_boot_and_namespace(
    boot: str, namespace: int, intruders: int
) -> None:
    owner = Claim(
        "run:1", "run", "alice", 1, boot_id=boot, pid_namespace=namespace,
        processes=(ProcessId(40, 1),),
    )  # fmt: skip
    view = replace(N1, reservations={"GPU-n1-1": Reservation("GPU-n1-1", owner, NOW - 5)})
    busy = gpu(1, 9000, GpuProcess(41, 2, "bob", "python3", 8900, ancestors=(40,)))

    result = run(app(FakeLedger(view), FakeProbe((busy,))), "status", "--json")

    (shown,) = json.loads(result.stdout)["nodes"][0]["gpus"][:1]
    assert len(shown["intruders"]) == intruders


DRIVER_SAYS = "the GPUs could not be read: nvml: " + "Driver/library version mismatch " * 9


@pytest.mark.parametrize("others", [(), (N2,)])
def test_what_the_driver_says_of_all_gpus_stands_once(others: tuple[NodeView, ...]) -> None:
    published = replace(N1, scan=Scan("n1", 0.0, 0.1, GPUS), scanned_at=NOW - 60)

    result = run(app(FakeLedger(published, *others), FakeProbe(fault=DRIVER_SAYS)), "status")

    shown = result.stdout + result.stderr
    assert shown.count(DRIVER_SAYS.strip()) == 1
    assert shown.count("cannot tell: the GPUs could not be read") == 3
    assert result.exit_code == (0 if others else 3)


def test_a_terminal_gets_a_table_as_wide_as_it_is_unless_all_is_wanted() -> None:
    narrow = run(app(FakeLedger(N1), FakeProbe(GPUS), width=80), "status").stdout
    wide = run(app(FakeLedger(N1), FakeProbe(GPUS), width=80), "status", "--wide").stdout

    assert max(map(len, narrow.splitlines())) <= 80
    assert "…" in narrow
    assert "…" not in wide
    assert "1025MB used by PID 12345 (python3)" in wide


@pytest.mark.parametrize(
    ("width", "environ", "option", "coloured"),
    [
        (None, {}, (), False),
        (200, {}, (), True),
        (200, {"NO_COLOR": "0"}, (), False),
        (200, {"TERM": "dumb"}, (), False),
        (200, {"TERM": "dumb"}, ("--color=always",), True),
        (None, {}, ("--color=always",), True),
        (None, {}, ("--color=auto",), False),
        (200, {}, ("--color=never",), False),
    ],
)
def test_colour(
    width: int | None, environ: dict[str, str], option: tuple[str, ...], coloured: bool
) -> None:
    world = app(FakeLedger(N1), FakeProbe(GPUS), environ=environ, width=width)

    # Click itself takes colour out of what goes to no terminal, unless it is told not to.
    shown = CliRunner().invoke(cli, ["status", *option], obj=world, color=width is not None).stdout

    assert ("\x1b[31mWITHOUT RESERVATION\x1b[0m" in shown) is coloured
    assert ("\x1b[" in shown) is coloured


def test_only_ones_own() -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    mine = held("GPU-n1-1", me, "1", 5, uid=os.getuid(), job_name="x", ends_at=NOW + 1)
    view = replace(N1, reservations={"GPU-n1-1": mine}, scan=None)

    result = run(app(FakeLedger(view, N2), FakeProbe(GPUS)), "status", "--me")
    form = run(app(FakeLedger(view, N2), FakeProbe(GPUS)), "status", "--me", "--json")

    assert [line.split()[0] for line in result.stdout.splitlines()] == ["n1", "GPU", "---", "1"]
    assert [one["uuid"] for node in json.loads(form.stdout)["nodes"] for one in node["gpus"]] == [
        "GPU-n1-1"
    ]


def test_nothing_of_ones_own() -> None:
    result = run(app(FakeLedger(N1), FakeProbe(GPUS[:2])), "status", "--me")
    form = run(app(FakeLedger(N1), FakeProbe(GPUS[:2])), "status", "--me", "--json")

    assert result.exit_code == 0
    assert result.stdout.endswith(" holds, uses and awaits no GPU\n")
    assert json.loads(form.stdout) == {
        "generated_at": "2023-11-14T22:13:20Z",
        "error": None,
        "nodes": [],
        "taken": [],
    }


def test_what_an_administrator_took_is_told_with_the_reason() -> None:
    ledger = FakeLedger(N1)
    claim = Claim("manual:1", "manual", "me", os.getuid())
    past = {"gpu": "GPU-n1-1", "claim": claim, "reason": "main\x1b[2Jtenance", "by": "root"}
    ledger.past["n1"] = [
        Event("1-0", NOW - 300, "release", **past),
        Event("2-0", NOW - 200, "release", "GPU-n1-0", claim, reason="expired"),
        Event("3-0", NOW - 8 * 86400, "release", **{**past, "reason": "long ago"}),
        Event("4-0", NOW - 100, "release", **{**past, "claim": replace(claim, uid=99999)}),
    ]

    result = run(app(ledger, FakeProbe(GPUS)), "status", "--me")
    form = run(app(ledger, FakeProbe(GPUS)), "status", "--me", "--json")

    told = "GPU 1 of n1 was taken from you 5m ago by root: maintenance"
    assert result.stdout.splitlines()[-1] == told
    (taken,) = json.loads(form.stdout)["taken"]
    assert (taken["gpus"], taken["by"]) == (["GPU-n1-1"], "root")
    assert "history" not in ledger.events[:1]
    assert "taken" not in json.loads(run(app(ledger, FakeProbe(GPUS)), "status", "--json").stdout)


def test_the_queue_stands_under_its_node() -> None:
    waiter = Waiter("run:1", "al\x1b[2Jice", 1, 2, since=NOW - 300, renewed_at=NOW)

    result = run(app(FakeLedger(replace(N1, queue=(waiter,)), N2), FakeProbe(GPUS)), "status")

    assert "\n1 waiting: alice 2 GPUs (5m)\n\nn2 (scanned" in result.stdout


EIGHT = {"CANHAZGPU_VALIDATION_EXPECTED_GPUS": "8"}


def test_gpus_that_are_missing_are_in_the_heading() -> None:
    world = app(
        FakeLedger(N1), FakeProbe(GPUS), environ={"CANHAZGPU_VALIDATION_EXPECTED_GPUS": "8"}
    )

    result = run(world, "status")

    assert result.stdout.startswith("n1 (5 of 8 GPUs)\n")


def test_a_node_that_has_lost_all_its_gpus_is_shown() -> None:
    world = app(FakeLedger(N2), FakeProbe(), environ=EIGHT)

    result = run(world, "status")

    assert result.stdout.startswith("n1 (0 of 8 GPUs)\n")


def test_hostile_names_stay_on_their_line() -> None:
    evil = "\x1b[2J\x1b]0;owned\x07evil\nGPU 0 available"
    process = GpuProcess(5, 1, evil, evil, 1, model=evil, job=evil)
    mine = held("GPU-n1-1", evil, "1", 5, job_name=evil, note=evil)
    view = replace(N1, reservations={"GPU-n1-1": mine})
    gpus = (gpu(0), gpu(1, 2000, process), gpu(2, 2000, process))

    result = run(app(FakeLedger(view), FakeProbe(gpus)), "status")

    lines = result.stdout.splitlines()
    assert len(lines) == 2 + 4
    assert all(line.isprintable() for line in lines)
    assert sum(line.startswith("0 ") for line in lines) == 1
