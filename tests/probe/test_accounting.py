"""The simulated driver's accounting through the real pynvml."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from simulated_driver import install_driver

import fake_nvml
from canhazgpu.config.schema import ValidationConfig
from canhazgpu.gpu.accounting import GpuUse
from canhazgpu.ledger.values import Claim, NodeView, Reservation
from canhazgpu.probe.accounting import job_use
from canhazgpu.probe.accounting.job_use import SINCE_FILE, PendingUse, switch_on
from canhazgpu.probe.accounting.run_use import RunUses


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[fake_nvml.FakeNode, str]:
    library = install_driver(tmp_path / "driver")
    state = fake_nvml.FakeState(library.parent / "state")
    node = state.add_node("n1", 2)
    for name, value in state.env("n1").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(job_use, "write_syslog", lambda *_: None)
    return node, str(library)


def validation(library: str) -> ValidationConfig:
    return ValidationConfig(nvml_library=library, accounting="auto")


def test_accounting_is_switched_on_once_and_its_time_is_kept(
    driver: tuple[fake_nvml.FakeNode, str], tmp_path: Path
) -> None:
    node, library = driver
    switch_on("n1", validation(library), tmp_path)
    assert [gpu.text("accounting_mode", 0) for gpu in node.gpus] == ["1", "1"]
    before = (tmp_path / SINCE_FILE).read_text()
    assert set(json.loads(before)) == {gpu.uuid for gpu in node.gpus}
    switch_on("n1", validation(library), tmp_path)
    assert (tmp_path / SINCE_FILE).read_text() == before


def test_what_was_used_while_a_gpu_was_held(
    driver: tuple[fake_nvml.FakeNode, str], tmp_path: Path
) -> None:
    node, library = driver
    for gpu in node.gpus:
        gpu.set("accounting_mode", 1)
    now = time.time()
    used, unused = (gpu.uuid for gpu in node.gpus)
    node.gpu(0).account(70_000, busy_percent=80, peak_mb=71_000, started_at=now - 100, ran_s=100.0)
    node.gpu(0).account(12, busy_percent=99, peak_mb=80_000, started_at=now - 500, ran_s=100.0)
    found = PendingUse(validation(library), tmp_path, [used, unused]).result(now - 100, {})
    assert found[used].peak_mb == 71_000
    assert 75 <= found[used].busy_percent <= 80
    assert found[unused] == GpuUse(0, 0, never_used=True)
    others = PendingUse(validation(library), tmp_path, [used]).result(now - 100, {used: [70_000]})
    assert others[used].never_used


@pytest.mark.parametrize("has_ended", [True, False])
def test_a_process_of_a_run_has_ended_though_nobody_has_waited_for_it(
    driver: tuple[fake_nvml.FakeNode, str], tmp_path: Path, has_ended: bool
) -> None:
    """What runs on a run's GPU after its end is somebody else's."""
    node, library = driver
    node.gpu(0).set("accounting_mode", 1)
    uuid, now = node.gpu(0).uuid, time.time()
    held = Reservation(uuid, Claim("run:1", "run", "ann"), now - 10)
    view = NodeView("n1", now, None, None, {uuid: held})
    with subprocess.Popen(["sleep", "600"]) as process:
        if has_ended:
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        node.gpu(0).account(
            process.pid, busy_percent=50, peak_mb=40_000, started_at=now - 5, ran_s=None
        )
        uses = RunUses(validation(library), tmp_path, view, ["run:1"])
        note = uses.note("run:1")
        process.kill()
    assert note is not None
    ((_, peak_mb, _, _),) = note.facts["use"]["driver"]
    assert peak_mb == (40_000 if has_ended else None)


def test_without_accounting_or_with_a_damaged_note_nothing_is_known(
    driver: tuple[fake_nvml.FakeNode, str], tmp_path: Path
) -> None:
    node, library = driver
    uuid = node.gpu(0).uuid
    assert PendingUse(validation(library), tmp_path, [uuid]).result(0.0, {}) == {}
    node.gpu(0).set("accounting_mode", 1)
    assert PendingUse(validation(library), tmp_path, [uuid]).result(0.0, {})
    for content in ("", "[]", '{"x": "y"}', "{"):
        (tmp_path / SINCE_FILE).write_text(content)
        assert PendingUse(validation(library), tmp_path, [uuid]).result(0.0, {}) == {}


@pytest.mark.parametrize("mode", ["n/a", "7", "x"])
def test_a_gpu_without_accounting_is_left_alone(
    driver: tuple[fake_nvml.FakeNode, str], tmp_path: Path, mode: str
) -> None:
    node, library = driver
    node.gpu(0).set("accounting_mode", mode)
    switch_on("n1", validation(library), tmp_path)
    assert node.gpu(0).text("accounting_mode", 0) == mode
    assert node.gpu(1).text("accounting_mode", 0) == "1"
    assert PendingUse(validation(library), tmp_path, [node.gpu(0).uuid]).result(0.0, {}) == {}


def test_a_driver_that_hangs_costs_no_more_than_the_limit(
    driver: tuple[fake_nvml.FakeNode, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, library = driver
    monkeypatch.setattr(job_use, "LIMIT_S", 0.2)
    monkeypatch.setattr(job_use, "_read", lambda *_: time.sleep(60))
    assert PendingUse(validation(library), tmp_path, [node.gpu(0).uuid]).result(0.0, {}) == {}
