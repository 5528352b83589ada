"""The health check: it publishes, releases what is gone, and puts back what was lost."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from typing import Any

import pytest
from hook_jobs import free_observation, job_variables, node_events, owners_in_book
from servers.redis_proxy import StoreProxy

from canhazgpu.ledger.grant_answers import GrantedGpus
from canhazgpu.ledger.values import Claim
from canhazgpu.node.identity import boot_id, pid_namespace
from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.processes import this_process

pytestmark = pytest.mark.slow

NODE = "n1"


@pytest.fixture(autouse=True)
def _slurm(node: Any) -> None:
    """A Slurm that has no job at all, until a test says otherwise."""
    slurm(node)


def slurm(node: Any, *jobs: int, broken: bool = False) -> None:
    """Let squeue list these jobs on the node, or fail."""
    lines = "".join(f"{number} RUNNING\\n" for number in jobs)
    text = "exit 1" if broken else f"printf '{lines}'"
    command(node, "squeue", text)


def command(node: Any, name: str, text: str) -> None:
    path = node.files / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def check(node: Any, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the check with the environment that slurmd gives it."""
    environ = {name: value for name, value in node.environ().items() if "JOB" not in name}
    done = node.python(
        "-m", "canhazgpu.epilog.health_check", *arguments, environ={**environ, **more}
    )
    assert (done.stdout, done.returncode) == ("", 0 if not arguments else done.returncode)
    return done


def test_it_publishes_the_gpus_and_finds_nothing_to_do(node: Any) -> None:
    assert check(node).stderr == ""
    view = node.view()
    assert view.scan is not None and len(view.scan.gpus) == 4
    assert NODE in [one.node for one in node.ledger.read_nodes()]
    assert node.ledger.history(NODE, 0.0) == []
    assert node.log() == ""


def test_a_running_jobs_reservation_stays_and_gets_a_sign_of_life(node: Any) -> None:
    node.run("prolog", **job_variables(1))
    slurm(node, 1)
    assert {one.renewed_at for one in node.reservations()} == {None}
    check(node)
    assert all(one.renewed_at for one in node.reservations())
    assert node.owners_by_gpu() == owners_in_book(node)
    assert len(node.owners_by_gpu()) == 2


def test_it_ends_a_job_whose_epilog_never_came(node: Any) -> None:
    node.run("prolog", **job_variables(1))
    check(node)
    assert node.owners_by_gpu() == owners_in_book(node) == {}
    assert node.record_files() == set()
    (released, _) = node_events(node, "release")
    assert released.reason == "job no longer on the node"
    (told,) = node_events(node, "health")
    assert "event=epilog-missing" in told.reason and "job=1" in told.reason
    assert told.facts["decisions"]
    (job,) = told.facts["jobs"]
    assert (job["job_id"], job["owner"], job["user"]) == ("1", "job:c1:1:0", "ann")
    assert job["what"] == "it is no longer on the node, and no epilog of attempt 0 ran"


def test_it_notes_once_what_only_slurm_knows_of_the_time_before_a_boot(node: Any) -> None:
    job = "17|ann|RUNNING|1000|gres:gpu:2"
    others = ("18|ann|RUNNING|1000|N/A", "19|ann|PENDING|N/A|gres:gpu:1")
    lines = "\\n".join((job, *others))
    command(node, "squeue", f"case $* in *%b*) printf '{lines}\\n' ;; esac")
    command(node, "scontrol", "echo '   Nodes=n1 CPU_IDs=0 Mem=0 GRES=gpu:2(IDX:0-1)'")
    for _ in range(2):
        check(node)
    (told,) = node_events(node, "health")
    assert "event=job-unknown" in told.reason and "job=17" in told.reason
    (noted,) = told.facts["jobs"]
    assert (noted["job_id"], noted["user"], noted["began"]) == ("17", "ann", 1000)
    assert " with gpu:2(IDX:0-1) when the node rebooted at " in noted["what"]

    # Another boot: the history knows the job by now only if something was granted since.
    (node.files / "run" / "checked-boot").write_text("of another boot")
    command(node, "squeue", f"case $* in *%b*) printf '{job}\\n' | sed s/1000/$(date +%s)/ ;; esac")
    command(node, "scontrol", "exit 1")
    check(node)
    _, again = node_events(node, "health")
    assert " with gres:gpu:2, RUNNING: no grant of it" in again.facts["jobs"][0]["what"]


