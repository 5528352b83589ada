"""An agent without processes or memory, and a handler that hangs: the hook's work is done once.

The hook's script runs as slurmd runs it, so that what the agent does not do is done by the hook.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts.running_agent import RunningAgent, hook_client, is_alive, waits_for_request
from polling import poll_until

from canhazgpu.agent.socket_files import short_address
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import decode, encode
from canhazgpu.templates.slurm_files import HookSettings, hook_texts

PIDS = Path("/sys/fs/cgroup/pids")
JOB = "job:c1:12:0"


class Host:
    """A node whose hooks' scripts ask an agent of their own."""

    def __init__(self, node: Any, agent: RunningAgent, directory: Path) -> None:
        self.node = node
        self.agent = agent
        self._settings = HookSettings(
            python=sys.executable,
            client=hook_client(),
            config_file=str(node.files / "config.toml"),
            state_dir=str(agent.state_dir),
            hook_deadline_s=45.0,
        )
        self._directory = directory

    def run(self, hook: str, **variables: str) -> str:
        """Run the script; it must not make slurmd drain the node. Returns what it says."""
        path = self._directory / f"{hook}.sh"
        path.write_text(hook_texts(self._settings)[f"{hook}.d/canhazgpu.sh"])
        done = subprocess.run(
            ["/bin/sh", path],
            env=self.node.environ(SLURM_SCRIPT_CONTEXT=f"{hook}_slurmd", **variables),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0
        return done.stderr

    def faults(self) -> list[str]:
        return [one["text"] for one in self.agent.status()["faults"]]

    def assert_job_has_its_gpus(self) -> None:
        owners = self.node.owners_by_gpu()
        assert len(owners) == 2
        assert set(owners.values()) == {JOB}
        assert self.node.record_files() == {"12.json", "12.env"}
        # Never twice: what was granted before was released before.
        assert self.grants_of(JOB) == 2

    def grants_of(self, owner: str) -> int:
        """How many GPUs were granted to the owner and not released, by the store's history."""
        kinds = [
            one.kind
            for one in self.node.ledger.history("n1", 0.0)
            if one.claim is not None and one.claim.owner == owner
        ]
        return kinds.count("grant") - kinds.count("release")

    def assert_agent_serves(self) -> None:
        """The next request is carried out by the agent."""
        before = self.agent.served("JobEnd")
        assert self.run("epilog") == ""
        # It is counted when the handler's end is seen, a moment after the answer.
        poll_until(lambda: self.agent.served("JobEnd") == before + 1)
        assert self.node.owners_by_gpu() == {}


pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize("node", ["slurm"], indirect=True),
]


@pytest.fixture
def host(node: Any, tmp_path: Path) -> Iterator[Host]:
    """The node of an agent; its hooks ask another, which the test may harm."""
    node.slurm(
        squeue='case $* in *--nodelist*) ;; *) for l; do :; done; echo "$l $l RUNNING" ;; esac'
    )
    with RunningAgent(tmp_path / "limits", agent={"driver_idle_s": 600.0}) as agent:
        yield Host(node, agent, tmp_path)


@contextlib.contextmanager
def few_processes(pid: int) -> Iterator[None]:
    """Let this process start no other, by its control group."""
    group = PIDS / f"chg-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("this machine has no control group for processes")
    try:
        (group / "cgroup.procs").write_text(str(pid))
        (group / "pids.max").write_text("1")
        yield
    finally:
        (PIDS / "cgroup.procs").write_text(str(pid))
        poll_until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def end_children(agent: RunningAgent) -> None:
    """End what it started before, which its limit does not concern or which has one of its own."""

    def ended() -> bool:
        for pid in agent.all_children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not agent.all_children()

    poll_until(ended)


