"""A node on which things are not as they should be: hooks end in time, drain and leak nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hook_jobs import gpus_in_book, job_variables, node_events, owners_in_book

import fake_nvml

pytestmark = pytest.mark.slow

NODE = "n1"
slurms_choice = pytest.mark.parametrize("node", ["slurm"], indirect=True)
ANY_JOB_RUNS = (
    'for last; do :; done; case $* in *--nodelist*) ;; *) echo "$last $last RUNNING" ;; esac'
)


def check(node: Any) -> subprocess.CompletedProcess[str]:
    """Run the health check as slurmd does."""
    environ = {name: value for name, value in node.environ().items() if "JOB" not in name}
    done = node.python("-m", "canhazgpu.epilog.health_check", environ=environ)
    assert (done.returncode, done.stdout) == (0, "")
    return done


def jobs_here(node: Any, *numbers: int) -> None:
    lines = "".join(f"echo '{number} RUNNING'; " for number in numbers)
    node.slurm(
        squeue='for last; do :; done; case $* in *"%A %T"*) '
        + lines
        + '(:) ;; *--nodelist*) ;; *) echo "$last $last RUNNING" ;; esac'
    )


@contextlib.contextmanager
def mounted(place: Path) -> Iterator[None]:
    """A small disk of the node's own for its records."""
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=128k", "tmpfs"]
    if subprocess.run(["mount", *options, place], check=False, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def fill(place: Path) -> None:
    with contextlib.suppress(OSError), (place / "filler").open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(512))


@slurms_choice
def test_a_full_disk_grants_nothing_and_keeps_nothing(node: Any) -> None:
    jobs_here(node, 5)
    place = node.files / "run"
    with mounted(place):
        node.run("prolog", **job_variables(5, "0"))
        node.run("prolog", **job_variables(7, "1"))
        fill(place)
        node.run("prolog", **job_variables(6, "2"))
        assert node.scheduler_orders()[-1] == "scontrol requeue 6"
        assert "No space left on device" in node.scheduler_orders()[-2]
        # Nothing is left of what could not be written, and nobody is drained or held.
        assert node.record_files() == {"5.json", "5.env", "7.json", "7.env"}
        assert set(node.owners_by_gpu().values()) == {"job:c1:5:0", "job:c1:7:0"}

        check(node)
        node.run("epilog", **job_variables(5, "0"))
        node.run("epilog", **job_variables(6, "2"))
        assert "job:c1:5:0" not in node.owners_by_gpu().values()
        (place / "filler").unlink()
        jobs_here(node)
        check(node)
        assert node.owners_by_gpu() == owners_in_book(node) == {}
        assert node.record_files() == set()
        node.run("prolog", **job_variables(8, "0"))
        assert set(node.owners_by_gpu().values()) == {"job:c1:8:0"}
    assert not any("drain" in line for line in node.scheduler_orders())


@slurms_choice
def test_records_that_cannot_be_written_grant_nothing_and_keep_nothing(node: Any) -> None:
    jobs_here(node, 5)
    place = node.files / "run"
    with mounted(place):
        node.run("prolog", **job_variables(5, "0"))
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        node.run("prolog", **job_variables(6, "2"))
        assert node.scheduler_orders()[-1] == "scontrol requeue 6"
        told = check(node).stderr
        assert "Read-only file system" in told and "free space of node.state_dir" in told
        assert "internal error" not in told
        node.run("epilog", **job_variables(5, "0"))
        node.run("epilog", **job_variables(6, "2"))
        assert node.owners_by_gpu() == {}
        subprocess.run(["mount", "-o", "remount,rw", place], check=True)
        jobs_here(node)
        check(node)
        assert node.owners_by_gpu() == owners_in_book(node) == {}
        assert node.record_files() == set()