def test_a_slurm_or_store_without_an_answer_is_asked_again_after_a_boot(node: Any) -> None:
    slurm(node, broken=True)
    marker = node.files / "run" / "checked-boot"
    check(node)
    assert not marker.exists()
    slurm(node)
    node.server.kill()
    check(node)
    assert not marker.exists()
    node.server.start()
    node.forget_outage()
    check(node)
    assert marker.read_text() == boot_id()


@pytest.mark.parametrize("node", ["slurm"], indirect=True)
def test_a_check_with_nothing_to_repair_costs_three_round_trips(node: Any) -> None:
    """Without an agent a fourth one, on a connection of its own, looks for orders."""
    orders = 0 if node.agent else 1
    node.run("prolog", **job_variables(1, "0"))
    node.run("prolog", **job_variables(2, "1,2"))
    slurm(node, 1, 2)
    check(node)
    before = {one.gpu: one.renewed_at or 0.0 for one in node.reservations()}
    with StoreProxy(node.server) as proxy:
        node.configure(store={"url": proxy.url})
        check(node)
        # On a busy machine the time for orders may be over.
        assert 3 <= proxy.round_trips <= 3 + orders
        assert 1 <= proxy.connections <= 1 + orders
        after = {one.gpu: one.renewed_at or 0.0 for one in node.reservations()}
        assert len(after) == 3
        assert all(after[gpu] > at for gpu, at in before.items())

        # A list of nodes that was lost costs one more, once.
        with node.server.client() as direct:
            direct.delete("canhazgpu:nodes")
        check(node)
        assert 3 + 4 <= proxy.round_trips <= 3 + 4 + 2 * orders
        check(node)
        assert 3 + 4 + 3 <= proxy.round_trips <= 3 + 4 + 3 + 3 * orders
    assert [one.node for one in node.ledger.read_nodes()] == [NODE]


def test_it_publishes_the_names_of_jobs(node: Any) -> None:
    node.run("prolog", **job_variables(1, "0"))
    node.run("prolog", **job_variables(2, "1"))
    user = {one.claim.job_id: one.claim.user for one in node.reservations()}["1"]
    lines = f"$m|1|1999999999 1999990000|{user}|train|x\\n$m|2|N/A N/A|mallory|no job of this user"
    answer = f'm=${{a#--format=}}; m=${{m%%|*}}; printf "{lines}\\n"'
    listed = "printf '1 RUNNING\\n2 RUNNING\\n'"
    command(
        node, "squeue", f"for a; do case $a in --format=*%j) {answer}; exit;; esac; done; {listed}"
    )
    check(node)
    claims = {one.claim.job_id: one.claim for one in node.reservations()}
    assert (claims["1"].job_name, claims["1"].ends_at) == ("train|x", 1999999999)
    assert claims["2"].job_name is None


def test_where_slurm_gives_no_answer_nobody_is_gone(node: Any) -> None:
    node.run("prolog", **job_variables(1))
    slurm(node, broken=True)
    check(node)
    assert set(node.owners_by_gpu().values()) == {"job:c1:1:0"}


