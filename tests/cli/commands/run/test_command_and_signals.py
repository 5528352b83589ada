"""`canhazgpu run` behaves as the command it runs, and its GPUs are free when it is gone."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hosts.shared_host import NODE, SharedHost, Started
from ledger_samples import job, observation
from polling import poll_until
from terminal import Terminal

import fake_nvml
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.ledger.port import Observation
from canhazgpu.node.run_marker import processes_of_run

pytestmark = pytest.mark.slow

SHOW = 'echo "$CUDA_VISIBLE_DEVICES"'


def owner_of(host: SharedHost) -> str:
    (owner,) = {one.claim.owner for one in host.view().reservations.values()}
    return owner


def observation_of(host: SharedHost) -> Observation:
    """A scan of the host, with nothing in use."""
    readings = tuple(
        GpuReading(at, one, at, "H100", 0, 80000) for at, one in enumerate(host.uuids())
    )
    return replace(observation(NODE), scan=replace(observation(NODE).scan, gpus=readings))


def keeper_of(host: SharedHost, owner: str, command: int) -> int:
    """Return the pid of the run's keeper: among the owner's processes it is not the command."""

    def found() -> int | None:
        for one in host.view().reservations.values():
            pids = {process.pid for process in one.claim.processes if one.claim.owner == owner}
            if len(pids) > 1:
                (keeper,) = pids - {command}
                return keeper
        return None

    keeper = poll_until(found, "the keeper to say who it is")
    assert keeper is not None
    return keeper


def started(host: SharedHost, *words: str, gpus: int = 1, **how: object) -> Started:
    """Start a run that stays, and wait until its command runs."""
    mark = host.outputs / f"started-{time.monotonic_ns()}"
    script = f"touch {mark}; {' '.join(words) or 'exec sleep 60'}"
    process = host.start("run", "--gpus", str(gpus), "--", "sh", "-c", script, **how)
    poll_until(mark.exists, "the command to start")
    return process


def all_free(host: SharedHost) -> bool:
    return not host.holders()


def test_the_command_sees_its_gpus_and_no_others(host: SharedHost) -> None:
    done = host.call(
        "run", "--gpus", "2", "--", "sh", "-c", SHOW, environ={"CUDA_VISIBLE_DEVICES": "7"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.strip().split(",")) == sorted(host.uuids())
    poll_until(lambda: all_free(host), "the GPUs to be free")


def test_indices_come_with_the_order_in_which_they_count(host: SharedHost) -> None:
    host.configure(run={"export": "index"})
    script = 'echo "$CUDA_VISIBLE_DEVICES $CUDA_DEVICE_ORDER"'
    done = host.call("run", "--gpus", "2", "--", "sh", "-c", script)
    assert done.stdout == "0,1 PCI_BUS_ID\n"


@pytest.mark.parametrize("named", ["1", "GPU-", "uuid"])
def test_gpus_may_be_named(host: SharedHost, named: str) -> None:
    wanted = host.uuids()[1]
    given = {"1": "1", "GPU-": wanted[:12], "uuid": wanted}[named]
    done = host.call("run", "--gpu-ids", given, "--", "sh", "-c", SHOW)
    assert (done.stdout.strip(), done.returncode) == (wanted, 0)


@pytest.mark.parametrize("status", [0, 1, 3, 75, 255])
def test_the_exit_status_is_the_commands(host: SharedHost, status: int) -> None:
    assert host.call("run", "--", "sh", "-c", f"exit {status}").returncode == status


@pytest.mark.parametrize("name", ["TERM", "KILL", "INT", "SEGV"])
def test_a_signal_that_ends_the_command_is_seen_by_a_shell(host: SharedHost, name: str) -> None:
    number = getattr(signal, f"SIG{name}")
    script = f'{host.program} run -- sh -c "kill -{name} \\$\\$"; echo $?'
    done = subprocess.run(
        ["sh", "-c", script],
        check=False,
        env=host.environ(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout.strip() == str(128 + number)
    poll_until(lambda: all_free(host), "the GPU to be free")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_reaches_the_command(host: SharedHost, number: signal.Signals) -> None:
    ready = host.outputs / "ready"
    script = (
        f"trap 'echo caught; exit 9' {number.value}; touch {ready}; while :; do sleep 0.05; done"
    )
    process = host.start("run", "--", "bash", "-c", script)
    poll_until(ready.exists)
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert (out, process.returncode) == ("caught\n", 9)


def test_what_python_ignores_the_command_does_not(host: SharedHost) -> None:
    # `yes` ends by SIGPIPE when `head` has enough; ignored, it would complain.
    done = host.call("run", "--", "bash", "-c", "yes | head -1; echo ${PIPESTATUS[0]}")
    assert done.stdout == f"y\n{128 + signal.SIGPIPE}\n"
    assert done.stderr == ""


def test_who_reads_the_output_does_not_wait_for_anybody_else(host: SharedHost) -> None:
    # A helper process that inherits stderr would keep this waiting for ever.
    script = f"{host.program} run -- true"
    done = subprocess.run(
        script, shell=True, env=host.environ(), capture_output=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_command_owns_the_terminal(host: SharedHost) -> None:
    # Given a terminal, and a command that reads from it and knows its size
    script = 'stty size; read line; echo "got $line"; tty'
    with host.on_terminal("run", "--", "bash", "-c", script, rows=33, columns=77) as terminal:
        terminal.type("hello\n")
        assert terminal.wait_end() == 0
    assert "33 77" in terminal.output
    assert "got hello" in terminal.output
    assert "/dev/pts/" in terminal.output


def test_ctrl_c_and_ctrl_z_are_the_commands(host: SharedHost) -> None:
    # Given an interactive shell with job control, as a person has
    ready = host.outputs / "ready"
    script = (
        f'trap "echo in\\"\\"terrupted; exit 5" INT; touch {ready}; while :; do sleep 0.05; done'
    )
    environ = {**host.environ(), "PS1": "", "TERM": "dumb"}
    with Terminal(["bash", "--norc", "-i"], environ) as terminal:
        terminal.type(f"{host.program} run -- bash -c '{script}'\n")
        poll_until(ready.exists, "the command to start")
        # If the command is stopped, looked for, continued and interrupted
        terminal.type("\x1a")
        time.sleep(0.5)
        terminal.type("jobs; fg\n")
        time.sleep(0.5)
        terminal.type("\x03")
        time.sleep(0.5)
        terminal.type("echo status=$?; exit\n")
        terminal.wait_end()
    # I expect what the command alone would do
    assert "Stopped" in terminal.output
    assert "interrupted" in terminal.output
    assert "status=5" in terminal.output
    poll_until(lambda: all_free(host), "the GPU to be free")


def test_a_command_that_is_not_there_takes_no_gpu(host: SharedHost) -> None:
    done = host.call("run", "--", "no-such-command")
    assert (done.returncode, done.stdout) == (127, "")
    assert "no-such-command: command not found" in done.stderr
    assert host.ledger().history(NODE, 0) == []


def test_a_file_that_may_not_be_executed(host: SharedHost) -> None:
    file = host.outputs / "notes.txt"
    file.write_text("hello")
    done = host.call("run", "--", str(file))
    assert done.returncode == 126
    assert "Permission denied" in done.stderr


def test_a_command_that_cannot_start_after_the_grant_leaks_no_gpu(host: SharedHost) -> None:
    # Executable, and yet the kernel refuses it
    file = host.outputs / "broken"
    file.write_text("#!/no/such/interpreter\n")
    file.chmod(0o755)
    done = host.call("run", "--", str(file))
    assert done.returncode == 127
    assert all_free(host)


def test_a_killed_keeper_leaves_the_reservation_to_its_command(host: SharedHost) -> None:
    process = started(host, gpus=2)
    owner = owner_of(host)
    os.kill(keeper_of(host, owner, process.pid), signal.SIGKILL)
    # Somebody else does not get the GPUs as long as the command lives
    assert host.call("run", "--nonblock", "--", "true").returncode == 75
    assert owner_of(host) == owner
    # and gets them the moment it is gone.
    process.kill()
    process.wait()
    done = host.call("run", "--nonblock", "--gpus", "2", "--", "sh", "-c", SHOW)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_killed_command_frees_its_gpus_at_once(host: SharedHost) -> None:
    process = started(host, gpus=2)
    process.kill()
    process.wait()
    poll_until(lambda: all_free(host), "the GPUs to be free")


def test_a_run_killed_right_after_its_grant_is_nobodys(host: SharedHost) -> None:
    # Given a reservation of a process that died before anything else of it came to be
    dead = subprocess.Popen(["sleep", "60"])
    from canhazgpu.gpu.scan import GpuReading, Scan
    from canhazgpu.ledger.port import Observation
    from canhazgpu.ledger.values import Claim
    from canhazgpu.node.identity import boot_id, pid_namespace
    from canhazgpu.node.processes import identify_process

    process = identify_process(dead.pid)
    assert process is not None
    claim = Claim(
        "run:dead", "run", "ann", 1, None, None, None, boot_id(), None, None, (process,),
        pid_namespace(),
    )  # fmt: skip
    readings = tuple(GpuReading(i, u, i, "H100", 0, 1) for i, u in enumerate(host.uuids()))
    host.ledger().reserve_count(claim, 2, Observation(Scan(NODE, 0, 0, readings), 0.0))
    assert host.call("run", "--nonblock", "--", "true").returncode == 75
    dead.kill()
    dead.wait()
    assert host.call("run", "--nonblock", "--gpus", "2", "--", "true").returncode == 0


def test_background_children_keep_the_gpus_until_they_end(host: SharedHost) -> None:
    # If the command leaves a process behind in a session of its own, as a daemon does
    mark = host.outputs / "mark"
    script = f"printf $CANHAZGPU_OWNER >{mark}; setsid sleep 60 </dev/null >/dev/null 2>&1 &"
    done = host.call("run", "--gpus", "2", "--", "sh", "-c", script)
    assert done.returncode == 0
    owner = owner_of(host)
    # I expect nobody else to get its GPUs, also without the keeper
    assert host.call("run", "--nonblock", "--", "true").returncode == 75
    (left,) = poll_until(lambda: processes_of_run(mark.read_text()))
    os.kill(keeper_of(host, owner, left.pid), signal.SIGKILL)
    assert host.call("run", "--nonblock", "--", "true").returncode == 75
    # and everybody once it is gone.
    os.kill(left.pid, signal.SIGKILL)
    poll_until(lambda: host.call("run", "--nonblock", "--gpus", "2", "--", "true").returncode == 0)


def test_a_run_that_another_one_left_behind_is_no_part_of_it(host: SharedHost) -> None:
    inner = f"setsid {host.program} run -- sleep 60 </dev/null >/dev/null 2>&1 &"
    outer = started(host, f"{inner} exec sleep 60")
    poll_until(lambda: len(host.holders()) == 2, "both to have a GPU")
    outer.kill()
    poll_until(lambda: len(host.holders()) == 1, "the outer one's GPU to be free")


def test_whoever_knows_roots_run_can_neither_hold_nor_end_it(
    host: SharedHost, people: tuple[str, ...]
) -> None:
    process = started(host)
    forged = {"CANHAZGPU_OWNER": owner_of(host)}
    with subprocess.Popen(["sleep", "60"], env=forged, user=people[1]) as other:
        process.kill()
        poll_until(lambda: all_free(host))
        assert other.poll() is None
        other.kill()


def test_root_writes_to_no_file_of_a_command_that_became_another_user(
    host: SharedHost, people: tuple[str, ...]
) -> None:
    # Given a file that only root may write, open for reading where messages are written to
    host.configure(run={"heartbeat_s": 0.2})
    closed = host.outputs / "closed"
    closed.write_text("as it was\n")
    closed.chmod(0o644)
    script = f"touch {host.outputs}/ready; exec sleep 60 2<{closed}"
    words = ("setpriv", "--reuid", people[0], "--clear-groups", "sh", "-c", script)
    process = host.start("run", "--timeout", "5s", "--", *words)
    poll_until((host.outputs / "ready").exists)
    poll_until(lambda: process.poll() is not None, "the run's time to be over")
    assert closed.read_text() == "as it was\n"


def test_a_command_that_changes_its_user_is_alive(
    host: SharedHost, people: tuple[str, ...]
) -> None:
    process = started(host, "exec setpriv --reuid nobody --clear-groups sleep 60", gpus=2)
    refused = host.call("run", "--nonblock", "--", "true", user=people[0])
    assert (process.poll(), refused.returncode) == (None, 75)


def test_the_message_users_know(host: SharedHost) -> None:
    with fake_nvml.start_gpu_process(host.node.gpu(0), 8000, name="python3"):
        done = host.call("run", "--gpus", "2", "--nonblock", "--", "python", "train.py")
    assert done.returncode in (75, 127)
    done = None
    with fake_nvml.start_gpu_process(host.node.gpu(0), 8000, name="python3") as intruder:
        done = host.call("run", "--gpus", "2", "--nonblock", "--", "true")
    assert done.returncode == 75
    lines = done.stderr.splitlines()
    assert lines[-1] == (
        "Error: Not enough GPUs available. Requested: 2, Available: 1"
        " (1 GPUs in use without reservation - run 'canhazgpu status' for details)"
    )
    assert f"PID {intruder.pid} (python3)" in lines[0]


def test_a_gpu_that_cannot_be_read_is_named(host: SharedHost) -> None:
    host.node.inject("nvmlDeviceGetMemoryInfo_v2", return_=15, gpu=1)
    host.node.inject("nvmlDeviceGetMemoryInfo", return_=15, gpu=1)
    refused = host.call("run", "--gpus", "2", "--nonblock", "--", "true")
    assert refused.returncode == 75
    assert "Requested: 2, Available: 1 (1 unreadable - run" in refused.stderr
    assert f"GPU 1 ({host.uuids()[1]}) on host1 cannot be read: GPU is lost" in refused.stderr


def test_a_memory_threshold_of_ones_own(host: SharedHost) -> None:
    with fake_nvml.start_gpu_process(host.node.gpu(0), 400):
        lower = ("--memory-threshold", "256", "--nonblock", "--gpus", "2")
        assert host.call("run", *lower, "--", "true").returncode == 75
        assert host.call("run", "--gpus", "2", "--nonblock", "--", "true").returncode == 0


def test_force_takes_a_used_gpu_and_says_so_loudly(host: SharedHost) -> None:
    with fake_nvml.start_gpu_process(host.node.gpu(1), 8000, name="intruder"):
        done = host.call("run", "--gpus", "2", "--force", "--", "sh", "-c", SHOW)
    assert done.returncode == 0
    assert "WARNING: taken by force: GPU 1" in done.stderr
    assert "(intruder)" in done.stderr
    assert len(done.stdout.strip().split(",")) == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--gpus", "3"), "host1 has 2 GPUs; 3 were asked for"),
        (("--gpu-ids", "9"), "there is no GPU 9 on host1; it has 0-1"),
        (("--gpu-ids", "0,x"), "accepted: indices"),
        (("--gpus", "1", "--gpu-ids", "0,1"), "give one of them"),
        (("--nonblock", "--wait", "1m"), "give one of them"),
        (("--wait", "soon"), "accepted: 90s"),
        (("--timeout", "5"), "accepted: 90s"),
    ],
)
def test_what_can_never_be_is_refused_at_once(
    host: SharedHost, arguments: tuple[str, ...], text: str
) -> None:
    done = host.call("run", *arguments, "--", "true")
    assert done.returncode in (2, 75)
    assert text in done.stderr
    assert host.view().queue == ()


def test_a_run_has_its_time(host: SharedHost) -> None:
    done = host.call("run", "--timeout", "1s", "--", "sleep", "60")
    assert done.returncode == -signal.SIGTERM
    assert "the run's time of 1 s is over" in done.stderr
    poll_until(lambda: all_free(host))


def test_a_reservation_that_an_administrator_took_is_told(host: SharedHost) -> None:
    host.configure(run={"heartbeat_s": 0.2})
    process = started(host, stderr=subprocess.PIPE)
    host.ledger().release(NODE, owner_of(host), "maintenance", by="root")
    assert process.stderr is not None
    assert process.stderr.readline() == (
        "canhazgpu: the reservation is lost: root released it: maintenance\n"
    )
    assert process.poll() is None


def test_a_run_may_end_with_its_reservation(host: SharedHost) -> None:
    host.configure(run={"heartbeat_s": 0.2})
    process = host.start("run", "--end-if-lost", "--", "sleep", "60")
    poll_until(lambda: not all_free(host))
    host.ledger().release(NODE, owner_of(host), "maintenance", by="root")
    assert process.wait(60) == -signal.SIGTERM


def test_a_store_without_its_memory_gets_the_run_back(
    make_host: Callable[..., SharedHost],
) -> None:
    host = make_host(2)
    host.configure(run={"heartbeat_s": 0.2})
    process = started(host, gpus=2)
    owner = owner_of(host)
    with host.redis.client() as direct:
        direct.flushall()
    poll_until(lambda: len(host.holders()) == 2, "the keeper to put the reservation back")
    assert owner_of(host) == owner
    process.kill()
    process.wait()
    poll_until(lambda: all_free(host))


def test_a_store_that_was_away_finds_the_run_as_it_is(make_host: Callable[..., SharedHost]) -> None:
    host = make_host(2, persist=True)
    host.configure(run={"heartbeat_s": 0.2})
    process = started(host, gpus=2)
    owner = owner_of(host)
    host.redis.kill()
    time.sleep(1)
    host.redis.start()
    assert owner_of(host) == owner
    # If it is away while the run ends, the release is made good
    host.redis.kill()
    process.kill()
    process.wait()
    time.sleep(0.5)
    host.redis.start()
    poll_until(lambda: all_free(host), "the release to be made good")


def test_without_a_store_nothing_starts(host: SharedHost) -> None:
    host.redis.kill()
    done = host.call("run", "--", "echo", "started")
    assert (done.returncode, done.stdout) == (4, "")
    assert "cannot reach the store" in done.stderr


def test_every_user_has_a_run_of_their_own(host: SharedHost, people: tuple[str, ...]) -> None:
    ann, bob = (started(host, user=user) for user in people[:2])
    assert sorted(host.holders().values()) == sorted(people[:2])
    ann.kill()
    poll_until(lambda: list(host.holders().values()) == [people[1]])
    bob.kill()
    poll_until(lambda: all_free(host))


def test_late_ends_do_not_free_a_newer_run_of_the_same_user(host: SharedHost) -> None:
    first = started(host)
    second = started(host)
    owners = {one.claim.owner for one in host.view().reservations.values()}
    assert len(owners) == 2
    first.kill()
    poll_until(lambda: len(host.holders()) == 1)
    assert owner_of(host) in owners
    assert second.poll() is None


def test_inside_a_job_its_own_gpus_are_used(host: SharedHost) -> None:
    job = {"SLURM_JOB_ID": "12", "SLURMD_NODENAME": NODE, "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}
    done = host.call("run", "--", "sh", "-c", SHOW, environ=job)
    assert (done.returncode, done.stdout) == (0, "GPU-a\n")
    assert "inside Slurm job 12: using its GPUs GPU-a" in done.stderr
    refused = host.call("run", "--gpus", "3", "--", "true", environ=job)
    assert refused.returncode == 2
    assert "has 2 GPUs here, and 3 are asked for" in refused.stderr
    assert all_free(host)


def test_what_the_environment_says_of_a_job_is_compared_with_the_ledger(
    host: SharedHost, people: tuple[str, ...]
) -> None:
    ann, bob = people[:2]
    uids = {one: pwd.getpwnam(one).pw_uid for one in people[:2]}
    held = host.uuids()[0]
    claim = replace(job(12), user=ann, uid=uids[ann])
    host.ledger().reserve_given(claim, [held], observation_of(host))
    variables = {"SLURM_JOB_ID": "12", "SLURMD_NODENAME": NODE}

    def said(user: str, devices: str, **more: str) -> str:
        environ = {**variables, "CUDA_VISIBLE_DEVICES": devices, **more}
        done = host.call("run", "--", "sh", "-c", SHOW, environ=environ, user=user)
        return done.stdout.strip() if done.returncode == 0 else f"refused: {done.stderr}"

    assert said(ann, "0") == "0"
    assert said(ann, held) == held
    assert "names 2 GPUs, and Slurm job 12 has 1 here" in said(ann, "0,1")
    assert "GPU-x is none of the GPUs of Slurm job 12" in said(ann, "GPU-x")
    assert "GPU-x is none" in said(ann, "0", CANHAZGPU_GPUS="GPU-x")
    assert "Slurm job 12 is another user's" in said(bob, "0")
    assert "\x1b" not in said(ann, "\x1b[2J,0")


def test_inside_a_job_other_gpus_are_taken_on_demand_alone(host: SharedHost) -> None:
    job = {"SLURM_JOB_ID": "12", "SLURMD_NODENAME": NODE, "CUDA_VISIBLE_DEVICES": ""}
    refused = host.call("reserve", "--gpus", "1", environ=job)
    assert refused.returncode == 2
    assert "inside Slurm job 12 this would take a GPU beside the job's" in refused.stderr
    assert all_free(host)
    for words in (
        ("run", "--outside-job", "--", "true"),
        ("reserve", "--outside-job", "--gpus", "1"),
    ):
        done = host.call(*words, environ=job)
        assert done.returncode == 0, done.stderr
    assert len(host.holders()) == 1
    host.call("release")


@pytest.mark.parametrize("bound", [["--timeout", "1s"], ["--end-if-lost"]])
def test_inside_a_job_nothing_is_promised_that_nobody_keeps(
    host: SharedHost, bound: list[str]
) -> None:
    job = {"SLURM_JOB_ID": "12", "SLURMD_NODENAME": NODE, "CUDA_VISIBLE_DEVICES": "GPU-a"}
    refused = host.call("run", *bound, "--", "true", environ=job)
    assert refused.returncode == 2
    assert f"the job bounds the command, not {bound[0]}" in refused.stderr


def test_the_working_directory_and_open_files_are_the_commands(
    host: SharedHost, tmp_path: Path
) -> None:
    read, write = os.pipe()
    script = f"pwd; echo through >&{write}"
    process = host.start("run", "--", "bash", "-c", script, cwd=str(tmp_path), pass_fds=(write,))
    os.close(write)
    out, _ = process.communicate(timeout=20)
    assert out.strip() == str(tmp_path)
    # The keeper has no copy: the end of the pipe is the command's end.
    assert os.read(read, 100) == b"through\n"
    assert os.read(read, 100) == b""
    os.close(read)


def test_a_run_outlives_the_terminal_if_its_command_does(host: SharedHost) -> None:
    # Given a command that ignores the loss of its terminal, in a session with one
    ready = host.outputs / "ready"
    command = ("nohup", "sh", "-c", f"touch {ready}; exec sleep 60")
    with host.on_terminal("run", "--", *command, cwd=host.outputs) as terminal:
        poll_until(ready.exists)
        owner = owner_of(host)
        # If the connection is lost
        terminal.hang_up()
        time.sleep(0.5)
        # I expect the run to go on, and its keeper too
        assert terminal.is_running()
        assert owner_of(host) == owner
    # until it is killed.
    poll_until(lambda: all_free(host))


def test_a_run_that_the_terminal_takes_along_frees_its_gpus(host: SharedHost) -> None:
    ready = host.outputs / "ready"
    script = f"touch {ready}; exec sleep 60"
    with host.on_terminal("run", "--", "sh", "-c", script) as terminal:
        poll_until(ready.exists)
        terminal.hang_up()
        assert terminal.wait_end() == -signal.SIGHUP
    poll_until(lambda: all_free(host))


def test_global_options_reach_the_keeper(host: SharedHost) -> None:
    # Given a heartbeat that only the command line sets
    process = host.start("--set", "run.heartbeat_s=0.1", "run", "--", "sleep", "60")
    poll_until(lambda: not all_free(host))

    def sign() -> float | None:
        (one,) = host.view().reservations.values()
        return one.renewed_at

    first = poll_until(sign)
    poll_until(lambda: (sign() or 0.0) > first, "another sign of life")
    assert process.poll() is None


def test_what_a_boot_before_this_one_left_is_free(host: SharedHost) -> None:
    from canhazgpu.gpu.scan import GpuReading, Scan
    from canhazgpu.ledger.port import Observation
    from canhazgpu.ledger.values import Claim
    from canhazgpu.node.processes import this_process

    claim = Claim("run:old", "run", "ann", 1, boot_id="a boot before", processes=(this_process(),))
    readings = tuple(GpuReading(i, u, i, "H100", 0, 1) for i, u in enumerate(host.uuids()))
    host.ledger().reserve_count(claim, 2, Observation(Scan(NODE, 0, 0, readings), 0.0))
    done = host.call("run", "--gpus", "2", "--nonblock", "--", "true")
    assert (done.returncode, done.stderr) == (0, "")


def test_affinity_gives_a_user_the_same_gpu_again(
    make_host: Callable[..., SharedHost], people: tuple[str, ...]
) -> None:
    host = make_host(3)
    chosen = {}
    for user in people[:2]:
        done = host.call("run", "--", "sh", "-c", SHOW, user=user)
        chosen[user] = done.stdout
        poll_until(lambda: all_free(host))
    again = host.call("run", "--choice", "affinity", "--", "sh", "-c", SHOW, user=people[0])
    assert again.stdout == chosen[people[0]]
    poll_until(lambda: all_free(host))
    host.configure(run={"choice": "affinity"})
    assert host.call("run", "--", "sh", "-c", SHOW, user=people[1]).stdout == chosen[people[1]]


def test_the_least_recently_used_comes_first(make_host: Callable[..., SharedHost]) -> None:
    host = make_host(3)
    seen = []
    for _ in range(4):
        seen.append(host.call("run", "--", "sh", "-c", SHOW).stdout.strip())
        poll_until(lambda: all_free(host))
    assert seen == [*host.uuids(), host.uuids()[0]]


def test_a_note_is_shown_to_everybody(host: SharedHost, people: tuple[str, ...]) -> None:
    host.start("run", "--note", "sweep 7", "--", "sleep", "60", user=people[0])
    poll_until(lambda: not all_free(host))
    shown = host.call("status", user=people[1]).stdout
    assert "sweep 7" in shown
    assert people[0] in shown
    assert "heartbeat" in shown


def test_a_process_of_the_run_is_no_intruder_and_anothers_is(
    host: SharedHost, people: tuple[str, ...]
) -> None:
    ready = host.outputs / "ready"
    host.start(
        *("run", "--", host.gpu_process, "--memory-mb", "4000", "--exec", "--"),
        *("sh", "-c", f"touch {ready}; exec sleep 60"),
        user=people[0],
    )
    poll_until(ready.exists)
    ((reserved, _),) = host.holders().items()
    gpu = next(gpu for gpu in host.node.gpus if gpu.uuid == reserved)
    row = next(line for line in host.call("status").stdout.splitlines() if people[0] in line)
    assert "4045MB, 1 processes" in row
    assert "WITHOUT RESERVATION" not in row
    with fake_nvml.start_gpu_process(gpu, 2000, user=people[1], name="rogue") as rogue:
        row = next(line for line in host.call("status").stdout.splitlines() if people[0] in line)
    assert f"{people[1]} WITHOUT RESERVATION: PID {rogue.pid} (rogue)" in row


def test_a_shell_that_outlived_its_job_gets_nobodys_gpu(
    host: SharedHost, people: tuple[str, ...]
) -> None:
    host.call("reserve", "--gpu-ids", "0", user=people[0])
    stale = {
        "SLURM_JOB_ID": "5",
        "SLURMD_NODENAME": NODE,
        "CUDA_VISIBLE_DEVICES": host.uuids()[0],
    }
    by_number = {**stale, "CUDA_VISIBLE_DEVICES": "0", "CANHAZGPU_GPUS": host.uuids()[0]}
    for environ in (stale, by_number):
        done = host.call("run", "--", "true", environ=environ)
        assert done.returncode == 2
        assert f"is reserved by {people[0]} (manual, expires in 7h 59m), not by Slurm job 5" in (
            done.stderr
        )


def test_any_operation_frees_what_the_dead_kept(host: SharedHost) -> None:
    process = started(host)
    owner = owner_of(host)
    os.kill(keeper_of(host, owner, process.pid), signal.SIGKILL)
    process.kill()
    process.wait()
    free = next(uuid for uuid in host.uuids() if uuid not in host.holders())
    assert host.call("reserve", "--gpu-ids", free, "--duration", "1h").returncode == 0
    assert {one.claim.type for one in host.view().reservations.values()} == {"manual"}
    assert set(host.holders()) == {free}
