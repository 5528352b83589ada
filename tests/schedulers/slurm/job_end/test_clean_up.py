"""What the epilog does with what a job left on its GPUs, with real processes of real users."""

from __future__ import annotations

import pwd
import signal
import time
from typing import Any

import pytest
from sigterm_immune import sigterm_immune_process

from canhazgpu.ledger.values import Quarantine
from fake_nvml import start_gpu_process

NODE = "n1"


# Who picked the devices makes no difference once the job holds them.
pytestmark = [
    pytest.mark.parametrize("node", ["slurm"], indirect=True),
    pytest.mark.slow,
]


@pytest.fixture(autouse=True)
def _quick(node: Any) -> None:
    node.slurm()
    node.configure(epilog={"settle_s": 1.0})


def quarantines(node: Any) -> dict[str, Quarantine]:
    return dict(node.view().quarantines)


def uid_of(user: str) -> int:
    return pwd.getpwnam(user).pw_uid


def assert_released(node: Any) -> None:
    assert node.owners_by_gpu() == {}
    assert node.record_files() == set()


def test_a_process_that_the_job_left_is_ended(node: Any, people: Any, ann: Any) -> None:
    node.run("prolog", **ann)
    with start_gpu_process(node.gpu(1), 8000, user=people[0]) as process:
        node.run("epilog", **ann)
        assert process.wait(timeout_s=5) == -signal.SIGTERM
    assert_released(node)
    assert quarantines(node) == {}
    gpu = node.gpu(1)
    assert node.log_lines() == [
        f"job 12: PID {process.pid} (python3) of {people[0]} on GPU {gpu.index} ({gpu.uuid})"
        " ended: the job left it there"
    ]
    scan = node.view().scan
    assert scan is not None and not any(reading.processes for reading in scan.gpus)


def test_a_small_process_is_ended_too(node: Any, people: Any, ann: Any) -> None:
    node.run("prolog", **ann)
    with start_gpu_process(node.gpu(0), 10, user=people[0]) as process:
        node.run("epilog", **ann)
        assert not process.alive


def test_a_process_that_ignores_sigterm_is_ended_too(node: Any, people: Any, ann: Any) -> None:
    node.configure(slurm={"kill_grace_s": 0.5})
    node.run("prolog", **ann)
    with sigterm_immune_process(node.gpu(0), people[0]) as process:
        node.run("epilog", **ann)
        assert process.wait(timeout=5) == -signal.SIGKILL
    assert_released(node)


def test_leftovers_may_be_reported_only(node: Any, people: Any, ann: Any) -> None:
    node.configure(epilog={"leftovers": "report"})
    node.run("prolog", **ann)
    with start_gpu_process(node.gpu(0), 8000, user=people[0]) as process:
        node.run("epilog", **ann)
        assert process.alive
    assert_released(node)
    # The GPU is in use WITHOUT RESERVATION, as everybody sees; that is no fault of the GPU.
    assert quarantines(node) == {}
    (line,) = node.log_lines()
    assert line.endswith("stays: epilog.leftovers is report")


def test_what_ran_before_the_job_is_not_the_jobs(node: Any, people: Any, ann: Any) -> None:
    with start_gpu_process(node.gpu(0), 300, user=people[0]) as process:
        time.sleep(0.1)
        node.run("prolog", **ann)
        assert len(node.owners_by_gpu()) == 2
        node.run("epilog", **ann)
        assert process.alive
    assert_released(node)
    assert node.log() == ""


@pytest.mark.parametrize(
    ("whose", "why"),
    [
        ("another job's", "another job of {ann} is here"),
        ("slurm is away", "the scheduler does not say whose jobs are here"),
        ("a person's", "the reservation of {ann} covers it"),
        ("a protected user's", "{ann} is a protected user"),
    ],
)
def test_what_may_be_somebodys_is_left_alone(
    node: Any, people: Any, ann: Any, whose: str, why: str
) -> None:
    node.run("prolog", **ann)
    if whose == "another job's":
        node.slurm(
            squeue=f'echo "12 {ann["SLURM_JOB_UID"]} COMPLETING";'
            f' echo "13 {ann["SLURM_JOB_UID"]} RUNNING"'
        )
    elif whose == "slurm is away":
        node.slurm(squeue="exit 1")
    elif whose == "a person's":
        node.reserve(3, people[0], uid_of(people[0]))
    else:
        node.configure(slurm={"protected_users": [people[0]]})
    with start_gpu_process(node.gpu(0), 8000, user=people[0]) as process:
        node.run("epilog", **ann)
        assert process.alive
    assert not {"job:c1:12:0"} & set(node.owners_by_gpu().values())
    assert quarantines(node) == {}
    assert node.log_lines()[-1].endswith(f"stays: {why.format(ann=people[0])}")