@pytest.mark.may_skip(reason="needs the control group of processes, version 1")
def test_an_agent_that_can_start_no_process_has_the_hook_do_it(host: Host) -> None:
    with few_processes(host.agent.process.pid):
        end_children(host.agent)
        assert host.run("prolog") == ""
        host.assert_job_has_its_gpus()
    assert host.agent.served("JobStart") == 0
    assert "cannot start a process: Resource temporarily unavailable" in host.faults()
    host.assert_agent_serves()


@contextlib.contextmanager
def little_memory(pid: int, more_bytes: int) -> Iterator[None]:
    """Let this process, and those that it starts, have so much more memory and no more."""
    status = Path(f"/proc/{pid}/status").read_text()
    size = 1024 * int(status.split("VmSize:")[1].split()[0])
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (size + more_bytes, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, before)


def limited_after_ending_the_spare(agent: RunningAgent) -> list[int]:
    """Return the agent's processes that were forked under a limit, which they keep.

    Those that wait for a request are ended; others end, or come to wait.
    """
    limited = []
    for pid in agent.all_children():
        with contextlib.suppress(ProcessLookupError):
            usual = resource.prlimit(agent.process.pid, resource.RLIMIT_AS)
            if resource.prlimit(pid, resource.RLIMIT_AS) != usual:
                limited.append(pid)
                if waits_for_request(pid):
                    os.kill(pid, signal.SIGKILL)
    return limited


@pytest.mark.parametrize("more_kb", [0, 64, 256, 1024, 4096])
def test_without_memory_a_job_has_its_gpus_or_is_sent_back(host: Host, more_kb: int) -> None:
    """Wherever it fails: in the agent, in a handler before it is ready, or when it has begun."""
    # Given a scanner that has its memory
    host.run("prolog")
    host.assert_agent_serves()
    with little_memory(host.agent.process.pid, more_kb * 1024):
        said = host.run("prolog", SLURM_JOB_ID="13")
    poll_until(lambda: not limited_after_ending_the_spare(host.agent))
    orders = host.node.scheduler_orders()
    if orders:
        assert orders[-1] == "scontrol requeue 13"
        assert "MemoryError" in said + host.node.log()
    else:
        assert set(host.node.owners_by_gpu().values()) == {"job:c1:13:0"}
    assert host.grants_of("job:c1:13:0") == len(host.node.owners_by_gpu()) == (0 if orders else 2)
    host.run("epilog", SLURM_JOB_ID="13")
    # The agent lives, and the next job is served.
    host.assert_agent_serves()
    served = host.agent.served("JobStart")
    host.run("prolog")
    host.assert_job_has_its_gpus()
    poll_until(lambda: host.agent.served("JobStart") == served + 1)
    host.assert_agent_serves()


def test_a_handler_that_is_over_its_time_is_killed_and_its_hook_goes_on(host: Host) -> None:
    """Nobody waits for it here: its client, too, kills a handler that is stopped."""
    host.node.configure(slurm={"hook_deadline_s": 1.0, "command_timeout_s": 1.0})
    environ = host.node.environ()
    job = encode({"method": interface.JOB_START, "parameters": {"environment": environ}})
    with socket.socket(socket.AF_UNIX) as client:
        with short_address(host.agent.hooks_socket) as address:
            client.connect(address)
        client.sendall(job)
        ready = decode(client.recv(65536).rstrip(b"\0"))["parameters"]
        handler = ready["pid"]
        # Given a handler that does nothing from the moment on in which it may begin
        os.kill(handler, signal.SIGSTOP)
        client.sendall(encode({"method": interface.CONFIRM}))
        poll_until(lambda: not is_alive(handler))
        # Its socket is closed; what it had not read is lost with it.
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(65536) == b""
    assert host.node.owners_by_gpu() == {}
    assert any("JobStart" in one and "did not end within its time" in one for one in host.faults())
    host.node.configure(slurm={"hook_deadline_s": 45.0, "command_timeout_s": 10.0})
    host.run("prolog", HOOK_LOST_S="1")
    host.assert_job_has_its_gpus()
    host.assert_agent_serves()
