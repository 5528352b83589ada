"""What the prolog does on a conflict, with Slurm's commands recorded and everything else real."""

from __future__ import annotations

import json
import pwd
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from polling import poll_until
from sigterm_immune import sigterm_immune_process

import fake_nvml

pytestmark = pytest.mark.slow

NODE = "n1"
GPUS = "0,1"
slurms_choice = pytest.mark.parametrize("node", ["slurm"], indirect=True)
our_choice = pytest.mark.parametrize("node", ["canhazgpu"], indirect=True)


@pytest.fixture
def intruder(node: Any, people: tuple[str, str]) -> Iterator[fake_nvml.Process]:
    """Bob's process on the job's first GPU."""
    with fake_nvml.start_gpu_process(node.gpu(0), 8000, user=people[1]) as process:
        yield process


def uuids(node: Any, *places: int) -> set[str]:
    return {node.gpu(place).uuid for place in places}


def mine(node: Any) -> set[str]:
    return {uuid for uuid, owner in node.owners_by_gpu().items() if owner.startswith("job:c1:12:")}


def is_watched(pid: int) -> bool:
    """Tell whether a process waits for the end of this one: it has a pidfd of it."""
    for file in Path("/proc").glob("[0-9]*/fdinfo/*"):
        with suppress(OSError):
            if f"Pid:\t{pid}\n" in file.read_text():
                return True
    return False


@contextmanager
def all_but_one_taken(node: Any, user: str) -> Iterator[None]:
    """Where any two GPUs will do, three of four have to be taken for a conflict."""
    with (
        fake_nvml.start_gpu_process(node.gpu(2), 8000, user=user),
        fake_nvml.start_gpu_process(node.gpu(3), 8000, user=user),
    ):
        yield


def test_without_a_conflict_none_of_slurms_commands_is_run(node: Any) -> None:
    node.slurm()
    node.configure(slurm={"on_conflict": "kill,drain"})
    node.run("prolog")
    node.run("epilog")
    assert not node.ran_slurm_commands()
    assert node.log() == ""


@slurms_choice
def test_a_job_waits_for_a_process_to_end(node: Any, intruder: fake_nvml.Process) -> None:
    node.slurm()
    node.configure(slurm={"on_conflict": "wait:20,requeue"})
    hook = node.start("prolog")
    poll_until(lambda: is_watched(intruder.pid), "the prolog's wait")
    assert hook.poll() is None
    intruder.kill()
    assert hook.wait(timeout=120) == 0
    assert mine(node) == uuids(node, 0, 1)
    assert node.scheduler_orders() == []
    assert re.search(
        r"job 12: GPU 3 .* WITHOUT RESERVATION.*: job starts, \d+ s later$", node.log_lines()[-1]
    )


@slurms_choice
def test_a_wait_that_runs_out_comes_to_the_next_step(
    node: Any, people: Any, intruder: fake_nvml.Process
) -> None:
    node.slurm()
    node.configure(slurm={"on_conflict": "wait:1,requeue"})
    began = time.monotonic()
    node.run("prolog")
    assert time.monotonic() - began >= 1
    assert mine(node) == set()
    update, requeue = node.scheduler_orders()
    assert requeue == "scontrol requeue 12"
    gpu = node.gpu(0)
    assert f"canhazgpu: requeue 1/20: GPU {gpu.index} ({gpu.uuid}) on n1 is in use by" in update
    assert f"{people[1]} WITHOUT RESERVATION: 8045MB used by PID {intruder.pid}" in update
    assert re.search(r"\(since \d{4}-\d\d-\d\d \d\d:\d\d\)$", update)


@slurms_choice
def test_a_job_waits_for_a_person_to_release(node: Any) -> None:
    node.slurm()
    claim = node.reserve(1)
    node.configure(slurm={"on_conflict": "wait:20,kill,warn"})
    hook = node.start("prolog")
    time.sleep(1.5)
    assert hook.poll() is None
    node.ledger.release(NODE, claim.owner, "released")
    assert hook.wait(timeout=120) == 0
    assert mine(node) == uuids(node, 0, 1)
    assert node.scheduler_orders() == []


