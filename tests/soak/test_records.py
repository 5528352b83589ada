"""What tasks, hooks and status write is read as it was meant."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from canhazgpu_soak.records import (
    Answer,
    GpuAnswer,
    Holder,
    HookRun,
    parse_answer,
    parse_holder,
    parse_hook_runs,
    read_holders,
)

TASK = Path(__file__).parents[2] / "contrib" / "soak" / "gpu-task"
GPUS = {"n1": ["GPU-a", "GPU-b"]}


def run_task(notes: Path, who: str, **environ: str) -> None:
    command = [sys.executable, "-I", "-S", str(TASK), str(notes), who, "0.3"]
    subprocess.run(command, env=environ, check=True, timeout=60)


def test_a_job_writes_its_attempt_its_gpus_and_how_long_it_lived(tmp_path: Path) -> None:
    job = {"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": "2", "SLURMD_NODENAME": "n1"}
    run_task(tmp_path, "job", CUDA_VISIBLE_DEVICES="GPU-a,GPU-b", **job)
    (holder,) = read_holders(tmp_path, GPUS)
    assert (holder.owner, holder.key, holder.node) == ("job:12.2", "job:12", "n1")
    assert holder.gpus == ("GPU-a", "GPU-b") and holder.is_checked
    assert holder.last_seen - holder.began >= 0.3


def test_a_run_is_known_by_its_number(tmp_path: Path) -> None:
    run_task(tmp_path, "run:7", CUDA_VISIBLE_DEVICES="GPU-a", FAKE_NVML_NODE="n1")
    (holder,) = read_holders(tmp_path, GPUS)
    assert (holder.kind, holder.owner, holder.key) == ("run", "run:7", "run:7")


def begin(gpus: str) -> str:
    return json.dumps({"kind": "job", "owner": "1.0", "node": "n1", "gpus": gpus, "at": 5.0})


def test_slurms_own_numbers_are_gpus_that_nobody_checked() -> None:
    expected = Holder("job", "job:1.0", "job:1", "n1", ("GPU-b",), 5.0, 5.0, is_checked=False)
    assert parse_holder(begin("1") + "\n", GPUS) == expected


@pytest.mark.parametrize(
    ("rest", "last_seen"), [("", 5.0), ("6.0\n7.25\n", 7.25), ("6.0\n7.2", 6.0)]
)
def test_a_killed_task_counts_until_its_last_whole_sign(rest: str, last_seen: float) -> None:
    holder = parse_holder(f"{begin('GPU-a')}\n{rest}", GPUS)
    assert holder is not None and holder.last_seen == last_seen


@pytest.mark.parametrize("text", ["", '{"kind": "jo'])
def test_a_task_that_was_killed_before_it_wrote_is_none(text: str) -> None:
    assert parse_holder(text, GPUS) is None


def test_hooks_write_lines_of_which_the_last_may_be_cut() -> None:
    assert parse_hook_runs(["prolog n1 12 5.25", "epilog n1 12"]) == [
        HookRun("prolog", "n1", "12", 5.25)
    ]


def test_an_answer_names_holders_as_their_records_do() -> None:
    def gpu(uuid: str, **reservation: str | None) -> dict[str, object]:
        held = {"job_id": None, "type": "job", "note": None, **reservation}
        return {"uuid": uuid, "state": "reserved", "reservations": [held]}

    gpus = [
        gpu("GPU-a", job_id="12"),
        gpu("GPU-b", type="run", note="soak 7"),
        gpu("GPU-c", type="manual", note="soak 8"),
        {"uuid": "GPU-d", "state": "available", "reservations": []},
    ]
    text = json.dumps({"nodes": [{"node": "n1", "gpus": gpus}]})
    assert parse_answer(text, 1.0, 2.0) == Answer(
        "n1",
        1.0,
        2.0,
        (
            GpuAnswer("GPU-a", "reserved", ("job:12",)),
            GpuAnswer("GPU-b", "reserved", ("run:7",)),
            GpuAnswer("GPU-c", "reserved", ("reserve:8",)),
            GpuAnswer("GPU-d", "available"),
        ),
    )


def test_the_task_can_be_executed_by_its_path() -> None:
    assert os.access(TASK, os.X_OK)