def test_processes_elsewhere_and_of_others_are_none_of_its_business(
    node: Any, people: Any, ann: Any
) -> None:
    ann_name, bob = people
    node.run("prolog", **ann)
    with (
        start_gpu_process(node.gpu(2), 8000, user=ann_name) as elsewhere,
        start_gpu_process(node.gpu(0), 8000, user=bob) as anothers,
        start_gpu_process(node.gpu(1), 8000, user="root") as roots,
    ):
        node.run("epilog", **ann)
        assert elsewhere.alive and anothers.alive and roots.alive
    assert_released(node)
    assert quarantines(node) == {}
    assert sorted(line.rpartition(": ")[2] for line in node.log_lines()) == [
        f"it is {bob}'s",
        "it is root's",
    ]
    # Nothing was the job's: Slurm was not asked.
    assert not node.ran_slurm_commands()


def test_memory_that_stays_quarantines_its_gpu_and_not_the_node(node: Any, ann: Any) -> None:
    node.run("prolog", **ann)
    node.gpu(1).override_used(8045)
    node.run("epilog", **ann)
    assert_released(node)
    gpu = node.gpu(1)
    (found,) = quarantines(node).values()
    assert (found.gpu, found.by) == (gpu.uuid, "epilog")
    reason = f"job 12 of {ann['SLURM_JOB_USER']} left 8045MB used by no process shown"
    assert found.reason == reason
    assert node.log_lines() == [f"job 12: GPU {gpu.index} ({gpu.uuid}) is quarantined: {reason}"]
    assert node.scheduler_orders() == []
    # Even once it is free: whoever lifts a quarantine has looked at it.
    node.gpu(1).override_used(None)
    node.run("prolog", **ann, SLURM_JOB_ID="13", SLURM_JOB_GPUS="1")
    assert node.owners_by_gpu() == {}
    node.run("prolog", **ann, SLURM_JOB_ID="14", SLURM_JOB_GPUS="0")
    assert set(node.owners_by_gpu()) == {node.gpu(0).uuid}


def test_memory_that_is_freed_late_is_waited_for(node: Any, ann: Any) -> None:
    node.configure(epilog={"settle_s": 10.0})
    node.run("prolog", **ann)
    node.gpu(1).override_used(8045)
    hook = node.start("epilog", **ann)
    time.sleep(1.5)
    assert hook.poll() is None
    node.gpu(1).override_used(None)
    assert hook.wait(timeout=10) == 0
    assert_released(node)
    assert quarantines(node) == {}
    assert node.log() == ""


NOBODY_DIES = (
    "from canhazgpu.node.termination import ProcessTerminator\n"
    "ProcessTerminator.terminate = lambda self, pids, grace_s: tuple(pids)\n"
)
EPILOG = "from canhazgpu.epilog.main import main\nmain()\n"


def test_a_process_that_does_not_end_quarantines_its_gpu(node: Any, people: Any, ann: Any) -> None:
    node.run("prolog", **ann)
    with start_gpu_process(node.gpu(0), 8000, user=people[0]) as process:
        done = node.python("-c", NOBODY_DIES + EPILOG, environ=node.environ(**ann))
        assert done.returncode == 0, done.stderr
    (found,) = quarantines(node).values()
    assert found.gpu == node.gpu(0).uuid
    assert found.reason.endswith(f"left 8045MB used by PID {process.pid} (python3)")
    assert_released(node)
    assert "does not end: the job left it there" in node.log_lines()[0]


def test_the_epilog_may_run_twice_and_without_a_prolog(node: Any, people: Any, ann: Any) -> None:
    with start_gpu_process(node.gpu(0), 8000, user=people[0]) as process:
        node.run("epilog", **ann)
        node.run("epilog", **ann)
        assert process.alive
    assert quarantines(node) == {}
    assert node.log() == ""
    node.run("prolog", **ann)
    node.run("epilog", **ann)
    with start_gpu_process(node.gpu(0), 8000, user=people[0]) as process:
        node.run("epilog", **ann)
        assert process.alive


def test_an_earlier_attempts_late_epilog_leaves_the_next_attempt_alone(
    node: Any, people: Any, ann: Any
) -> None:
    node.run("prolog", **ann)
    node.run("prolog", **ann, SLURM_JOB_RESTART_COUNT="1")
    with start_gpu_process(node.gpu(0), 8000, user=people[0]) as process:
        node.run("epilog", **ann, SLURM_JOB_RESTART_COUNT="1")
        assert process.alive
        assert len(node.owners_by_gpu()) == 2
        node.slurm()
        node.run("epilog", **ann, SLURM_JOB_RESTART_COUNT="1")
        assert not process.alive
    assert_released(node)