@slurms_choice
def test_a_persons_reservation_is_neither_killed_nor_shared(node: Any, people: Any) -> None:
    node.slurm()
    bob = people[1]
    node.reserve(1, bob, pwd.getpwnam(bob).pw_uid)
    node.configure(slurm={"on_conflict": "kill,warn,requeue"})
    with fake_nvml.start_gpu_process(node.gpu(1), 8000, user=bob) as process:
        node.run("prolog")
        assert process.alive
    update, requeue = node.scheduler_orders()
    assert requeue == "scontrol requeue 12"
    assert f"is reserved by {bob} (manual, expires in 59m" in update or "expires in 1h" in update
    assert mine(node) == set()


@slurms_choice
def test_a_job_gets_other_gpus_in_place_of_those_in_use(
    node: Any, intruder: fake_nvml.Process
) -> None:
    node.slurm()
    node.configure(slurm={"on_conflict": "swap,requeue"})
    node.run("prolog")
    held = mine(node)
    assert held & uuids(node, 0, 1) == uuids(node, 1)
    assert len(held) == 2
    told = (node.files / "run" / "jobs" / "12.env").read_text()
    assert all(uuid in told for uuid in held)
    assert "gpu 0 " in told and "gpu 1 " in told
    assert node.scheduler_orders() == []
    assert node.log_lines()[-1].endswith("job starts on other GPUs of the node")
    node.run("epilog")
    assert node.owners_by_gpu() == {}


@slurms_choice
def test_there_may_be_nothing_to_swap_with(node: Any, people: Any, intruder: Any) -> None:
    node.slurm()
    node.configure(slurm={"on_conflict": "swap,requeue"})
    with all_but_one_taken(node, people[1]):
        node.run("prolog")
    assert node.scheduler_orders()[-1] == "scontrol requeue 12"
    assert node.owners_by_gpu() == {}


def test_an_intruder_is_ended_and_the_job_starts(
    node: Any, people: Any, intruder: fake_nvml.Process
) -> None:
    node.slurm()
    node.configure(slurm={"on_conflict": "kill,requeue", "kill_grace_s": 10})
    with all_but_one_taken(node, "root"):
        node.run("prolog")
    assert intruder.wait(timeout_s=5) == -signal.SIGTERM
    assert len(mine(node)) == 2
    assert node.scheduler_orders() == []
    ended, starts = node.log_lines()
    assert f"job 12: ended PID {intruder.pid} (python3) of {people[1]}: it used GPU 3" in ended
    assert "WITHOUT RESERVATION" in starts and "job starts" in starts


@slurms_choice
def test_a_process_that_ignores_sigterm_is_ended_too(node: Any, people: Any) -> None:
    node.slurm()
    node.configure(slurm={"on_conflict": "kill,requeue", "kill_grace_s": 0.5})
    with sigterm_immune_process(node.gpu(1), people[1]) as process:
        node.run("prolog")
        assert process.wait(timeout=5) == -signal.SIGKILL
    assert mine(node) == uuids(node, 0, 1)


SPARED = {
    "a protected user": ({"protected_users": ["{bob}"]}, {}),
    "another job of the user": ({}, {"squeue": 'echo "12 12 RUNNING"; echo "13 {uid} RUNNING"'}),
    "slurm does not answer": (
        {},
        {"squeue": 'case $* in *--nodelist*) exit 1 ;; *) echo "12 12 RUNNING" ;; esac'},
    ),
}


@slurms_choice
@pytest.mark.parametrize("why", SPARED)
def test_who_may_have_a_right_is_left_alone(
    node: Any, people: Any, intruder: fake_nvml.Process, why: str
) -> None:
    bob = people[1]
    config, answers = SPARED[why]
    uid = str(pwd.getpwnam(bob).pw_uid)
    node.slurm(**{name: text.replace("{uid}", uid) for name, text in answers.items()})
    users = [user.format(bob=bob) for user in config.get("protected_users", [])]
    node.configure(slurm={"on_conflict": "kill,requeue", "protected_users": users})
    node.run("prolog")
    assert intruder.alive
    assert node.scheduler_orders()[-1] == "scontrol requeue 12"


