"""`canhazgpu status` with the options that choose what it shows."""

from __future__ import annotations

import json
import os
import pwd
from dataclasses import replace

import pytest
from click.testing import CliRunner, Result
from fakes.read_only_ledger import NOW, FakeLedger, FakeProbe, app

from canhazgpu.cli.main import cli
from canhazgpu.errors import StoreError
from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.ledger.values import Claim, NodeView, Reservation

ME = pwd.getpwuid(os.getuid()).pw_name


def gpu(node: str, index: int, *processes: GpuProcess) -> GpuReading:
    used_mb = 9000 if processes else 45
    return GpuReading(index, f"GPU-{node}-{index}", index, "NVIDIA H100", used_mb, 80000, processes)


def view(node: str, *holders: str, partitions: tuple[str, ...] | None = None) -> NodeView:
    gpus = (
        *(gpu(node, index) for index in range(3)),
        gpu(node, 3, GpuProcess(7, 4321, "zoe", "x", 8)),
    )
    held = {
        f"GPU-{node}-{index}": Reservation(
            f"GPU-{node}-{index}", Claim("o", "manual", user), NOW - 9
        )
        for index, user in enumerate(holders)
    }
    return NodeView(node, NOW, Scan(node, 0.0, 0.1, gpus), NOW - 5, held, partitions=partitions)


VIEWS = (view("n2", "alice", partitions=("gpu", "debug")), view("n3", "bob", "alice"), view("n4"))


def run(*args: str, ledger: FakeLedger | None = None, probe: FakeProbe | None = None) -> Result:
    found = app(ledger or FakeLedger(*VIEWS), probe or FakeProbe(fault="no driver"))
    return CliRunner().invoke(cli, ["status", *args], obj=found)


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (
            ("-s",),
            [
                "n2  4 GPUs  2 free  1 alice  1 zoe WITHOUT RESERVATION  (scanned 5s ago)",
                "n3  4 GPUs  1 free  2 bob,alice  1 zoe WITHOUT RESERVATION  (scanned 5s ago)",
                "n4  4 GPUs  3 free  1 zoe WITHOUT RESERVATION  (scanned 5s ago)",
            ],
        ),
        (
            ("--summary", "--user", "alice"),
            ["n2  4 GPUs  1 alice  (scanned 5s ago)", "n3  4 GPUs  1 alice  (scanned 5s ago)"],
        ),
        (("-s", "--user", "bob,alice", "--state", "free"),
         ["no GPU matches --state free --user bob,alice"]),
        (("-s", "--free", "--node", "n4"), ["n4  4 GPUs  3 free  (scanned 5s ago)"]),
        (("-s", "--partition", "debug"),
         ["n2  4 GPUs  2 free  1 alice  1 zoe WITHOUT RESERVATION  (scanned 5s ago)"]),
        (("-s", "--free", "--state", "in_use", "--node", "n3"),
         ["n3  4 GPUs  1 free  2 bob,alice  1 zoe WITHOUT RESERVATION  (scanned 5s ago)"]),
        (("-s", "--user", "4321", "--node", "n3"),
         ["n3  4 GPUs  1 zoe WITHOUT RESERVATION  (scanned 5s ago)"]),
        (("-s", "--model", "h100", "--state", "UNRESERVED", "--node", "n4"),
         ["n4  4 GPUs  1 zoe WITHOUT RESERVATION  (scanned 5s ago)"]),
        (("--user", "root", "--node", "n4"), ["root holds, uses and awaits no GPU"]),
        (("--user", "root"), ["root holds, uses and awaits no GPU"]),
        (("--state", "unknown"), ["no GPU matches --state unknown"]),
        (("--model", "gpt"), ["no GPU matches --model gpt; known: NVIDIA H100"]),
        (("--user", "alice", "--partition", "gpu", "--free"),
         ["no GPU matches --free --user alice --partition gpu"]),
    ],
)  # fmt: skip
def test_lines(options: tuple[str, ...], lines: list[str]) -> None:
    result = run(*options)

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == lines


def test_tables_have_the_chosen_rows_and_no_gpu_is_missing() -> None:
    result = run("--state", "unreserved", "--node", "n2", "--node", "n3")
    lines = result.stdout.splitlines()
    assert [line.split()[:1] for line in lines] == [
        ["n2"], ["GPU"], ["---"], ["3"], [], ["n3"], ["GPU"], ["---"], ["3"],
    ]  # fmt: skip
    assert "4 GPUs" not in result.stdout


