"""Who may have a job checked: the kernel and Slurm say it, the caller says nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hosts.running_agent import answered, run_hook
from polling import poll_until

from canhazgpu.agent.job_check_client import NO_AGENT
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import encode
from canhazgpu.conflict.checked_job import CheckedState

from .conftest import FREEZER, JOB, JobNode, client_path, opened

pytestmark = pytest.mark.slow
CHECKED, LEFT, SENT_BACK, REFUSED = (int(state) for state in CheckedState)
CALL = encode({"method": interface.CHECK_JOB})


def confirm(nonce: str) -> bytes:
    return encode({"method": interface.CONFIRM, "parameters": {"nonce": nonce}})


def asked(node: JobNode, call: bytes = CALL) -> tuple[socket.socket, str]:
    """A connection whose request is ready, and the number to confirm it with."""
    connection = opened(node.agent.people_socket)
    connection.sendall(call)
    return connection, answered(connection)["parameters"]["nonce"]


def test_the_user_of_the_job_has_it_checked(job_node: JobNode) -> None:
    done = job_node.ask()

    assert (done.returncode, done.stdout, done.stderr) == (CHECKED, "", "")
    record = job_node.record()
    assert record is not None and len(record.gpus) == 2
    assert job_node.holders() == dict.fromkeys((one.uuid for one in record.gpus), "job:c1:12:0")
    # Once for each job: the next task is told so, and nothing is done again.
    before = (job_node.agent.state_dir / "jobs" / "12.json").stat().st_ino
    assert job_node.ask().returncode == CHECKED
    assert (job_node.agent.state_dir / "jobs" / "12.json").stat().st_ino == before
    poll_until(lambda: job_node.agent.served("CheckJob") == 2)


@pytest.mark.parametrize("job_node", ["slurm"], indirect=True)
def test_the_gpus_are_those_that_slurm_names(job_node: JobNode) -> None:
    job_node.ask()
    assert set(job_node.holders()) == {job_node.uuid_of_position(place) for place in (1, 2)}


def test_without_control_groups_slurmd_says_which_job_a_process_is_in(job_node: JobNode) -> None:
    def ask() -> object:
        connection, nonce = asked(job_node)
        job_node.listed_pids(os.getpid())
        connection.sendall(confirm(nonce))
        return answered(connection)["parameters"]["status"]

    (job_node.files / "pids").chmod(0o666)
    assert job_node.as_user(job_node.users[0], ask, FREEZER) == str(CHECKED)
    job_node.listed_pids(1)
    assert job_node.as_user(job_node.users[0], lambda: ask_again(job_node), FREEZER) == str(REFUSED)


def ask_again(node: JobNode) -> object:
    connection, nonce = asked(node)
    connection.sendall(confirm(nonce))
    return answered(connection)["parameters"]["status"]


def test_another_user_in_the_jobs_group_is_refused(job_node: JobNode) -> None:
    assert job_node.ask(job_node.users[1]).returncode == REFUSED
    # Nor does root, who is no user of the job.
    assert job_node.ask("root").returncode == REFUSED
    job_node.assert_nothing_granted()


def test_a_process_in_no_job_is_refused(job_node: JobNode) -> None:
    assert job_node.ask(group=FREEZER).returncode == REFUSED
    job_node.assert_nothing_granted()


def test_a_group_that_only_looks_like_a_jobs_is_none(job_node: JobNode) -> None:
    own = job_node.group.parents[3] / "delegated" / "slurm_n1" / "uid_1" / f"job_{JOB}"
    own.mkdir(parents=True)
    assert job_node.ask(group=own).returncode == REFUSED
    job_node.assert_nothing_granted()


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"state": "COMPLETED"}, SENT_BACK),
        ({"state": "COMPLETING"}, SENT_BACK),
        ({"state": "PENDING"}, SENT_BACK),
        ({"job": "13"}, REFUSED),
        ({"comment": "x\n12 0 root RUNNING 0 main 1 2 x"}, REFUSED),
    ],
    ids=["ended", "in its epilog", "requeued", "unknown", "a comment like another line"],
)
def test_a_job_that_does_not_run_gets_nothing(
    job_node: JobNode, changes: dict[str, Any], status: int
) -> None:
    job_node.job(**changes)
    assert job_node.ask().returncode == status
    job_node.assert_nothing_granted()


def test_a_slurm_that_does_not_answer_is_no_permission(job_node: JobNode) -> None:
    (job_node.files / "bin" / "squeue").write_text("#!/bin/sh\necho 'no controller' >&2\nexit 1\n")
    done = job_node.ask()
    assert done.returncode == REFUSED and "no controller" in done.stdout
    job_node.assert_nothing_granted()


def test_nothing_that_the_caller_sends_counts(job_node: JobNode) -> None:
    said = {"SLURM_JOB_ID": "99", "SLURM_CONF": "/evil", "SLURM_JOB_UID": "0", "LD_PRELOAD": "x"}
    call = encode({"method": interface.CHECK_JOB, "parameters": {"environment": said, "job": 99}})

    def ask() -> object:
        connection, nonce = asked(job_node, call)
        connection.sendall(confirm(nonce))
        return answered(connection)["parameters"]["status"]

    assert job_node.as_user(job_node.users[0], ask) == str(CHECKED)
    assert set(job_node.holders().values()) == {"job:c1:12:0"}


def in_child(work: Callable[[], None]) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("ends", [False, True], ids=["beside it", "after its end"])
def test_a_connection_that_was_passed_on_confirms_nothing(job_node: JobNode, ends: bool) -> None:
    """Whoever gets it: the kernel names the sender of each message."""

    def pass_on() -> object:
        connection, nonce = asked(job_node)
        if not ends:
            in_child(lambda: connection.sendall(confirm(nonce)))
            return answered(connection)
        ours, theirs = socket.socketpair()
        if os.fork():
            return None  # the process that connected ends now
        theirs.close()
        assert ours.recv(1) == b""
        connection.sendall(confirm(nonce))
        os._exit(0)

    said = job_node.as_user(job_node.users[0], pass_on)
    assert said in ("{}", "null")
    job_node.assert_nothing_granted()


def test_a_connection_whose_process_has_ended_asks_nothing(job_node: JobNode) -> None:
    def connect_and_end() -> object:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            connection = opened(job_node.agent.people_socket)
            if os.fork():
                os._exit(0)
            # Here is a child of the process that connected, and that one has ended.
            theirs.recv(1)
            connection.sendall(CALL)
            theirs.send(json.dumps(answered(connection)).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        ours.send(b"x")
        return ours.recv(4096).decode()

    said = job_node.as_user(job_node.users[0], connect_and_end)
    assert interface.NOT_PERMITTED in said
    job_node.assert_nothing_granted()


@pytest.mark.parametrize("nonce", ["", "0" * 32])
def test_a_wrong_number_confirms_nothing(job_node: JobNode, nonce: str) -> None:
    def ask() -> object:
        connection, _ = asked(job_node)
        connection.sendall(confirm(nonce))
        return answered(connection)

    assert "OutOfTurn" in job_node.as_user(job_node.users[0], ask)
    # Nor does one that was sent before there was a number.
    early = CALL + encode({"method": interface.CONFIRM})
    said = job_node.as_user(job_node.users[0], lambda: list(asked(job_node, early)[1:]))
    assert "nonce" not in said
    job_node.assert_nothing_granted()


def test_a_thousand_connections_of_one_user_cost_nobody_else(job_node: JobNode) -> None:
    def connect_often() -> object:
        held = []
        for _ in range(1000):
            with contextlib.suppress(BlockingIOError):
                held.append(opened(job_node.agent.people_socket))
        # While they are held: a hook, and the check of another user's job.
        hook = run_hook_as_root()
        return [len(held) > 3, hook]

    ours, theirs = socket.socketpair()

    def run_hook_as_root() -> str:
        theirs.send(b"x")
        return theirs.recv(100).decode()

    pid = os.fork()
    if pid == 0:
        ours.recv(1)
        done = run_hook(job_node.agent, "prolog", {"SLURM_JOB_ID": "x"})
        asked_job = job_node.ask()
        ours.send(f"{done.returncode} {asked_job.returncode}".encode())
        os._exit(0)
    with ours, theirs:
        said = job_node.as_user(job_node.users[1], connect_often, FREEZER)
    os.waitpid(pid, 0)
    assert json.loads(said) == [True, f"2 {CHECKED}"]


def test_the_client_waits_while_its_user_has_too_many_requests(job_node: JobNode) -> None:
    """Those that send nothing are cut off, and then it is served."""

    def ask() -> object:
        held = [opened(job_node.agent.people_socket) for _ in range(3)]
        status = os.waitstatus_to_exitcode(os.system(client))
        return [status, [answered(one) for one in held]]

    client = shlex.join(
        [sys.executable, "-I", "-S", client_path(), str(job_node.agent.people_socket)]
    )
    assert json.loads(job_node.as_user(job_node.users[0], ask)) == [CHECKED, [{}, {}, {}]]


def test_a_caller_that_does_not_confirm_is_cut_off(job_node: JobNode) -> None:
    def ask() -> object:
        connection, _ = asked(job_node)
        return answered(connection)

    assert job_node.as_user(job_node.users[0], ask) == "{}"
    job_node.assert_nothing_granted()


@pytest.mark.parametrize("owner", ["own directory", "everybody's directory"])
def test_the_client_asks_no_socket_of_an_ordinary_user(job_node: JobNode, owner: str) -> None:
    directory = job_node.files / "place"
    directory.mkdir()
    if owner == "own directory":
        os.chown(directory, 1234, 1234)
    else:
        directory.chmod(0o1777)
    path = directory / "agent.sock"

    def listen_and_ask() -> object:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen()
        return os.waitstatus_to_exitcode(os.system(f"{client} {path}"))

    client = shlex.join([sys.executable, "-I", "-S", client_path()])
    if owner == "own directory":
        directory.chmod(0o777)
    assert job_node.as_user(job_node.users[1], listen_and_ask) == str(NO_AGENT)