@slurms_choice
def test_a_reserved_owner_is_left_alone_wherever_his_processes_are(
    node: Any, people: Any, intruder: fake_nvml.Process
) -> None:
    node.slurm()
    bob = people[1]
    node.reserve(3, bob, pwd.getpwnam(bob).pw_uid)
    node.configure(slurm={"on_conflict": "kill,requeue"})
    node.run("prolog")
    assert intruder.alive
    assert node.scheduler_orders()[-1] == "scontrol requeue 12"


@slurms_choice
def test_nobody_is_ended_where_that_would_not_free_all_gpus(
    node: Any, intruder: fake_nvml.Process
) -> None:
    node.slurm()
    node.configure(slurm={"on_conflict": "kill,requeue"})
    with fake_nvml.start_gpu_process(node.gpu(1), 8000, user="root"):
        node.run("prolog")
    assert intruder.alive
    assert node.scheduler_orders()[-1] == "scontrol requeue 12"


@slurms_choice
def test_memory_that_is_freed_late_is_waited_for(node: Any, intruder: fake_nvml.Process) -> None:
    node.slurm()
    node.configure(slurm={"on_conflict": "kill,requeue"})
    node.gpu(0).override_used(8045)
    hook = node.start("prolog")
    intruder.wait(timeout_s=20)
    time.sleep(1)
    node.gpu(0).override_used(None)
    assert hook.wait(timeout=120) == 0
    assert mine(node) == uuids(node, 0, 1)


def requeued(count: int) -> dict[str, str]:
    comment = f"canhazgpu: requeue {count}/3: GPU 1 was in use"
    return {"SLURM_JOB_COMMENT": comment, "SLURM_JOB_RESTART_COUNT": str(count)}


@slurms_choice
@pytest.mark.parametrize(
    ("count", "order"), [(0, "requeue"), (2, "requeue"), (3, "requeuehold"), (4, "requeuehold")]
)
def test_a_job_that_was_requeued_often_enough_is_held(
    node: Any, intruder: Any, count: int, order: str
) -> None:
    node.slurm()
    node.configure(slurm={"max_requeues": 3})
    node.run("prolog", **requeued(count))
    update, last = node.scheduler_orders()
    assert last == f"scontrol {order} 12"
    told = f"requeue {count + 1}/3: " if order == "requeue" else "'scontrol release 12' lets it try"
    assert told in update


@slurms_choice
def test_after_the_last_requeue_the_chain_goes_on(node: Any, intruder: fake_nvml.Process) -> None:
    node.slurm()
    node.configure(slurm={"max_requeues": 3, "on_conflict": "requeue,warn"})
    node.run("prolog", **requeued(3))
    assert mine(node) == uuids(node, 0, 1)
    assert intruder.alive


@slurms_choice
def test_a_job_that_cannot_be_requeued_is_told_and_ended(node: Any, intruder: Any) -> None:
    node.slurm(requeue="echo disabled >&2; exit 1")
    node.run("prolog")
    assert [line.split()[:2] for line in node.scheduler_orders()] == [
        ["scontrol", "update"],
        ["scontrol", "requeue"],
        ["scontrol", "update"],
        ["scontrol", "notify"],
        ["scancel", "12"],
    ]
    ended = "job cancelled, since it cannot be requeued (scontrol requeue failed: disabled)"
    assert node.log_lines()[-1].endswith(ended)


@slurms_choice
def test_a_job_that_cannot_be_requeued_may_have_another_policy(node: Any, intruder: Any) -> None:
    node.slurm(requeue="echo disabled >&2; exit 1")
    node.configure(slurm={"on_conflict": "requeue,warn"})
    node.run("prolog")
    assert mine(node) == uuids(node, 0, 1)
    assert not [line for line in node.scheduler_orders() if line.startswith("scancel")]


@slurms_choice
def test_a_node_is_drained_only_where_that_is_configured(node: Any, intruder: Any) -> None:
    node.slurm()
    node.configure(slurm={"on_conflict": "drain"})
    node.run("prolog")
    drain, update, requeue = node.scheduler_orders()
    assert drain.startswith(
        "scontrol update nodename=n1 state=drain reason=canhazgpu: job 12: GPU 3"
    )
    assert "comment=canhazgpu: requeue 0/20: " in update
    assert requeue == "scontrol requeue 12"


