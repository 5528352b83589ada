"""`canhazgpu status` over a real server, real pynvml and real processes of real users."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts.cli_node import CliNode, make_cli_node

import fake_nvml
from canhazgpu.ledger.values import Claim

pytestmark = pytest.mark.slow

READER = "reader on nopass ~* +@read +@transaction +@connection +time"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[CliNode]:
    monkeypatch.setenv("FAKE_NVML_NODE", "n1")
    with make_cli_node() as made:
        yield made


def own_claim(**more: object) -> Claim:
    me = pwd.getpwuid(os.getuid())
    return Claim("manual:1", "manual", me.pw_name, me.pw_uid, **more)  # type: ignore[arg-type]


def test_status_over_real_parts_with_read_rights_only(here: CliNode) -> None:
    # Given a reserved GPU in use, one in use without reservation, and a free one
    owner = own_claim(job_id="7", job_name="j", ends_at=1.0)
    here.reserve(owner, 0)
    with here.redis.client() as client:
        client.execute_command("ACL", "SETUSER", *READER.split())
    with (
        fake_nvml.start_gpu_process(here.node.gpu(0), 8000, name="train.py"),
        fake_nvml.start_gpu_process(here.node.gpu(1), 2000, name="intruder") as intruder,
    ):
        # If a user who may only read the ledger looks
        url = here.redis.url.replace("unix://", "unix://reader:x@")
        done = here.run("status", CANHAZGPU_STORE_URL=url)

    # I expect each in its own state
    assert (done.returncode, done.stderr) == (0, "")
    rows = [" ".join(line.split()) for line in done.stdout.splitlines()[2:]]
    assert rows[0].startswith(f"0 in use {owner.user} ")
    assert rows[0].endswith(" ago 8045MB, 1 processes")
    assert "WITHOUT RESERVATION 2045MB used by PID" in rows[1]
    assert f"PID {intruder.pid} (intruder)" in rows[1]
    assert rows[2] == "2 available 45MB used"


def test_an_unhealthy_gpu_is_not_available_before_anybody_has_quarantined_it(here: CliNode) -> None:
    here.node.gpu(2).set_health(remap_pending=1)

    rows = [" ".join(line.split()) for line in here.run("status").stdout.splitlines()[2:]]

    assert rows[2].startswith("2 quarantined row remap pending, reset the GPU")
    assert here.ledger().read_nodes(["n1"])[0].quarantines == {}


@needs_root
def test_somebody_else_on_a_reserved_gpu_is_named(here: CliNode) -> None:
    # Given two of nobody's processes on a GPU reserved by nobody, and one of daemon's beside
    nobody = pwd.getpwnam("nobody")
    here.reserve(Claim("manual:2", "manual", "nobody", nobody.pw_uid), 0)
    gpu = here.node.gpu(0)
    with (
        fake_nvml.start_gpu_process(gpu, 8000, user="nobody", name="train.py"),
        fake_nvml.start_gpu_process(gpu, 2000, user="daemon", name="python3") as other,
    ):
        table, form = here.run("status"), here.run("status", "--json")

    # I expect the reservation to be shown, and whom it does not cover
    row = " ".join(table.stdout.splitlines()[2].split())
    assert row.startswith("0 in use nobody ")
    assert f" manual daemon WITHOUT RESERVATION: PID {other.pid} (python3)" in row
    assert row.endswith(" 10045MB, 2 processes")
    (intruder,) = json.loads(form.stdout)["nodes"][0]["gpus"][0]["intruders"]
    assert (intruder["pid"], intruder["user"]) == (other.pid, "daemon")


@needs_root
def test_a_display_server_on_a_reserved_gpu_is_no_alarm(here: CliNode) -> None:
    nobody = pwd.getpwnam("nobody")
    here.reserve(Claim("manual:2", "manual", "nobody", nobody.pw_uid), 0)
    with fake_nvml.start_gpu_process(here.node.gpu(0), 4, name="Xorg") as xorg:
        table, wide = here.run("status"), here.run("status", "--wide")
        checked = here.run("validate", "--expected-gpus", "3")

    assert " ".join(table.stdout.splitlines()[2].split()).endswith(" manual no usage detected")
    assert f"(4MB of root below the threshold: PID {xorg.pid} (Xorg))" in wide.stdout
    assert checked.returncode == 0, checked.stdout


@needs_root
@pytest.mark.parametrize("how", ["gone", "without a handle"])
def test_a_reserved_gpu_that_fell_off_the_bus_is_one_row_with_its_index(
    here: CliNode, how: str
) -> None:
    assert here.run("validate", "--publish").returncode == 0
    here.reserve(own_claim(), 1)
    if how == "gone":
        here.node.gpu(1).remove()
        here.node.add_gpu(1, uuid=here.node.gpu(2).uuid)
        here.node.gpu(2).remove()
    else:
        here.node.inject("nvmlDeviceGetHandleByIndex", return_=15, gpu=1)
    table, form = here.run("status"), here.run("status", "--json")
    checked = here.run("validate")

    gpus = json.loads(form.stdout)["nodes"][0]["gpus"]
    assert len(gpus) == 3
    (lost,) = (one for one in gpus if one["state"] == "reserved")
    assert lost["index"] == (None if how == "gone" else 1)
    assert checked.returncode == 2
    if how == "gone":
        assert table.stdout.startswith("n1 (2 of 3 GPUs)")
        assert "2 of 3 GPUs are there" in checked.stdout
    else:
        row = next(line for line in table.stdout.splitlines() if line.startswith("1 "))
        assert "cannot tell: GPU is lost (NVML error 15)" in row
        assert f"GPU 1 ({lost['uuid']}): cannot be read: GPU is lost" in checked.stdout


def test_ignored_processes_are_shown_and_do_not_count(here: CliNode) -> None:
    with fake_nvml.start_gpu_process(here.node.gpu(0), 3000, name="Xorg"):
        done = here.run("--set", "validation.ignore_processes=Xorg", "status", "--me")

    (row,) = done.stdout.splitlines()[2:]
    assert " ".join(row.split()) == "0 available 3045MB used (Xorg ignored)"


def test_a_store_that_does_not_answer(here: CliNode) -> None:
    done = here.run("status", CANHAZGPU_STORE_URL=f"unix://{Path(here.directory)}/none.sock")

    assert done.returncode == 4
    assert done.stdout.count("reservation not known") == 3
    assert done.stderr.startswith("Error: cannot reach the store at ")


def test_variables_that_are_no_keys_stop_status_never_and_reserve_only_where_they_are_almost_keys(
    here: CliNode,
) -> None:
    others = {"CANHAZGPU_REDIS_HOST": "x", "CANHAZGPU_MEMORY_THRESHOLD": "1"}
    shown = here.run("status", **others, CANHAZGPU_STORE_TIMEOUT="1")
    refused = here.run("reserve", "--gpus", "1", CANHAZGPU_STORE_TIMEOUT="1")
    reserved = here.run("reserve", "--gpus", "1", "--short", **others)

    assert (shown.returncode, len(shown.stderr.splitlines())) == (0, 1)
    assert "CANHAZGPU_STORE_TIMEOUT (did you mean CANHAZGPU_STORE_TIMEOUT_S?)" in shown.stderr
    assert all(name in shown.stderr for name in others)
    assert refused.returncode == 2
    assert "unknown key CANHAZGPU_STORE_TIMEOUT in the environment" in refused.stderr
    assert reserved.returncode == 0, reserved.stderr
    assert all(name in reserved.stderr for name in others)
