"""`canhazgpu validate` with a ledger and a probe in memory: what it says and its exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from click.testing import Result
from fakes.memory_ledger import (
    BOB,
    MemoryLedger,
    UsagePolicyProbe,
    gpu,
    ledger,
    manual,
    run,
    scan,
    uuid,
    view,
)
from fakes.read_only_ledger import NOW

from canhazgpu.errors import StoreError
from canhazgpu.gpu.scan import GpuHealth, GpuProcess, GpuReading
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.values import Quarantine

ROGUE = GpuProcess(12345, 1002, "bob", "python3", 5000)
SICK = GpuHealth(remap_failed=True)
GONE = StoreError("cannot reach the store at redis://h: Connection refused")


def validate(store: MemoryLedger, *gpus_and_flags: GpuReading | str, **more: Any) -> Result:
    gpus = tuple(one for one in gpus_and_flags if isinstance(one, GpuReading))
    flags = tuple(one for one in gpus_and_flags if isinstance(one, str))
    probe = UsagePolicyProbe(
        gpus, more.pop("fault", None), meanwhile=more.pop("meanwhile", lambda: None)
    )
    return run(store, "validate", *flags, probe=probe, **more)


def test_a_clean_node() -> None:
    store = ledger(view(manual(1)))

    result = validate(store, gpu(0), gpu(1, 5045), gpu(2), gpu(3), role=Role.READ)

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "GPUS OK - n1: 4 GPUs, 1 reserved\n"
    assert store.changes == []


def test_unreserved_use() -> None:
    result = validate(ledger(view(gpus=2)), gpu(0), gpu(1, 5045, ROGUE))

    what = (
        f"GPU 1 ({uuid(1)}): in use by bob WITHOUT RESERVATION: 5045MB used by PID 12345 (python3)"
    )
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"GPUS WARNING - n1: {what}",
        "-> bob ends it, or takes the GPU: canhazgpu reserve --force --gpu-ids 1",
    ]


def test_an_unhealthy_gpu() -> None:
    result = validate(ledger(view(gpus=1)), gpu(0, health=SICK))

    assert result.exit_code == 2
    assert result.stdout.startswith(f"GPUS CRITICAL - n1: GPU 0 ({uuid(0)}): unhealthy: row remap")


@pytest.mark.parametrize(
    ("flags", "environ"),
    [(("--expected-gpus", "8"), {}), ((), {"CANHAZGPU_VALIDATION_EXPECTED_GPUS": "8"})],
)
def test_fewer_gpus_than_expected(flags: tuple[str, ...], environ: dict[str, str]) -> None:
    result = validate(ledger(), gpu(0), *flags, environ=environ)

    assert result.exit_code == 2
    assert result.stdout.startswith("GPUS CRITICAL - n1: 1 of 8 GPUs are there\n")


def test_a_driver_that_fails() -> None:
    result = validate(ledger(view()), fault="no driver")

    assert result.exit_code == 3
    assert result.stdout.startswith("GPUS UNKNOWN - n1: no driver\n")


def test_without_the_ledger_health_is_still_told() -> None:
    store = MemoryLedger({}, error=GONE)

    result = validate(store, gpu(0, 5045, ROGUE))
    sick = validate(store, gpu(0, health=SICK))

    assert (result.exit_code, sick.exit_code) == (3, 2)
    assert "WITHOUT RESERVATION" not in result.stdout
    assert result.stdout.splitlines() == [
        f"GPUS UNKNOWN - n1: the reservations cannot be read: {GONE}",
        "-> check store.url, and that its server answers",
    ]
    first, *others = sick.stdout.splitlines()
    assert first.startswith(f"GPUS CRITICAL - n1: GPU 0 ({uuid(0)}): unhealthy")
    assert first.endswith("(and 1 more)")
    assert others == [
        f"the reservations cannot be read: {GONE} -> check store.url, and that its server answers"
    ]


def test_a_node_without_gpus() -> None:
    none = validate(ledger())
    told = validate(ledger(), "--expected-gpus", "0")
    undriven = validate(ledger(), "--expected-gpus", "0", fault="no library")

    assert (none.exit_code, told.exit_code, undriven.exit_code) == (3, 0, 0)
    assert "there is no GPU, and nothing says how many" in none.stdout
    assert told.stdout == "GPUS OK - n1: 0 GPUs, 0 reserved\n"


def test_the_threshold_of_the_command_line_counts() -> None:
    flags = ("--memory-threshold", "8000")

    assert validate(ledger(view()), gpu(0, 5045, ROGUE), *flags, "--quiet").exit_code == 2
    assert validate(ledger(view(gpus=1)), gpu(0, 5045, ROGUE), *flags).exit_code == 0


def test_the_ledger_is_read_after_the_scan() -> None:
    # Given a GPU that is reserved and used while the scan is under way
    store = ledger(view(gpus=1))

    def reserve() -> None:
        taken = replace(manual(0, BOB), granted_at=NOW)
        store.views["n1"] = view(taken, gpus=1)

    # If it is validated, I expect no unreserved use
    assert validate(store, gpu(0, 5045, ROGUE), meanwhile=reserve).exit_code == 0


def test_quiet_prints_nothing() -> None:
    for result in (
        validate(ledger(view(gpus=1)), gpu(0), "--quiet"),
        validate(ledger(view(gpus=1)), gpu(0, 5045, ROGUE), "--quiet"),
        validate(MemoryLedger({}, error=GONE), gpu(0), "--quiet", "--json"),
    ):
        assert result.output == ""


def test_json_holds_the_same() -> None:
    held = {uuid(0): Quarantine(uuid(0), "fan", NOW, "root")}
    store = ledger(view(gpus=2, quarantines=held))

    result = validate(store, gpu(0), gpu(1, 5045, ROGUE), "--json")

    assert result.exit_code == 1
    what = "in use by bob WITHOUT RESERVATION: 5045MB used by PID 12345 (python3)"
    assert json.loads(result.stdout) == {
        "node": "n1",
        "exit_code": 1,
        "verdict": "unreserved",
        "summary": f"GPUS WARNING - n1: GPU 1 ({uuid(1)}): {what}",
        "published": False,
        "findings": [
            {
                "verdict": "unreserved",
                "gpu": "1",
                "uuid": uuid(1),
                "what": what,
                "user": "bob",
                "advice": "bob ends it, or takes the GPU: canhazgpu reserve --force --gpu-ids 1",
            },
            {
                "verdict": "clean",
                "gpu": "0",
                "uuid": uuid(0),
                "what": "quarantined by root: fan",
                "user": None,
                "advice": "when it is well: canhazgpu admin unquarantine 0",
            },
        ],
    }


def test_publish_stores_the_scan_quarantines_and_lifts() -> None:
    # Given a GPU that health quarantined and that is well again, and one that has become sick
    held = {uuid(0): Quarantine(uuid(0), "row remap pending", NOW)}
    store = ledger(view(gpus=2, quarantines=held))

    # If it is validated with and without --publish
    before = validate(store, gpu(0), gpu(1, health=SICK))
    after = validate(store, gpu(0), gpu(1, health=SICK), "--publish", role=Role.WRITE)

    # I expect both to be told, and after it the first one to be lifted
    assert (before.exit_code, after.exit_code) == (2, 2)
    assert len(before.stdout.splitlines()) == 2
    assert len(after.stdout.splitlines()) == 1
    assert list(store.views["n1"].quarantines) == [uuid(1)]
    assert store.changes == [("publish", "n1")]


def test_publish_still_tells_what_the_last_scan_had() -> None:
    store = ledger(view(gpus=2))

    first = validate(store, gpu(0), "--publish")
    second = validate(store, gpu(0), "--publish")

    assert (first.exit_code, second.exit_code) == (2, 0)
    assert store.views["n1"].scan == scan(gpu(0))


def test_publish_without_the_right_to_write_cannot_tell() -> None:
    store = MemoryLedger({"n1": view(gpus=1)}, change_error=StoreError("no permission to write"))

    result = validate(store, gpu(0), "--publish")

    assert result.exit_code == 3
    assert result.stdout.splitlines() == [
        "GPUS UNKNOWN - n1: the scan was not published: no permission to write",
        "-> check store.url, and that its server answers",
    ]


def test_a_scan_that_cannot_be_published_hides_no_unreserved_use() -> None:
    store = MemoryLedger({"n1": view(gpus=2)}, change_error=StoreError("full", next_step="free"))

    result = validate(store, gpu(0), gpu(1, 5045, ROGUE), "--publish", "--json")

    shown = json.loads(result.stdout)
    assert (result.exit_code, shown["published"]) == (3, False)
    assert [(one["verdict"], one["advice"][:4]) for one in shown["findings"]] == [
        ("cannot tell", "free"),
        ("unreserved", "bob "),
    ]


@pytest.mark.parametrize(
    "flags",
    [
        ("--bogus",),
        ("--memory-threshold", "x"),
        ("--expected-gpus", "-1"),
        ("--expected-gpus",),
        ("extra",),
    ],
)
def test_a_misspelt_flag_is_no_verdict(flags: tuple[str, ...]) -> None:
    result = validate(ledger(view(gpus=1)), gpu(0), *flags)

    assert (result.exit_code, result.stdout) == (3, "")
    assert "Error: " in result.stderr


@pytest.mark.parametrize(
    "environ",
    [
        {"CANHAZGPU_VALIDATION_MEMORY_THRESHOLD_MB": "many"},
        {"CANHAZGPU_CONFIG": "/nonexistent.toml"},
    ],
)
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_configuration_that_cannot_be_read_is_no_verdict(
    environ: dict[str, str], flags: tuple[str, ...]
) -> None:
    result = validate(ledger(view(gpus=1)), gpu(0), *flags, environ=environ)

    assert result.exit_code == 3
    words = json.loads(result.stdout)["summary"] if flags else result.stdout
    assert words.startswith("GPUS UNKNOWN - ")


def test_an_accident_is_no_verdict() -> None:
    store = MemoryLedger({}, error=RuntimeError("boom\n\x1b[2J"))

    result = validate(store, gpu(0))

    assert result.exit_code == 3
    assert result.stdout.startswith("GPUS UNKNOWN - internal error: RuntimeError: boom\n")


def test_hostile_names_add_no_line_and_no_figures() -> None:
    evil = "\x1b[2J\x1b]0;owned\x07eve|x=1\nGPUS OK - fine"
    rogue = GpuProcess(5, 1, evil, evil, 5000)

    result = validate(ledger(view(gpus=1)), gpu(0, 5045, rogue))

    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert "|" not in lines[0]
    assert (
        "|"
        not in json.loads(validate(ledger(view(gpus=1)), gpu(0, 5045, rogue), "--json").stdout)[
            "summary"
        ]
    )
