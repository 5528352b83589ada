"""The health check asks the real slurmd how it reads the GPUs, and a job's hook compares."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from slurm_configurations import find_slurmd, make_device_files

from canhazgpu.schedulers.slurm.conf.slurmd_answer import SlurmdAnswer
from canhazgpu.schedulers.slurm.hook.slurmd_gpus_record import FILE_NAME, read_answer
from canhazgpu.schedulers.slurm.node_check.slurmd_query import RETRY_AFTER_S, still_holds

ANSWER = SlurmdAnswer({"/a": [1, 2, 3]}, [["GPU-0", 0]], "boot", "12:34", 1000.0, ())
LATER = replace(ANSWER, asked_at=1000.0 + RETRY_AFTER_S - 1)


@pytest.mark.parametrize(
    ("kept", "now", "holds"),
    [
        (ANSWER, LATER, True),
        (ANSWER, replace(LATER, conf={"/a": [1, 2, 4]}), False),
        (ANSWER, replace(LATER, boot_id="another"), False),
        (ANSWER, replace(LATER, slurmd="56:78"), True),
        (ANSWER, replace(LATER, driver=[]), True),
        (ANSWER, replace(LATER, driver=[], slurmd=""), True),
        (ANSWER, replace(LATER, driver=[], slurmd="56:78"), False),
        (replace(ANSWER, fault="no answer"), LATER, True),
        (replace(ANSWER, fault="no answer"), replace(LATER, asked_at=9999.0), False),
    ],
)
def test_slurmd_is_asked_again_when_its_answer_may_have_changed(
    kept: SlurmdAnswer, now: SlurmdAnswer, holds: bool
) -> None:
    assert still_holds(kept, now) is holds


@pytest.fixture
def gpu_node(node: Any) -> Any:
    """The node with device files that slurmd accepts, in an order unlike that of their numbers."""
    find_slurmd()
    make_device_files(node.files / "dev")
    (node.files / "slurm.conf").write_text(
        f"ClusterName=c1\nSlurmctldHost=localhost\nGresTypes=gpu\n"
        f"SlurmdLogFile={node.files}/slurmd.log\nNodeName=n1 CPUs=1 Gres=gpu:4\n"
    )
    write_gres(node, "[2,0-1,3]")
    node.slurm()
    return node


def write_gres(node: Any, numbers: str) -> None:
    (node.files / "gres.conf").write_text(f"Name=gpu File={node.files}/dev/nvidia{numbers}\n")


def check(node: Any) -> None:
    environ = {name: value for name, value in node.environ().items() if "JOB" not in name}
    done = node.python("-m", "canhazgpu.epilog.health_check", environ=environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def record_path(node: Any) -> Path:
    return Path(node.files / "run" / FILE_NAME)


def kept(node: Any) -> tuple[list[str], str, float]:
    found = read_answer(node.files / "run")
    assert found is not None
    numbers = [file.partition("nvidia")[2] for one in found.devices for file in one.files]
    return numbers, found.fault, found.asked_at


@pytest.mark.slow
@pytest.mark.slurm
@pytest.mark.release
def test_the_health_check_keeps_slurmds_answer_while_it_holds(gpu_node: Any) -> None:
    check(gpu_node)
    first = kept(gpu_node)
    assert first[:2] == (["2", "0", "1", "3"], "")
    check(gpu_node)
    assert kept(gpu_node) == first
    write_gres(gpu_node, "[3,2,0-1]")
    check(gpu_node)
    assert kept(gpu_node)[:2] == (["3", "2", "0", "1"], "")
    assert gpu_node.log() == ""


@pytest.mark.slow
@pytest.mark.slurm
def test_the_answer_names_the_slurmd_that_runs_the_check(gpu_node: Any) -> None:
    """By an agent, too, which is below no slurmd: after slurmd's restart it is asked again."""
    daemon = gpu_node.files / "slurmd"
    daemon.symlink_to("/bin/sh")
    own = ["-I", "-m", "canhazgpu.epilog.health_check"]
    asks = gpu_node.agent.hook_arguments("health_check") if gpu_node.agent else own
    environ = {name: value for name, value in gpu_node.environ().items() if "JOB" not in name}
    with subprocess.Popen(
        [daemon, "-c", '"$@"; exit "$?"', "sh", sys.executable, *asks], env=environ
    ) as running:
        assert running.wait(60) == 0
    answer = read_answer(gpu_node.files / "run")
    assert answer is not None
    assert answer.slurmd.startswith(f"{running.pid}:")


@pytest.mark.slow
@pytest.mark.slurm
def test_an_answer_that_differs_gives_no_job_slurms_gpus(gpu_node: Any) -> None:
    check(gpu_node)
    gpu_node.run("prolog")
    assert len(gpu_node.owners_by_gpu()) == 2
    gpu_node.run("epilog")
    record = json.loads(record_path(gpu_node).read_text())
    record["devices"].reverse()
    record_path(gpu_node).write_text(json.dumps(record))

    gpu_node.run("prolog", SLURM_JOB_RESTART_COUNT="1")

    by_slurm = gpu_node.assignment == "slurm"
    assert ("slurmd -G and canhazgpu read the GPUs of n1" in gpu_node.log()) == by_slurm
    assert len(gpu_node.owners_by_gpu()) == (0 if by_slurm else 2)


@pytest.mark.slow
@pytest.mark.slurm
@pytest.mark.parametrize("text", ["", "[]", "{", '{"conf": 1, "devices": 7}', '{"devices": [[]]}'])
def test_a_record_that_cannot_be_read_counts_as_none(gpu_node: Any, text: str) -> None:
    record_path(gpu_node).parent.mkdir(exist_ok=True)
    record_path(gpu_node).write_text(text)
    gpu_node.run("prolog")
    assert len(gpu_node.owners_by_gpu()) == 2
    check(gpu_node)
    assert kept(gpu_node)[:2] == (["2", "0", "1", "3"], "")


@pytest.mark.slow
@pytest.mark.slurm
def test_a_slurmd_that_gives_no_answer_stops_no_job(gpu_node: Any) -> None:
    with (gpu_node.files / "slurm.conf").open("a") as conf:
        conf.write("NoSuchKey=1\n")
    check(gpu_node)
    assert kept(gpu_node)[0] == []
    assert "NoSuchKey" in kept(gpu_node)[1]
    gpu_node.run("prolog")
    assert len(gpu_node.owners_by_gpu()) == 2


@pytest.mark.slow
@pytest.mark.slurm
def test_slurmd_is_not_asked_to_wait_for_a_missing_device(gpu_node: Any) -> None:
    (gpu_node.files / "dev" / "nvidia1").unlink()
    check(gpu_node)
    assert f"{gpu_node.files}/dev/nvidia1, which is missing" in kept(gpu_node)[1]


@pytest.mark.slow
@pytest.mark.slurm
def test_slurmd_is_not_asked_while_the_driver_shows_nothing(gpu_node: Any) -> None:
    gpu_node.state.node("n1").inject("nvmlInit", return_=999)
    check(gpu_node)
    assert read_answer(gpu_node.files / "run") is None
    gpu_node.state.node("n1").clear_injections()
    check(gpu_node)
    assert kept(gpu_node)[:2] == (["2", "0", "1", "3"], "")