@slurms_choice
def test_a_node_that_cannot_be_drained_comes_to_the_next_step(node: Any, intruder: Any) -> None:
    node.slurm(sinfo="exit 1")
    node.configure(slurm={"on_conflict": "drain,warn"})
    node.run("prolog")
    assert mine(node) == uuids(node, 0, 1)


def test_a_job_runs_all_the_same_and_its_user_is_told(
    node: Any, people: Any, intruder: fake_nvml.Process
) -> None:
    node.slurm()
    node.configure(slurm={"on_conflict": "warn"})
    with all_but_one_taken(node, people[1]):
        node.run("prolog")
    assert intruder.alive
    # Held all the same, so that nobody else is given them beside the job.
    assert len(mine(node)) == 2
    assert (node.files / "run" / "jobs" / "12.env").exists()
    update, notify = node.scheduler_orders()
    assert "comment=canhazgpu: warning: " in update
    assert notify.startswith("scontrol notify 12 canhazgpu: warning: ")
    assert node.log_lines()[-1].endswith("job runs all the same")
    node.run("epilog")
    assert node.owners_by_gpu() == {}


@slurms_choice
def test_a_job_that_runs_beside_a_quarantine_holds_its_other_gpus(node: Any) -> None:
    node.slurm()
    node.ledger.quarantine(NODE, node.gpu(0).uuid, "needs a reset", "root")
    node.configure(slurm={"on_conflict": "warn"})
    node.run("prolog")
    assert mine(node) == uuids(node, 1)
    assert node.gpu(0).uuid in (node.files / "run" / "jobs" / "12.env").read_text()


@our_choice
def test_where_we_choose_no_job_runs_on_gpus_that_were_not_granted(node: Any) -> None:
    node.slurm()
    for place in range(3):
        node.ledger.quarantine(NODE, node.gpu(place).uuid, "needs a reset", "root")
    node.configure(slurm={"on_conflict": "warn"})
    node.run("prolog")
    assert node.scheduler_orders()[-1] == "scontrol requeue 12"


@slurms_choice
def test_a_warning_waits_for_the_jobs_output_and_goes_with_the_attempt(
    node: Any, people: Any
) -> None:
    node.slurm()
    warning = node.files / "run" / "jobs" / "12.warning"
    node.configure(slurm={"on_conflict": "warn"})
    hostile = "a\x1b[2J\nexport X=1"
    with fake_nvml.start_gpu_process(node.gpu(0), 8000, user=people[1], name=hostile):
        node.run("prolog")
    text = warning.read_text()
    assert text.startswith("canhazgpu: warning: GPU 3 (")
    assert f"is in use by {people[1]} WITHOUT RESERVATION" in text
    assert text.count("\n") == 1 and text.endswith("\n") and "\x1b" not in text
    node.run("prolog", SLURM_JOB_RESTART_COUNT="1")
    assert node.record_files() == {"12.json", "12.env"}
    node.run("epilog")
    node.run("epilog")
    assert node.record_files() == set()


@our_choice
@pytest.mark.parametrize("silent", [("squeue",), ("requeue", "scancel")])
def test_a_job_that_cannot_be_sent_back_gets_gpus_that_nobody_has_reserved(
    node: Any, people: Any, silent: tuple[str, ...]
) -> None:
    node.slurm(**dict.fromkeys(silent, "echo slurmctld is away >&2; exit 1"))
    node.reserve(0)
    with (
        fake_nvml.start_gpu_process(node.gpu(1), 8000, user=people[1]),
        all_but_one_taken(node, people[1]),
    ):
        node.run("prolog")
    held = mine(node)
    assert len(held) == 2 and not held & uuids(node, 0)
    told = (node.files / "run" / "jobs" / "12.env").read_text()
    assert all(uuid in told for uuid in held)
    unheard, settled = node.log_lines()[-2:]
    assert "runs unchecked, since it could not be sent back" in unheard
    assert settled.endswith(": job runs on GPUs that nobody has reserved")
    node.run("epilog")
    assert mine(node) == set()