def test_a_job_with_a_shepherd_is_here_whatever_slurm_says(node: Any) -> None:
    node.run("prolog", **job_variables(1))
    # What only Slurm knows of earlier boots, it was asked before.
    (node.files / "run" / "checked-boot").write_text(boot_id() or "")
    spool = node.files / "spool"
    spool.mkdir()
    with (node.files / "slurm.conf").open("a") as conf:
        conf.write(f"SlurmdSpoolDir={spool}\n")
    # The names of jobs, for which the whole node is asked, are another question.
    asked = f'case "$*" in *--nodelist=*) ;; *) echo asked >>{node.files}/asked ;; esac'
    command(node, "squeue", asked)
    slurmstepd = socket.socket(socket.AF_UNIX)
    directory = os.open(spool, os.O_RDONLY)
    slurmstepd.bind(f"/proc/self/fd/{directory}/{NODE}_1.4294967291")
    os.close(directory)
    with slurmstepd:
        slurmstepd.listen()
        check(node)
        assert set(node.owners_by_gpu().values()) == {"job:c1:1:0"}
        # Slurm's commands are not for what the node itself can tell.
        assert not (node.files / "asked").exists()
    # It was killed: its socket is still there, and nobody listens.
    check(node)
    assert (node.files / "asked").exists()
    assert node.owners_by_gpu() == {}


def test_all_that_a_store_without_memory_lost_comes_back_with_one_check(node: Any) -> None:
    node.run("prolog", **job_variables(1, "0"))
    node.run("prolog", **job_variables(2, "1,2"))
    slurm(node, 1, 2)
    manual = Claim("manual:aa", "manual", "eve", 1002, duration_s=3600)
    gpu = next(one for one in node.all_uuids() if one not in node.owners_by_gpu())
    node.ledger.reserve_given(manual, [gpu], free_observation(gpu))
    check(node)
    before = {one.gpu: (one.claim, one.granted_at) for one in node.reservations()}
    with node.server.client() as direct:
        direct.flushall()
    check(node)
    after = {one.gpu: (one.claim, one.granted_at) for one in node.reservations()}
    assert after.keys() == before.keys()
    for uuid, (claim, granted_at) in after.items():
        assert claim == before[uuid][0]
        assert abs(granted_at - before[uuid][1]) < 1
    assert node.log().count("event=restored") == 3


def test_a_store_that_lost_a_finished_job_does_not_get_it_back(node: Any) -> None:
    node.run("prolog", **job_variables(1))
    with node.server.client() as direct:
        direct.flushall()
    check(node)
    assert node.owners_by_gpu() == owners_in_book(node) == {}
    assert node.record_files() == set()


def test_a_rebooted_node_has_none_of_its_jobs(node: Any) -> None:
    node.run("prolog", **job_variables(1))
    slurm(node, 1)
    # The records live in memory and went with the boot; the claim is of another boot.
    for path in (node.files / "run").rglob("*"):
        if path.is_file():
            path.unlink()
    with node.server.client() as direct:
        key = "canhazgpu:{n1}:reservations"
        for uuid, text in direct.hgetall(key).items():
            direct.hset(key, uuid, json.dumps({**json.loads(text), "boot_id": "before"}))
    check(node)
    assert node.owners_by_gpu() == {}
    assert [one.reason for one in node_events(node, "release")] == ["node rebooted"] * 2


def test_records_that_outlived_a_reboot_are_ended(node: Any) -> None:
    node.run("prolog", **job_variables(1))
    slurm(node, 1)
    record = node.files / "run" / "jobs" / "1.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "boot_id": "before"}))
    saved = node.files / "run" / "book.json"
    data = json.loads(saved.read_text())
    held = {gpu: {**json.loads(text), "boot_id": "before"} for gpu, text in data["held"].items()}
    data["held"] = {gpu: json.dumps(one) for gpu, one in held.items()}
    saved.write_text(json.dumps({**data, "boot_id": "before"}))
    check(node)
    assert node.record_files() == set()
    assert node.owners_by_gpu() == owners_in_book(node) == {}