def test_without_a_record_nobody_is_ended(node: Any, people: Any, ann: Any) -> None:
    node.run("prolog", **ann)
    (node.files / "run" / "jobs" / "12.json").unlink()
    with start_gpu_process(node.gpu(0), 8000, user=people[0]) as process:
        node.run("epilog", **ann)
        assert process.alive
    assert node.owners_by_gpu() == {}


def test_an_intruder_beside_a_warned_job_is_none_of_its_leftovers(
    node: Any, people: Any, ann: Any
) -> None:
    node.configure(slurm={"on_conflict": "warn"})
    with (
        start_gpu_process(node.gpu(0), 8000, user=people[1]) as bobs,
        start_gpu_process(node.gpu(1), 8000, user=people[0]) as anns,
    ):
        time.sleep(0.1)
        node.run("prolog", **ann)
        assert len(node.owners_by_gpu()) == 2
        node.run("epilog", **ann)
        assert bobs.alive and anns.alive
    assert node.owners_by_gpu() == {}
    assert quarantines(node) == {}


def test_a_store_that_is_gone_ends_nobody_and_is_made_good(
    node: Any, people: Any, ann: Any
) -> None:
    node.run("prolog", **ann)
    url = node.server.url
    node.configure(store={"url": "redis://127.0.0.1:1/0", "on_failure": "fail"})
    with start_gpu_process(node.gpu(0), 8000, user=people[0]) as process:
        node.run("epilog", **ann)
        assert process.alive
    assert [line.split(": ")[1] for line in node.log_lines() if line.startswith("job ")] == [
        "no clean-up of its GPUs",
        "GPUs not released",
    ]
    node.configure(store={"url": url})
    node.run("prolog", **ann, SLURM_JOB_ID="13")
    assert set(node.owners_by_gpu().values()) == {"job:c1:13:0"}


def test_a_scan_that_fails_keeps_nothing_from_being_released(node: Any, ann: Any) -> None:
    node.run("prolog", **ann)
    node.state.node(NODE).inject("nvmlInit", return_=999)
    node.run("epilog", **ann)
    assert_released(node)
    assert quarantines(node) == {}


DIE = "os.kill(os.getpid(), 9)"
STAGES = {
    "marked": ("canhazgpu.ledger.local.jobs.job_records", "JobRecords.end"),
    "held": ("canhazgpu.node.termination", "ProcessTerminator.__enter__"),
    "ended": ("canhazgpu.node.termination", "ProcessTerminator.terminate"),
    "quarantined": ("canhazgpu.ledger.store.ledger", "RedisLedger.quarantine"),
    "released": ("canhazgpu.ledger.local.fallback_ledger", "FallbackLedger.release"),
    "forgotten": ("canhazgpu.ledger.local.jobs.job_records", "JobRecords.forget"),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("next_hook", ["epilog", "prolog"])
def test_an_epilog_killed_amid_the_clean_up_is_made_good_by_the_next_hook(
    node: Any, people: Any, ann: Any, stage: str, when: str, next_hook: str
) -> None:
    module, name = STAGES[stage]
    body = f"({DIE}, was(*a, **k))" if when == "before" else f"(was(*a, **k), {DIE})"
    node.run("prolog", **ann)
    node.gpu(1).override_used(8045)
    with start_gpu_process(node.gpu(0), 8000, user=people[0]):
        program = (
            f"import os\nfrom {module} import {name.partition('.')[0]}\nwas = {name}\n"
            f"{name} = lambda *a, **k: {body}\n"
        )
        killed = node.python("-c", program + EPILOG, environ=node.environ(**ann))
        assert killed.returncode == -signal.SIGKILL, (killed.stderr, node.log())
        if next_hook == "epilog":
            node.run("epilog", **ann)
            assert_released(node)
        elif when == "after" or stage != "marked":
            # As long as its record is not marked the job may run yet.
            node.run("prolog", **ann, SLURM_JOB_ID="13", SLURM_JOB_GPUS="2")
            assert set(node.owners_by_gpu().values()) == {"job:c1:13:0"}


def test_two_epilogs_at_once(node: Any, people: Any, ann: Any) -> None:
    node.run("prolog", **ann)
    with start_gpu_process(node.gpu(0), 8000, user=people[0]) as process:
        hooks = [node.start("epilog", **ann) for _ in range(2)]
        assert [hook.wait(timeout=30) for hook in hooks] == [0, 0]
        assert not process.alive
    assert_released(node)
    assert quarantines(node) == {}