@our_choice
def test_a_job_that_cannot_be_sent_back_gets_nobodys_reserved_gpu(node: Any) -> None:
    node.slurm(squeue="exit 1")
    for place in range(3):
        node.ledger.quarantine(NODE, node.gpu(place).uuid, "needs a reset", "root")
    node.run("prolog")
    assert mine(node) == set()
    assert node.record_files() == {"12.json"}
    assert node.log_lines()[-1].endswith(": job gets no GPU of canhazgpu's")
    node.run("epilog")
    assert node.record_files() == set()


@slurms_choice
@pytest.mark.parametrize(("partition", "starts"), [("debug", True), ("main", False), ("", False)])
def test_a_partition_has_its_own_chain(
    node: Any, intruder: Any, partition: str, starts: bool
) -> None:
    node.slurm()
    node.configure(slurm={"on_conflict_by_partition": ["debug=wait:0.2,warn", "gpu=drain"]})
    node.run("prolog", SLURM_JOB_PARTITION=partition)
    assert bool(mine(node)) == starts


@slurms_choice
@pytest.mark.parametrize("chain", ["warn", "drain,kill", "requeue"])
def test_a_store_that_is_gone_drains_and_holds_nothing(node: Any, chain: str) -> None:
    node.slurm()
    gone = {"url": "redis://127.0.0.1:1/0", "on_failure": "fail"}
    node.configure(store=gone, slurm={"on_conflict": chain})
    node.run("prolog", **requeued(20))
    verbs = [line.split()[1] for line in node.scheduler_orders()]
    assert verbs == (["update", "notify"] if chain == "warn" else ["update", "requeue"])
    if chain != "warn":
        assert "comment=canhazgpu: requeue 20/20: " in node.scheduler_orders()[0]


@slurms_choice
@pytest.mark.parametrize("chain", ["wait:5,swap,kill,requeue", "drain"])
def test_a_driver_that_is_broken_is_no_process_to_end(
    node: Any, intruder: fake_nvml.Process, chain: str
) -> None:
    node.slurm()
    node.configure(slurm={"on_conflict": chain})
    node.state.node(NODE).inject("nvmlInit", return_=18)
    node.run("prolog")
    assert intruder.alive
    drained = any("state=drain" in line for line in node.scheduler_orders())
    assert drained == (chain == "drain")
    assert node.scheduler_orders()[-1] == "scontrol requeue 12"


@pytest.mark.parametrize("fault", ["all", "one"])
def test_a_job_may_run_where_nothing_can_be_read_and_slurm_chose(node: Any, fault: str) -> None:
    by_slurm = '"slurm"' in (node.files / "config.toml").read_text()
    node.slurm()
    node.configure(slurm={"on_conflict": "warn"})
    if fault == "all":
        node.state.node(NODE).inject("nvmlInit", return_=999)
    else:
        lost = node.state.node(NODE).gpus if not by_slurm else [node.gpu(0)]
        node.state.node(NODE).inject("nvmlDeviceGetMemoryInfo", return_=15, gpu=lost)
    node.run("prolog")
    verb = node.scheduler_orders()[-1].split()[1]
    assert verb == ("notify" if by_slurm else "requeue")
    assert mine(node) == (uuids(node, 1) if by_slurm and fault == "one" else set())
    node.run("epilog")
    assert node.owners_by_gpu() == {}
    assert node.record_files() == set()


@slurms_choice
def test_a_gpu_that_fell_off_is_swapped_or_the_job_requeued(node: Any) -> None:
    (node.files / "gres.conf").write_text("Name=gpu File=/dev/nvidia[0-3]\n")
    node.slurm()
    node.gpu(0).remove()
    node.configure(slurm={"on_conflict": "swap"})
    node.run("prolog")
    assert len(mine(node)) == 2
    node.run("epilog")
    node.configure(slurm={"on_conflict": "wait:5,kill,warn"})
    node.run("prolog", SLURM_JOB_RESTART_COUNT="1")
    assert mine(node) == set()
    assert node.scheduler_orders()[-1] == "scontrol requeue 12"