@slurms_choice
@pytest.mark.parametrize("hook", ["prolog", "epilog", "health check"])
def test_whoever_holds_the_books_lock_for_ever_keeps_no_hook(node: Any, hook: str) -> None:
    """As a process that was stopped in the middle of it does."""
    node.slurm(squeue=ANY_JOB_RUNS)
    node.run("prolog", **job_variables(5, "0"))
    node.configure(slurm={"hook_deadline_s": 2.0})
    with (node.files / "run" / ".book.lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        # A hook that does not end is ended by the test's own time limit.
        if hook == "prolog":
            node.run("prolog", **job_variables(6, "1"))
            assert node.scheduler_orders()[-1] == "scontrol requeue 6"
        elif hook == "epilog":
            node.run("epilog", **job_variables(5, "0"))
        else:
            assert "no decision within 2 s" in check(node).stderr
    node.configure(slurm={"hook_deadline_s": 40.0})
    jobs_here(node)
    check(node)
    assert node.owners_by_gpu() == owners_in_book(node) == {}
    assert node.record_files() == set()


STATE_FILES = (
    "book.json",
    "journal",
    "published.json",
    "store-outage",
    "slurmd-groups.json",
    "slurmd-gpus.json",
    "jobs/5.json",
)


@slurms_choice
@pytest.mark.parametrize("file", STATE_FILES)
def test_a_fifo_in_place_of_a_state_file_keeps_no_epilog(node: Any, file: str) -> None:
    node.slurm(squeue=ANY_JOB_RUNS)
    node.run("prolog", **job_variables(5, "0"))
    assert owners_in_book(node) == node.owners_by_gpu() != {}
    place = node.files / "run" / file
    place.unlink(missing_ok=True)
    os.mkfifo(place)

    # An epilog that waits for the other end is ended by the test's own time limit, or its own.
    node.run("epilog", **job_variables(5, "0"))

    assert "no decision within" not in node.log()
    assert node.owners_by_gpu() == {}
    assert not any("drain" in line for line in node.scheduler_orders())


def numbers_of(node: Any, number: int) -> dict[str, str]:
    """Another user's job."""
    return {**job_variables(number, "2"), "SLURM_JOB_USER": "bob", "SLURM_JOB_UID": "1001"}


def test_a_number_that_is_given_again_gets_no_gpus_of_the_job_before(node: Any) -> None:
    """Slurm lost its state and counts anew; ledger and node still know job 5 of before."""
    node.slurm(squeue=ANY_JOB_RUNS)
    node.run("prolog", **job_variables(5, "0,1"))
    node.run("prolog", **numbers_of(node, 5))
    assert node.log() == ""
    assert len(node.owners_by_gpu()) == 1
    assert node.owners_by_gpu() == owners_in_book(node)
    assert [one.claim.user for one in node.reservations()] == ["bob"]
    (line,) = [
        line
        for line in (node.files / "run" / "jobs" / "5.env").read_text().splitlines()
        if line.startswith("gpu ")
    ]
    assert line.split()[2] in node.owners_by_gpu()
    assert {one.reason for one in node_events(node, "release")} == {
        "its number was given to another job"
    }
    # The late epilog of the job before, then its own.
    node.run("epilog", **job_variables(5, "0,1"))
    assert len(node.owners_by_gpu()) == 1
    node.run("epilog", **numbers_of(node, 5))
    node.slurm(squeue="")
    check(node)
    assert node.owners_by_gpu() == {}


@slurms_choice
def test_a_number_that_is_given_again_is_no_right_to_a_gpu_in_use(
    node: Any, people: tuple[str, str]
) -> None:
    node.slurm(squeue=ANY_JOB_RUNS)
    node.run("prolog", **job_variables(5, "0"))
    with fake_nvml.start_gpu_process(node.gpu(0), 8000, user=people[0]):
        node.run("prolog", **{**numbers_of(node, 5), "SLURM_JOB_GPUS": "0"})
    assert node.owners_by_gpu() == {}
    assert node.scheduler_orders()[-1] == "scontrol requeue 5"


@slurms_choice
def test_a_number_that_is_given_again_frees_what_a_later_attempt_had(node: Any) -> None:
    node.slurm(squeue=ANY_JOB_RUNS)
    node.run("prolog", **job_variables(5, "0,1", attempt=3))
    node.run("prolog", **numbers_of(node, 5))
    assert set(node.owners_by_gpu().values()) == {"job:c1:5:0"}
    assert gpus_in_book(node, "job:c1:5:0") == {node.gpu(2).uuid}


@pytest.mark.parametrize("cluster", ["lab+1", "a:b@c", "lab~\u00fc", "x/y", "a b"])
def test_a_cluster_may_be_called_anything(node: Any, cluster: str) -> None:
    with (node.files / "slurm.conf").open("a") as conf:
        conf.write(f'ClusterName="{cluster}"\n')
    jobs_here(node, 5)
    named = {"SLURM_CLUSTER_NAME": cluster}
    node.run("prolog", **job_variables(5, "0"), **named)
    node.run("prolog", **job_variables(6, "1"), **named)
    check(node)
    assert [one.claim.job_id for one in node.reservations()] == ["5"]
    assert len(node.owners_by_gpu()) == 1
    node.run("epilog", **job_variables(5, "0"), **named)
    assert node.owners_by_gpu() == {}


BROKEN = (
    "{imports}\n"
    "def broken(*given, **named):\n"
    "    raise ValueError('boom')\n"
    "{target} = broken\n"
    "import sys\n"
    "from canhazgpu.{hook}.main import main\n"
    "sys.exit(main())\n"
)
RECORDS = "from canhazgpu.ledger.local.jobs.job_records import JobRecords"
HOOK = "import canhazgpu.schedulers.slurm.hook.run as hook"


@slurms_choice
@pytest.mark.parametrize("chain", ["requeue", "drain", "wait:1,kill,drain"])
def test_a_fault_of_our_own_sends_the_job_back_and_drains_nothing(node: Any, chain: str) -> None:
    node.slurm()
    node.configure(slurm={"on_conflict": chain})
    program = BROKEN.format(imports=RECORDS, target="JobRecords.begin", hook="prolog")
    done = node.python("-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [line.split()[1] for line in node.scheduler_orders()] == ["update", "requeue"]
    (line,) = node.log_lines()
    assert "internal error at" in line and "ValueError: boom (please report this)" in line


@slurms_choice
@pytest.mark.parametrize(
    ("hook", "imports", "target"),
    [
        (
            "prolog",
            "from canhazgpu.schedulers.slurm.control import actions",
            "actions.SlurmActions.requeue",
        ),
        ("prolog", HOOK, "hook.log_outcome"),
        ("prolog", HOOK, "hook.open_node_context"),
        ("prolog", HOOK, "hook.open_job_hook"),
        ("epilog", HOOK, "hook.log_outcome"),
        ("epilog", HOOK, "hook.open_node_context"),
        ("epilog", HOOK, "hook.open_job_hook"),
        ("epilog", RECORDS, "JobRecords.has_readable"),
        ("epilog", RECORDS, "JobRecords.end"),
    ],
)
def test_no_fault_of_our_own_makes_a_hook_fail(
    node: Any, hook: str, imports: str, target: str
) -> None:
    node.slurm()
    if "requeue" in target:
        node.ledger.quarantine(NODE, node.gpu(0).uuid, "needs a reset", "root")
    done = node.python("-c", BROKEN.format(imports=imports, target=target, hook=hook))
    assert done.returncode == 0


@slurms_choice
@pytest.mark.parametrize("file", ["config.toml", "slurm.conf", "gres.conf"])
@pytest.mark.parametrize("hook", ["prolog", "epilog"])
def test_a_share_that_hangs_keeps_no_hook(node: Any, file: str, hook: str) -> None:
    (node.files / file).unlink(missing_ok=True)
    os.mkfifo(node.files / file)
    done = node.python("-m", f"canhazgpu.{hook}.main")
    assert done.returncode == 0
    assert "no decision within 4 s" in done.stderr


WITHOUT_CONFIGURATION = """
import pathlib, sys
import canhazgpu.node.identity as identity
identity.state_dir = lambda *_: pathlib.Path({place!r})
def tell(event, given):
    if event == "import" and given[0] == "redis":
        print("the client of the store", flush=True)
sys.addaudithook(tell)
from canhazgpu.{module} import main
sys.argv[1:] = []
sys.exit(main())
"""


@slurms_choice
@pytest.mark.parametrize("text", ["[store\n", "[store]\nurl = 7\n", "[stroe]\nurl = 'redis://x'\n"])
@pytest.mark.parametrize("hook", ["prolog", "epilog", "epilog of a job on record", "health check"])
def test_a_hook_without_a_configuration_touches_no_store(node: Any, hook: str, text: str) -> None:
    """The default store, on this host, is another cluster's or nobody's."""
    node.slurm(squeue=ANY_JOB_RUNS)
    if "record" in hook:
        node.run("prolog", **job_variables(12, "0,1"))
    (node.files / "config.toml").write_text(text)
    modules = {"health check": "epilog.health_check", "prolog": "prolog.main"}
    module = modules.get(hook, "epilog.main")
    code = WITHOUT_CONFIGURATION.format(place=str(node.files / "run"), module=module)

    done = node.new_python("-c", code)

    assert (done.stdout, done.returncode) == ("", 0)
    files = {path.name for path in (node.files / "run").glob("*")}
    assert "store-outage" not in files
    assert "journal" not in files or "record" in hook
    told = done.stderr + "".join(node.log_lines())
    assert "canhazgpu config show" in told


@slurms_choice
def test_the_prolog_opens_its_directories_to_tasks_again(node: Any) -> None:
    place = node.files / "run"
    node.run("prolog", **job_variables(5, "0"))
    for directory in (place / "jobs", place):
        directory.chmod(0o700)
    node.run("prolog", **job_variables(6, "1"))
    assert [path.stat().st_mode & 0o777 for path in (place, place / "jobs")] == [0o755, 0o755]


@slurms_choice
@pytest.mark.parametrize("how", ["owned", "linked"])
@pytest.mark.parametrize("name", ["run", "run/jobs"])
def test_records_in_a_users_directory_are_none(node: Any, name: str, how: str) -> None:
    place = node.files / name
    users = node.files / "users"
    users.mkdir()
    os.chown(users, 65534, 65534)
    place.parent.mkdir(exist_ok=True)
    if how == "linked":
        place.symlink_to(users)
    else:
        users.rename(place)
        (place / "jobs").mkdir(exist_ok=True)
    node.slurm(squeue=ANY_JOB_RUNS)
    node.run("prolog", **job_variables(5, "0"))
    assert node.scheduler_orders()[-1] == "scontrol requeue 5"
    assert f"cannot keep the node's records in {place}: it belongs to uid 65534" in node.log()
    assert node.reservations() == []
    assert not any("drain" in line for line in node.scheduler_orders())


def damage(path: Path, how: str) -> None:
    if how == "removed":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        os.chown(path, 65534, 65534)


@pytest.mark.parametrize("how", ["removed", "cut", "another user's"])
@pytest.mark.parametrize("files", [["book.json"], ["jobs/5.json"], ["book.json", "journal"]])
@pytest.mark.parametrize("store", ["flushed", "gone"])
@slurms_choice
def test_what_is_left_of_the_nodes_files_keeps_a_running_jobs_gpu(
    node: Any, files: list[str], how: str, store: str
) -> None:
    jobs_here(node, 5)
    node.run("prolog", **job_variables(5, "0,1"))
    for name in files:
        # The journal is there once something was told.
        damage(node.files / "run" / name, how)
    if store == "flushed":
        with node.server.client() as direct:
            direct.flushall()
    else:
        node.server.kill()
    node.run("prolog", **job_variables(6, "1"))
    assert node.scheduler_orders()[-1] == "scontrol requeue 6"
    if store == "gone" and "book.json" in files:
        assert "not known who holds the GPUs" in node.log()
        assert "the store does not answer" in node.log()
    else:
        assert gpus_in_book(node, "job:c1:5:0") == {node.gpu(0).uuid, node.gpu(1).uuid}
    if store == "gone":
        node.server.start()
        node.forget_outage()
    check(node)
    assert set(node.owners_by_gpu().values()) == {"job:c1:5:0"}
    node.run("epilog", **job_variables(6, "1"))
    node.run("epilog", **job_variables(5, "0,1"))
    jobs_here(node)
    check(node)
    assert node.owners_by_gpu() == owners_in_book(node) == {}
    assert node.record_files() == set()


@slurms_choice
def test_what_it_took_to_begin_counts_against_a_hooks_time(node: Any) -> None:
    """Or a slow share, a hang and a Slurm that does not answer add up to slurmd's own limit."""
    node.slurm(squeue=ANY_JOB_RUNS)
    node.configure(slurm={"hook_deadline_s": 4.0})
    slow = (
        "import time\n"
        "import canhazgpu.schedulers.slurm.hook.node_context as hook\n"
        "first = hook.read_node_conf\n"
        "hook.read_node_conf = lambda *given: (time.sleep(2), first(*given))[1]\n"
        "from canhazgpu.prolog.main import main\n"
        "main()\n"
    )
    place = node.files / "run"
    place.mkdir()
    with (place / ".book.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        node.python("-c", slow)
    (said,) = [line for line in node.log_lines() if line.startswith("job 12: no decision within")]
    assert float(said.partition("within ")[2].split()[0]) <= 2.0
    assert node.scheduler_orders()[-1] == "scontrol requeue 12"


@slurms_choice
@pytest.mark.parametrize(("lost", "at_most_s"), [("3", 27.0), ("x", 30.0), ("-3", 30.0)])
def test_so_does_a_run_that_was_killed(node: Any, lost: str, at_most_s: float) -> None:
    node.configure(slurm={"hook_deadline_s": 30.0})
    tell = (
        "from canhazgpu.schedulers.slurm.job_start import reserve\n"
        "reserve.start_job = lambda hook, *more: print(hook.time_left_s)\n"
        "from canhazgpu.prolog.main import main\n"
        "main()\n"
    )
    done = node.python("-c", tell, environ=node.environ(HOOK_LOST_S=lost))
    assert at_most_s - 10 < float(done.stdout) <= at_most_s