def test_a_run_whose_processes_are_gone_is_released_and_a_living_one_stays(node: Any) -> None:
    gpus = node.all_uuids()
    dead, alive = ProcessId(2**22 - 1, 5), this_process()
    for name, gpu, process in (("dead", gpus[0], dead), ("alive", gpus[1], alive)):
        claim = Claim(
            f"run:{name}",
            "run",
            "eve",
            1002,
            boot_id=boot_id(),
            processes=(process,),
            pid_namespace=pid_namespace(),
        )
        assert node.ledger.reserve_given(claim, [gpu], free_observation(gpu)) == GrantedGpus((gpu,))
    check(node)
    assert node.owners_by_gpu() == {gpus[1]: "run:alive"}


def test_it_lifts_what_an_epilog_quarantined_once_the_gpu_is_clear(node: Any) -> None:
    gpus = node.all_uuids()
    fake = node.state.node(NODE).gpus[0]
    fake.override_used(5000)
    for place, by in ((0, "epilog"), (1, "epilog"), (2, "root")):
        node.ledger.quarantine(NODE, gpus[place], "memory of job 5", by)
    check(node)
    assert set(node.view().quarantines) == {gpus[0], gpus[2]}
    fake.override_used(None)
    check(node)
    assert set(node.view().quarantines) == {gpus[2]}


def test_what_an_epilog_quarantined_stays_so_while_somebody_holds_it(node: Any) -> None:
    """As the GPUs of a job that was let run beside it."""
    gpu = node.uuid_of_position(0)
    node.ledger.reserve_given(
        Claim("manual:aa", "manual", "eve", 1002), [gpu], free_observation(gpu)
    )
    node.ledger.quarantine(NODE, gpu, "memory of job 5", "epilog")
    check(node)
    assert set(node.view().quarantines) == {gpu}
    node.ledger.release(NODE, "manual:aa", "released")
    check(node)
    assert set(node.view().quarantines) == set()


def test_what_an_earlier_attempt_of_a_job_that_is_here_kept_is_released(node: Any) -> None:
    node.run("prolog", **job_variables(1, "0", attempt=1))
    slurm(node, 1)
    gpu = next(one for one in node.all_uuids() if one not in node.owners_by_gpu())
    claim = Claim("job:c1:1:0", "slurm", "ann", 1000, "1", boot_id=boot_id())
    node.ledger.reserve_given(claim, [gpu], free_observation(gpu))
    check(node)
    assert set(node.owners_by_gpu().values()) == {"job:c1:1:1"}


def test_another_clusters_jobs_are_not_for_this_ones_slurm_to_tell(node: Any) -> None:
    with (node.files / "slurm.conf").open("a") as conf:
        conf.write("ClusterName=C1\n")
    for cluster, place in (("c1", 0), ("c10", 1), ("other", 2)):
        gpu = node.uuid_of_position(place)
        claim = Claim(f"job:{cluster}:9:0", "slurm", "eve", 1002, "9", boot_id=boot_id())
        node.ledger.reserve_given(claim, [gpu], free_observation(gpu))
    check(node)
    assert set(node.owners_by_gpu().values()) == {"job:c10:9:0", "job:other:9:0"}


def test_what_the_node_did_alone_is_told_the_store(node: Any) -> None:
    node.server.kill()
    node.run("prolog", **job_variables(1))
    slurm(node, 1)
    node.server.start()
    node.forget_outage()
    check(node)
    assert node.owners_by_gpu() == owners_in_book(node)
    assert len(node.owners_by_gpu()) == 2


def test_without_the_store_it_still_ends_what_is_gone(node: Any) -> None:
    node.run("prolog", **job_variables(1))
    node.server.kill()
    check(node)
    assert owners_in_book(node) == {}
    node.run("prolog", **job_variables(2))
    assert set(owners_in_book(node).values()) == {"job:c1:2:0"}
    node.server.start()
    node.forget_outage()
    slurm(node, 2)
    check(node)
    assert set(node.owners_by_gpu().values()) == {"job:c1:2:0"}


