"""What Slurm says of a job that runs, and which use of a GPU is the job's own."""

from __future__ import annotations

import pytest

from canhazgpu.errors import SchedulerError
from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import Claim
from canhazgpu.schedulers.slurm.control.job_gres import positions_in_gres
from canhazgpu.schedulers.slurm.control.running_job import RunningJob, parse_job
from canhazgpu.schedulers.slurm.job_check.caller_job import parse_job_of_pid
from canhazgpu.schedulers.slurm.job_check.own_use import without_own_use

JOB_FACTS = ("12", 1000, "ann", "RUNNING", 1, "main", "5", "6")
JOB = RunningJob(*JOB_FACTS, "(null)")
LINE = "12 1000 ann RUNNING 1 main 5 6 (null)   \n"
CLAIM = Claim("job:c1:12:0", "slurm", "ann", 1000, job_id="12")


@pytest.mark.parametrize(
    ("text", "job"),
    [
        (LINE, JOB),
        (f"11 0 root RUNNING 0 main 5 6 x\n{LINE}", JOB),
        ("", None),
        ("11 0 root RUNNING 0 main 5 6 x\n", None),
        # Without a comment, and with one of several words and a line's end.
        ("12 1000 ann RUNNING 1 main 5 6\n", RunningJob(*JOB_FACTS, "")),
        ("12 1000 ann RUNNING 1 main 5 6 a  b\nc d\n", RunningJob(*JOB_FACTS, "a  b")),
    ],
)
def test_the_answer_of_squeue(text: str, job: RunningJob | None) -> None:
    assert parse_job(text, "12") == job


@pytest.mark.parametrize(
    "text",
    [
        "12 1000 ann RUNNING\n",
        "12 ann 1000 RUNNING 1 main 5 6 x\n",
        f"{LINE}12 0 root RUNNING 0 main 5 6 x\n",
    ],
    ids=["cut short", "other fields", "two lines"],
)
def test_an_answer_that_is_not_clear_is_none(text: str) -> None:
    with pytest.raises(SchedulerError, match="not understood"):
        parse_job(text, "12")


@pytest.mark.parametrize(
    ("state", "runs"),
    [
        ("RUNNING", True),
        ("SUSPENDED", True),
        ("CONFIGURING", True),
        ("COMPLETING", False),
        ("COMPLETED", False),
        ("PENDING", False),
        ("NODE_FAIL", False),
    ],
)
def test_what_runs(state: str, runs: bool) -> None:
    assert RunningJob("1", 0, "root", state, 0, "", "", "", "").runs is runs


@pytest.mark.parametrize(
    ("gres", "positions"),
    [
        ("", ()),
        ("gpu:2(IDX:0-1)", (0, 1)),
        ("gpu:h100:3(IDX:0,2-3)", (0, 2, 3)),
        ("gpu:a:1(IDX:3),gpu:b:1(IDX:0)", (0, 3)),
        ("nic:1(IDX:5),gpu:1(IDX:2)", (2,)),
        ("shard:3(3/4,0/4,1/4)", (0, 2)),
        ("shard:1(IDX:1)", (1,)),
        ("mps:50(0/100,50/100)", (1,)),
    ],
)
def test_the_positions_of_a_jobs_gpus(gres: str, positions: tuple[int, ...]) -> None:
    assert positions_in_gres(gres) == positions


@pytest.mark.parametrize("gres", ["gpu:2", "gpu:2(IDX:)", "gpu:2(IDX:N/A)", "gpu:1(x)"])
def test_gpus_that_are_not_named_are_no_guess(gres: str) -> None:
    with pytest.raises(SchedulerError, match="does not tell which GPUs"):
        positions_in_gres(gres)


PIDS = "PID JOBID STEPID LOCALID GLOBALID\n100 12 batch 0 0\n101 12 0 - -\n102 13 0 - -\n"


@pytest.mark.parametrize(
    ("text", "pid", "job"),
    [
        (PIDS, 101, "12"),
        (PIDS, 10, ""),
        ("", 101, ""),
        ("101 13 0\n101 12 0\n", 101, ""),
        ("101 x 0\n", 101, ""),
        ("101 12\n", 101, ""),
    ],
)
def test_the_job_of_a_process(text: str, pid: int, job: str) -> None:
    assert parse_job_of_pid(text, pid) == job


def observed(*processes: GpuProcess) -> Observation:
    gpu = GpuReading(0, "GPU-a", 0, "H100", 5000, 80000, processes)
    return Observation(Scan("n1", 0.0, 0.0, (gpu,)), 0.0, in_use=frozenset({"GPU-a"}))


def process(pid: int, uid: int, job: str | None = None) -> GpuProcess:
    return GpuProcess(pid, uid, None, "python", 5000, job=job)


@pytest.mark.parametrize(
    ("processes", "is_own"),
    [
        ([process(5, 1000)], True),
        ([process(5, 1000, "slurm:12")], True),
        # Of the same user, in another job; of another user; beside another's; of nobody known.
        ([process(5, 1000, "slurm:13")], False),
        ([process(5, 1001)], False),
        ([process(5, 1000), process(6, 1001)], False),
        ([], False),
    ],
)
def test_a_jobs_own_use_is_no_obstacle_to_it(processes: list[GpuProcess], is_own: bool) -> None:
    found = without_own_use(CLAIM, observed(*processes))
    assert found.in_use == (frozenset() if is_own else {"GPU-a"})