def test_gpus_that_are_missing_stop_no_job_that_has_its_own(node: Any) -> None:
    (node.files / "gres.conf").write_text("Name=gpu File=/dev/nvidia[0-3]\n")
    node.gpu(3).remove()
    node.configure(validation={"expected_gpus": 4})
    node.run("prolog")
    assert len(mine(node)) == 2
    assert node.log_lines() == ["n1: 3 of 4 GPUs are there: see 'nvidia-smi -L'"]


DIE = "os.kill(os.getpid(), 9)"
STAGES = {
    "wait": ("canhazgpu.schedulers.slurm.job_start.wake_events", "WakeEvents.wait", "wait:20"),
    "swap": (
        "canhazgpu.schedulers.slurm.job_start.allocation",
        "JobAllocation.attempt_gpus",
        "swap",
    ),
    "kill, held": ("canhazgpu.node.termination", "ProcessTerminator.__enter__", "kill"),
    "kill, done": ("canhazgpu.node.termination", "ProcessTerminator.terminate", "kill"),
    "requeue": ("canhazgpu.schedulers.slurm.control.actions", "SlurmActions.requeue", "requeue"),
    "drain": ("canhazgpu.schedulers.slurm.control.actions", "SlurmActions.drain", "drain"),
    "warn": (
        "canhazgpu.schedulers.slurm.job_start.allocation",
        "JobAllocation.record_gpus",
        "warn",
    ),
}


@slurms_choice
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_prolog_killed_amid_a_policy_leaves_nothing_behind(
    node: Any, intruder: fake_nvml.Process, stage: str, when: str
) -> None:
    module, name, chain = STAGES[stage]
    node.slurm()
    node.configure(slurm={"on_conflict": chain})
    holder = name.partition(".")[0]
    body = f"({DIE}, was(*a, **k))" if when == "before" else f"(was(*a, **k), {DIE})"
    program = (
        f"import os\nfrom {module} import {holder}\nwas = {name}\n"
        f"{name} = lambda *a, **k: {body}\n"
        "from canhazgpu.prolog.main import main\nmain()\n"
    )
    killed = node.python("-c", program)
    assert killed.returncode == -signal.SIGKILL, (killed.stderr, node.log())
    assert intruder.alive or stage.startswith("kill, done")
    node.run("epilog")
    assert node.owners_by_gpu() == {}
    assert node.record_files() == set()


@slurms_choice
def test_two_jobs_may_want_the_same_intruder_ended(node: Any, intruder: fake_nvml.Process) -> None:
    node.slurm(
        squeue='case $* in *--nodelist*) ;; *) for l; do :; done; echo "$l $l RUNNING" ;; esac'
    )
    node.configure(slurm={"on_conflict": "kill,requeue"})
    with fake_nvml.start_gpu_process(node.gpu(1), 8000, user=intruder_user(intruder)):
        hooks = [
            node.start("prolog", SLURM_JOB_ID=str(12 + number), SLURM_JOB_GPUS=str(number))
            for number in range(2)
        ]
        assert [hook.wait(timeout=30) for hook in hooks] == [0, 0]
    assert not intruder.alive
    assert sorted(node.owners_by_gpu().values()) == ["job:c1:12:0", "job:c1:13:0"]


def intruder_user(process: fake_nvml.Process) -> str:
    return pwd.getpwuid(Path(f"/proc/{process.pid}").stat().st_uid).pw_name


@slurms_choice
@pytest.mark.parametrize("broken", [False, True], ids=["conflict", "fault"])
def test_a_job_that_cannot_be_sent_back_is_checked_again_by_its_task(
    node: Any, broken: bool
) -> None:
    """Nobody decided that it may run on GPUs that others have."""
    silent = "echo slurmctld is away >&2; exit 1"
    node.slurm(squeue=silent, requeue=silent, scancel=silent)
    for gpu in range(4):
        node.reserve(gpu)
    if broken:
        node.configure(node={"name": "an/impossible/name"})
    node.run("prolog")
    record = json.loads((node.files / "run" / "jobs" / "12.json").read_text())
    assert (record["gpus"], record["is_decided"]) == ([], False)