def test_two_at_once_are_one(node: Any) -> None:
    check(node)
    with (node.files / "run" / ".health-check.lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        node.run("prolog", **job_variables(1))
        check(node)
        # The other one is at it: nothing was done.
        assert set(node.owners_by_gpu().values()) == {"job:c1:1:0"}
    check(node)
    assert node.owners_by_gpu() == {}


def start(node: Any) -> subprocess.Popen[bytes]:
    environ = {name: value for name, value in node.environ().items() if "JOB" not in name}
    command_line = [sys.executable, "-I", "-m", "canhazgpu.epilog.health_check"]
    return subprocess.Popen(command_line, env=environ)


def test_what_begins_or_ends_while_slurm_is_asked_is_not_taken_for_gone(node: Any) -> None:
    for number in (1, 2, 3):
        node.run("prolog", **job_variables(number, str(number)))
    asked, answer = node.files / "asked", node.files / "answer"
    command(
        node,
        "squeue",
        f"touch {asked}\nwhile [ ! -e {answer} ]; do sleep 0.05; done\necho '3 RUNNING'",
    )
    running = start(node)
    deadline = time.monotonic() + 60
    while not asked.exists():
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    # By Slurm's answer job 1 is gone; its next attempt begins before that is read, and job 4.
    node.run("prolog", **job_variables(1, "1", attempt=1))
    node.run("epilog", **job_variables(2, "2"))
    node.run("prolog", **job_variables(4, "2"))
    answer.touch()
    assert running.wait(60) == 0
    owners = {"job:c1:1:1", "job:c1:3:0", "job:c1:4:0"}
    assert set(node.owners_by_gpu().values()) == set(owners_in_book(node).values()) == owners
    assert node.record_files() == {
        f"{number}.{kind}" for number in (1, 3, 4) for kind in ("json", "env")
    }


def test_many_at_once_do_no_harm(node: Any) -> None:
    node.run("prolog", **job_variables(1, "0"))
    node.run("prolog", **job_variables(2, "1"))
    slurm(node, 1)
    running = [start(node) for _ in range(4)]
    assert [one.wait(60) for one in running] == [0] * 4
    check(node)
    assert set(node.owners_by_gpu().values()) == {"job:c1:1:0"}
    assert len(node_events(node, "release")) == 1


@pytest.mark.parametrize(
    "stage",
    [
        "RedisLedger.read_nodes",
        "FallbackLedger.release",
        "RedisLedger.publish_scan",
        "RedisLedger.record_entries",
        "JobRecords.close",
        "JobRecords.forget",
        "BookTransaction.apply_and_journal",
        "BookTransaction.refresh",
    ],
)
def test_a_check_that_is_killed_is_made_good_by_the_next(node: Any, stage: str) -> None:
    node.run("prolog", **job_variables(1, "0"))
    node.run("prolog", **job_variables(2, "1"))
    slurm(node, 1)
    kind, name = stage.split(".")
    change = (
        "import os\n"
        "from canhazgpu.ledger.local.book.book_transaction import BookTransaction\n"
        "from canhazgpu.ledger.local.fallback_ledger import FallbackLedger\n"
        "from canhazgpu.ledger.local.jobs.job_records import JobRecords\n"
        "from canhazgpu.ledger.store.ledger import RedisLedger\n"
        f"done = {kind}.{name}\n"
        f"{kind}.{name} = lambda *a, **k: (done(*a, **k), os.kill(os.getpid(), 9))\n"
        "from canhazgpu.epilog.health_check import main\n"
        "main([])\n"
    )
    environ = {name: value for name, value in node.environ().items() if "JOB" not in name}
    killed = node.python("-c", change, environ=environ)
    assert killed.returncode == -9, (killed.stdout, killed.stderr)
    check(node)
    assert set(node.owners_by_gpu().values()) == {"job:c1:1:0"}
    assert node.owners_by_gpu() == owners_in_book(node)
    assert {name.partition(".")[0] for name in node.record_files()} == {"1"}


def test_only_our_own_drain_is_undone_and_only_when_all_is_clear(node: Any) -> None:
    asked, told = node.files / "asked", node.files / "told"
    command(node, "scontrol", f'echo "$@" >>{told}')

    def drained(reason: str) -> None:
        command(node, "sinfo", f"echo x >>{asked}; printf '%s\\n' '{NODE}|drained|{reason}'")

    fake, reserved = node.state.node(NODE).gpus[:2]
    fake.override_used(5000)
    # Who has reserved a GPU may use it.
    claim = Claim("manual:aa", "manual", "eve", 1002)
    node.ledger.reserve_given(claim, [reserved.uuid], free_observation(reserved.uuid))
    reserved.override_used(5000)
    drained("canhazgpu: GPU 0 is in use by mallory")
    check(node)
    assert asked.exists() and not told.exists()
    fake.override_used(None)
    check(node)
    assert told.read_text() == f"update nodename={NODE} state=resume\n"

    # It is known now that the node is not drained by us: nobody asks again.
    asked.unlink()
    check(node)
    assert not asked.exists()
    (node.files / "run" / "not-drained").unlink()
    drained("canhazgpu is broken, says bob")
    check(node)
    assert asked.exists()
    assert told.read_text().count("resume") == 1


def test_a_drain_by_a_prolog_is_undone_by_the_next_check_that_finds_all_clear(node: Any) -> None:
    node.slurm()
    check(node)
    assert (node.files / "run" / "not-drained").exists()
    node.configure(slurm={"on_conflict": "drain"})
    for fake in node.state.node(NODE).gpus:
        fake.override_used(5000)
    node.run("prolog")
    drained = next(line for line in node.scheduler_orders() if "state=drain" in line)
    reason = drained.partition("reason=")[2]
    assert reason.startswith("canhazgpu: job 12: ")
    command(node, "sinfo", f"cat {node.files}/sinfo")
    (node.files / "sinfo").write_text(f"{NODE}|drained|{reason}\n")
    check(node)
    assert "state=resume" not in node.scheduler_orders()[-1]
    for fake in node.state.node(NODE).gpus:
        fake.override_used(None)
    check(node)
    assert node.scheduler_orders()[-1] == f"scontrol update nodename={NODE} state=resume"


def test_a_fault_is_told_and_the_status_is_zero_all_the_same(node: Any) -> None:
    node.configure(store={"on_failure": "fail"})
    node.server.kill()
    done = check(node)
    assert "cannot reach the store" in done.stderr
    assert check(node, "--exit-code").returncode == 4
    node.server.start()
    assert check(node, "--exit-code").returncode == 0
    (node.files / "config.toml").write_text("[store]\nurll = 1\n")
    assert "did you mean store.url?" in check(node).stderr
    assert check(node, "--exit-code").returncode == 1


@pytest.mark.parametrize("how", ["dead", "full", "replica"])
def test_a_store_that_does_not_serve_is_no_success(node: Any, how: str) -> None:
    # The node decides from its own book meanwhile.
    if how == "dead":
        node.server.kill()
    with contextlib.nullcontext() if how == "dead" else node.server.client() as client:
        if how == "full":
            client.config_set("maxmemory", "1")
        elif how == "replica":
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
        plain, told = check(node), check(node, "--exit-code")

        assert (plain.returncode, plain.stderr) == (0, "")
        assert told.returncode == 4
        assert told.stderr.startswith("canhazgpu: nothing was published: ")
        words = {"dead": "cannot reach", "full": "out of memory", "replica": "read-only replica"}
        assert words[how] in told.stderr
        if how != "dead":
            client.config_set("maxmemory", "0")
            client.execute_command("REPLICAOF", "NO", "ONE")
    if how == "dead":
        node.server.start()
    node.forget_outage()
    assert check(node, "--exit-code").returncode == 0


def test_it_explains_itself(node: Any) -> None:
    done = check(node, "--help")
    assert done.returncode == 0
    assert "HealthCheckProgram" in done.stderr
    assert check(node, "--nonsense").returncode == 2


def test_a_node_that_never_had_a_gpu_is_not_listed(node: Any) -> None:
    node.configure(validation={"nvml_library": "/nonexistent/libnvidia-ml.so.1"})
    assert check(node).stderr == ""
    assert node.ledger.read_nodes() == []
    with (node.files / "slurm.conf").open("a") as conf:
        conf.write("NodeName=n1 Gres=gpu:4\n")
    check(node)
    (view,) = node.ledger.read_nodes()
    assert view.scan is not None and view.scan.fault


KILLED_AT = {
    "prolog": [
        "JobRecords.begin",
        "JobRecords.complete",
        "BookTransaction.apply",
        "BookTransaction.apply_and_journal",
        "BookTransaction.open_intent",
        "RedisLedger.read_nodes",
        "RedisLedger.confirm",
        "RedisLedger.record_entries",
        "Journal.append",
        "Journal.drop",
    ],
    "epilog": [
        "JobRecords.end",
        "JobRecords.forget",
        "BookTransaction.refresh",
        "BookTransaction.apply_and_journal",
        "RedisLedger.read_nodes",
        "FallbackLedger.release",
        "RedisLedger.publish_scan",
        "RedisLedger.record_entries",
        "Journal.append",
        "Journal.drop",
    ],
}
KILL = """
import os
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.local.book.book_transaction import BookTransaction
from canhazgpu.ledger.local.fallback_ledger import FallbackLedger
from canhazgpu.ledger.local.book.journal import Journal
from canhazgpu.ledger.local.jobs.job_records import JobRecords
done = {kind}.{name}
def die(*given, **named):
    {before} or done(*given, **named)
    os.kill(os.getpid(), 9)
{kind}.{name} = die
from canhazgpu.{hook}.main import main
main()
"""


@pytest.mark.parametrize("node", ["slurm"], indirect=True)
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(
    ("hook", "stage"), [(hook, stage) for hook, stages in KILLED_AT.items() for stage in stages]
)
def test_a_hook_that_is_killed_anywhere_leaves_nothing_that_a_check_does_not_clear_away(
    node: Any, hook: str, stage: str, before: bool
) -> None:
    node.run("prolog", **job_variables(1, "0"))
    if hook == "epilog":
        node.run("prolog", **job_variables(2, "1"))
    kind, name = stage.split(".")
    text = KILL.format(kind=kind, name=name, hook=hook, before=before)
    killed = node.python("-c", text, environ=node.environ(**job_variables(2, "1")))
    # Not every stage is on the way of every hook.
    assert killed.returncode in (0, -9), killed.stderr
    slurm(node, 1)
    check(node)
    assert set(node.owners_by_gpu().values()) == {"job:c1:1:0"}
    assert node.owners_by_gpu() == owners_in_book(node)
    assert {name.partition(".")[0] for name in node.record_files()} == {"1"}
    # And the GPU is to be had.
    node.run("prolog", **job_variables(3, "1"))
    assert set(node.owners_by_gpu().values()) == {"job:c1:1:0", "job:c1:3:0"}


@pytest.mark.parametrize("node", ["canhazgpu"], indirect=True)
@pytest.mark.parametrize("hook", ["prolog", "epilog"])
@pytest.mark.parametrize(
    "stage", ["BookTransaction.apply_and_journal", "Journal.append", "JobRecords.forget"]
)
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_nor_does_one_that_is_killed_without_the_store(
    node: Any, hook: str, stage: str, before: bool
) -> None:
    node.run("prolog", **job_variables(1, "0"))
    if hook == "epilog":
        node.run("prolog", **job_variables(2, "1"))
    node.server.kill()
    kind, name = stage.split(".")
    text = KILL.format(kind=kind, name=name, hook=hook, before=before)
    killed = node.python("-c", text, environ=node.environ(**job_variables(2, "1")))
    assert killed.returncode in (0, -9), killed.stderr
    node.server.start()
    node.forget_outage()
    slurm(node, 1)
    check(node)
    assert set(node.owners_by_gpu().values()) == {"job:c1:1:0"}
    assert node.owners_by_gpu() == owners_in_book(node)