def test_json_has_the_chosen_gpus_alone() -> None:
    document = json.loads(run("--json", "--user", "alice", "--state", "reserved").stdout)
    assert [one["node"] for one in document["nodes"]] == ["n2", "n3"]
    assert [[gpu["index"] for gpu in one["gpus"]] for one in document["nodes"]] == [[0], [1]]
    assert [one["found_gpus"] for one in document["nodes"]] == [4, 4]
    assert document["nodes"][0]["partitions"] == ["gpu", "debug"]
    assert document["nodes"][1]["partitions"] is None
    summary = json.loads(run("-sj", "--free").stdout)
    assert [(one["total"], one["available"], one["reserved"]) for one in summary["nodes"]] == [
        (4, 2, 0), (4, 1, 0), (4, 3, 0),
    ]  # fmt: skip
    assert json.loads(run("-j", "--state", "unknown").stdout)["nodes"] == []


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--state", "avail"), "there is no state 'avail'; did you mean 'available'? known:"),
        (("--state", "free,x"), "there is no state 'x'; known: available, free, in-use,"),
        (("--state", ""), "has an empty name"),
        (("--user", "alice,,bob"), "has an empty name"),
        (("--user", "alcie"), "on the nodes shown; did you mean 'alice'? known: alice, bob, zoe"),
        (("--partition", "gpus"), "did you mean 'gpu'? known: debug, gpu"),
        (("--node", "n22"), "the ledger knows no node 'n22'; did you mean 'n2'? 'canhazgpu"),
    ],
)  # fmt: skip
def test_wrong_values(options: tuple[str, ...], text: str) -> None:
    for more in ((), ("--summary",), ("--json",), ("--watch",)):
        result = run(*options, *more)
        assert result.exit_code == 2
        assert text in result.stderr
        assert result.stdout == ""


def test_ones_own_and_another_users() -> None:
    views = (view("n2", "alice", ME), view("n3", "bob"))
    result = run("--me", "--user", "alice", "-s", ledger=FakeLedger(*views))
    assert result.stdout.splitlines() == [f"n2  4 GPUs  2 alice,{ME}  (scanned 5s ago)"]


def test_a_hostile_filter_stays_on_its_line() -> None:
    result = run("--model", "\x1b[2Jx\n")
    assert result.stdout.isprintable() or result.stdout.count("\n") == 1
    assert "\x1b" not in result.stdout


def test_without_the_store_a_filter_shows_what_this_node_knows() -> None:
    probe = FakeProbe((gpu("n1", 0), gpu("n1", 1, GpuProcess(7, 4321, "zoe", "x", 8000))))
    down = FakeLedger(error=StoreError("cannot reach the store"))
    for options in (("--partition", "gpu"), ("--user", "nosuchuser"), ("--free",)):
        result = run(*options, ledger=down, probe=probe)
        assert result.exit_code == 4
        assert "as far as this node knows" in result.stdout
    result = run("-s", ledger=down, probe=probe)
    assert result.exit_code == 4
    assert result.stdout.startswith(
        "n1  2 GPUs  0 free  2 unknown  (not all reservations are known)"
    )


def test_a_terminal_without_room_gets_the_summary() -> None:
    found = replace(app(FakeLedger(*VIEWS), FakeProbe(), width=80), height=lambda: 20)
    lines = CliRunner().invoke(cli, ["status"], obj=found).stdout.splitlines()
    assert lines[0].startswith("n2  4 GPUs  2 free")
    assert lines[3:] == ["(the tables take 23 lines: --no-summary, --node or a pipe shows them)"]
    for height, options in (
        (24, ()),
        (20, ("--no-summary",)),
        (20, ("--wide",)),
        (3, ("--node", "n2")),
    ):
        roomy = replace(found, height=lambda height=height: height)
        result = CliRunner().invoke(cli, ["status", *options], obj=roomy)
        assert result.stdout.startswith("n2 (scanned"), options
    result = CliRunner().invoke(cli, ["status", "--free"], obj=replace(found, height=lambda: 10))
    assert result.stdout.startswith("n2  4 GPUs  2 free")
    result = CliRunner().invoke(cli, ["status", "--json"], obj=replace(found, height=lambda: 10))
    assert json.loads(result.stdout)["nodes"][0]["gpus"]
