"""`canhazgpu admin` with a ledger in memory."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from fakes.memory_ledger import (
    ALICE,
    BOB,
    ROOT,
    MemoryLedger,
    gpu,
    job,
    ledger,
    manual,
    run,
    running,
    scan,
    uuid,
    view,
)
from fakes.read_only_ledger import NOW, FakeProbe

from canhazgpu.gpu.scan import GpuHealth, GpuProcess
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.values import Quarantine, Share, Waiter


def admin(store: MemoryLedger, *arguments: str, **more: object) -> list[str]:
    """Run as root; return the lines, after checking that all went well."""
    result = run(store, "admin", *arguments, caller=ROOT, **more)  # type: ignore[arg-type]
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.splitlines()


@pytest.mark.parametrize(
    "arguments",
    [
        ("forget", "n1"),
        ("release", "--user", "bob", "--reason", "x"),
        ("quarantine", "1", "--reason", "x"),
        ("unquarantine", "1"),
    ],
)
def test_only_root_changes_anything(arguments: tuple[str, ...]) -> None:
    store = ledger(view(manual(0, BOB)))

    result = run(store, "admin", *arguments, caller=ALICE)

    assert (result.exit_code, result.stdout, store.changes) == (2, "", [])
    assert result.stderr.startswith("Error: only root and this node's operators may ")
    assert "run it with sudo" in result.stderr


def test_nodes_for_everybody() -> None:
    rogue = GpuProcess(7, 1, "eve", "python3", 5000)
    busy = view(
        manual(0),
        running(1),
        scan=scan(gpu(0), gpu(1), gpu(2, 5045, rogue), gpu(3), gpu(4), gpu(5, fault="lost")),
        quarantines={uuid(4): Quarantine(uuid(4), "fan", NOW)},
        queue=(Waiter("run:x", "bob", 1, 2, renewed_at=NOW),),
    )
    down = view(node="n2", scan=scan(fault="no driver", node="n2"), scanned_at=NOW - 7200)

    result = run(ledger(busy, down), "admin", "nodes", role=Role.READ)

    assert [" ".join(line.split()) for line in result.stdout.splitlines()] == [
        "NODE GPUS AVAILABLE IN USE UNRESERVED QUARANTINED UNKNOWN WAITING SCANNED FAULT",
        "n1 6 1 2 1 1 1 1 1m ago",
        "n2 0 0 0 0 0 0 0 2h ago no driver",
    ]


def test_nodes_as_json() -> None:
    never = replace(view(node="n2"), scan=None, scanned_at=None)

    first, second = json.loads(run(ledger(view(), never), "admin", "nodes", "--json").stdout)[
        "nodes"
    ]

    assert first == {
        "node": "n1",
        "gpus": 4,
        "available": 4,
        "in_use": 0,
        "unreserved": 0,
        "quarantined": 0,
        "unknown": 0,
        "waiting": 0,
        "scanned_at": "2023-11-14T22:12:20Z",
        "scan_age_s": 60.0,
        "fault": None,
    }
    assert (second["scanned_at"], second["scan_age_s"]) == (None, None)
    assert "never" in run(ledger(never), "admin", "nodes").stdout


def test_no_node_yet() -> None:
    assert "validate --publish" in run(ledger(), "admin", "nodes").stdout


def test_a_node_is_forgotten() -> None:
    store = ledger(view(), view(node="n2"))

    assert admin(store, "forget", "n2") == ["forgot n2"]
    assert list(store.views) == ["n1"]


def test_a_node_with_reserved_gpus_is_not_forgotten() -> None:
    store = ledger(view(manual(0), running(2, BOB)))

    result = run(store, "admin", "forget", "n1", caller=ROOT)

    assert (result.exit_code, store.changes) == (2, [])
    assert "GPU 0 by alice (manual); GPU 2 by bob (run)" in result.stderr
    assert f"admin release --node n1 --gpu-ids {uuid(0)},{uuid(2)} --reason" in result.stderr


def test_one_reserved_at_the_last_moment_is_not_forgotten_either() -> None:
    store = ledger(view(manual(0, left_s=0.0)))

    result = run(store, "admin", "forget", "n1", caller=ROOT)

    assert result.exit_code == 2
    assert "a GPU of n1 is reserved" in result.stderr


def test_an_unknown_node_cannot_be_forgotten() -> None:
    result = run(ledger(view()), "admin", "forget", "nX", caller=ROOT)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "knows no node 'nX'" in result.stderr


@pytest.mark.parametrize(
    ("selection", "released"),
    [
        (["--gpu-ids", "0-1"], [0, 1]),
        (["--user", "bob"], [1, 2]),
        (["--owner", "run:2"], [2]),
        (["--job", "12"], [3]),
        (["--user", "bob", "--gpu-ids", "0-1"], [1]),
        (["--user", "bob", "--job", "12"], []),
        (["--user", "nobody"], []),
    ],
)
def test_what_an_administrator_selects_is_released(
    selection: list[str], released: list[int]
) -> None:
    store = ledger(view(manual(0), manual(1, BOB), running(2, BOB), job(3)))

    lines = admin(store, "release", *selection, "--reason", "the demo")

    left = sorted(store.views["n1"].reservations)
    assert left == [uuid(index) for index in range(4) if index not in released]
    assert all(change[3] == "the demo" for change in store.changes)
    assert all(change[5] == "root" for change in store.changes)
    if not released:
        told = {
            "nothing to release: no such reservation on n1",
            "nothing to release: no node knows of GPUs that job 12 holds",
        }
        assert {*lines} < told


def test_what_is_released_is_said() -> None:
    store = ledger(view(manual(0), job(3), node="n2"))

    lines = admin(store, "release", "--gpu-ids", "0-3", "--reason", "x", "--node", "n2")

    assert lines == [
        "released GPU 3 of n2: alice (job 12)",
        "released GPU 0 of n2: alice (manual)",
        "what still runs there goes on, and shows as in use WITHOUT RESERVATION",
    ]


def test_release_as_json() -> None:
    store = ledger(view(manual(0)))

    result = run(
        store, "admin", "release", "--user", "alice", "--reason", "x", "--json", caller=ROOT
    )

    assert [one["uuid"] for one in json.loads(result.stdout)["released"]] == [uuid(0)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--reason", "x"], "say which: --gpu-ids, --user, --owner or --job"),
        (["--user", "bob"], "Missing option '--reason'"),
        (["--user", "bob", "--reason", ""], "accepted: some words"),
        (["--user", "bob", "--reason", " \n\x1b[2J"], "accepted: some words"),
        (["--user", "bob", "--reason", "x" * 201], "at most 200 characters"),
        (["--gpu-ids", "-3", "--reason", "x"], "accepted: indices as 0,3"),
        (["--gpu-ids", "9", "--reason", "x"], "there is no GPU 9 on n1; it has 0-3"),
    ],
)
def test_a_release_that_makes_no_sense_is_refused(arguments: list[str], words: str) -> None:
    store = ledger(view(manual(1, BOB)))

    result = run(store, "admin", "release", *arguments, caller=ROOT)

    assert (result.exit_code, result.stdout, store.changes) == (2, "", [])
    assert words in " ".join(result.stderr.split())


def test_a_reason_is_kept_on_one_harmless_line() -> None:
    store = ledger(view(manual(0)))

    admin(store, "release", "--user", "alice", "--reason", " two\nlines \x1b[31mred\x1b[0m ")

    assert store.changes[0][3] == "two lines red"


def shared_by_two() -> MemoryLedger:
    half = Share("shard", 1, 2)
    return ledger(view(job(1, share=half), job(1, BOB, "13", half)))


def test_those_who_share_a_quarantined_gpu_keep_it() -> None:
    (line,) = admin(shared_by_two(), "quarantine", "1", "--reason", "fan is broken")
    assert line.endswith("; alice (job 12), bob (job 13) keep it until it is released")


def test_a_job_is_released_on_all_its_nodes_as_json() -> None:
    store = shared_by_two()
    words = ("admin", "release", "--job", "12", "--reason", "x", "--json")

    result = run(store, *words, caller=ROOT)

    (node,) = json.loads(result.stdout)["nodes"]
    assert (node["node"], node["error"]) == ("n1", None)
    assert {one["owner"] for one in node["released"]} == {"job:c:12:0"}
    assert json.loads(run(store, *words, caller=ROOT).stdout) == {"nodes": []}


def test_one_of_those_who_share_a_gpu_is_released() -> None:
    store = shared_by_two()
    admin(store, "release", "--job", "12", "--reason", "stuck")
    held = store.views["n1"].reservations[uuid(1)]
    assert [one.claim.job_id for one in held.holders] == ["13"]


def test_all_who_share_a_gpu_are_released() -> None:
    store = shared_by_two()
    lines = admin(store, "release", "--gpu-ids", "1", "--reason", "stuck")
    assert store.views["n1"].reservations == {}
    assert ["alice" in line or "bob" in line for line in lines].count(True) == 2


def test_gpus_are_quarantined_with_a_reason() -> None:
    store = ledger(view(manual(1)))

    lines = admin(store, "quarantine", "0-1", uuid(3), "--reason", "fan is broken")

    assert lines == [
        "quarantined GPU 0 of n1: fan is broken",
        "quarantined GPU 1 of n1: fan is broken; alice (manual) keeps it until it is released",
        "quarantined GPU 3 of n1: fan is broken",
    ]
    assert {one.by for one in store.views["n1"].quarantines.values()} == {"root"}
    assert list(store.views["n1"].reservations) == [uuid(1)]


def test_one_that_is_quarantined_already_keeps_its_reason() -> None:
    store = ledger(view(quarantines={uuid(0): Quarantine(uuid(0), "row remap", NOW)}))

    lines = admin(store, "quarantine", "0", "--reason", "fan")

    assert lines == ["GPU 0 of n1 was quarantined already: row remap (by health)"]


def test_gpus_of_another_node_are_those_of_its_last_scan() -> None:
    probe = FakeProbe()
    store = ledger(view(node="n2", gpus=8))

    lines = admin(store, "quarantine", "7", "--node", "n2", "--reason", "x", probe=probe)

    assert lines == ["quarantined GPU 7 of n2: x"]
    assert probe.events == []


@pytest.mark.parametrize("arguments", [("0", "0"), ("0-1", "1"), ("0", uuid(0))])
def test_a_gpu_named_twice_is_refused(arguments: tuple[str, ...]) -> None:
    store = ledger(view())

    result = run(store, "admin", "quarantine", *arguments, "--reason", "x", caller=ROOT)

    assert (result.exit_code, store.changes) == (2, [])
    assert "name each GPU once" in result.stderr


def test_unquarantine_says_what_it_did_and_when_it_will_not_last() -> None:
    # Given two quarantined GPUs, of which one is still sick, and one that is not quarantined
    held = {uuid(index): Quarantine(uuid(index), "x", NOW) for index in (0, 1, 7)}
    store = ledger(view(quarantines=held))
    probe = FakeProbe((gpu(0), gpu(1, health=GpuHealth("reset")), gpu(2)))

    lines = admin(store, "unquarantine", "0", "1", "2", uuid(7), probe=probe)

    assert lines == [
        "unquarantined GPU 0 of n1",
        "unquarantined GPU 1 of n1; the next scan sets it again:"
        " needs a reset: nvidia-smi --gpu-reset -i 1",
        "GPU 2 of n1 was not quarantined",
        f"unquarantined GPU {uuid(7)} of n1",
    ]
    assert store.views["n1"].quarantines == {}


def test_the_help_says_what_the_check_for_root_is_worth() -> None:
    assert "a courtesy" in run(ledger(), "admin", "--help").stdout
