"""Handlers of the agent that get no CPU or are stopped, over a store that answers.

Whatever becomes of them, the hook's script ends with its job's GPUs reserved or released, once, and
the store is never taken for lost.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hook_jobs import (
    assert_never_alone,
    assert_one_owner_at_a_time,
    job_variables,
    owners_in_book,
)
from hosts.running_agent import RunningAgent, hook_client
from hosts.stopped_steps import stop_at
from polling import poll_until

from canhazgpu.templates.slurm_files import HookSettings, render_file

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("node", ["canhazgpu"], indirect=True)]

TIMEOUT_S = 120.0

STEPS = [
    ("canhazgpu.schedulers.slurm.hook.startup.load", 1, "before"),
    ("canhazgpu.schedulers.slurm.hook.node_context.node_ledger", 1, "after"),
    ("socket:socket.connect", 1, "before"),
    ("socket:socket.connect", 2, "after"),
    *(("socket:socket.sendall", call, when) for call in (1, 2, 3) for when in ("before", "after")),
    *(
        ("canhazgpu.ledger.local.book.book_file:BookFile.open", call, "before")
        for call in (1, 2, 3)
    ),
]


@pytest.fixture
def changes() -> str:
    """What is changed in the agent: nothing."""
    return ""


@pytest.fixture
def way(tmp_path: Path, changes: str) -> Iterator[RunningAgent]:
    if os.geteuid() != 0:
        pytest.skip("only root may run an agent")
    with RunningAgent(tmp_path / "agent", changes=changes) as agent:
        yield agent


@pytest.fixture
def alone(node: Any) -> Iterator[Any]:
    """The node; whatever is done with it, no hook takes the store for lost."""
    yield node
    assert_never_alone(node)


def start_script(node: Any, hook: str, **variables: str) -> subprocess.Popen[bytes]:
    """Start the hook's script, as slurmd does."""
    settings = HookSettings(
        python=sys.executable,
        client=hook_client(),
        config_file=str(node.files / "config.toml"),
        state_dir=str(node.agent.state_dir),
        hook_deadline_s=45.0,
    )
    script = node.files / f"{hook}.sh"
    script.write_text(render_file(script.name, settings))
    return subprocess.Popen(
        ["/bin/sh", str(script)],
        env=node.environ(SLURM_SCRIPT_CONTEXT=f"{hook}_slurmd", **variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for_stopped(agent: RunningAgent, script: subprocess.Popen[bytes]) -> list[int]:
    """Return the handlers that are stopped; none where the script ended without one."""
    found: list[int] = []

    def has_stopped_or_ended() -> bool:
        found.extend(pid for pid in agent.children() if state_of(pid) == "T")
        return bool(found) or script.poll() is not None

    poll_until(has_stopped_or_ended)
    return found


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def assert_held_by(node: Any, owners: set[str]) -> None:
    assert set(node.owners_by_gpu().values()) == owners
    assert owners_in_book(node) == node.owners_by_gpu()


@pytest.mark.parametrize(
    ("changes", "goes_on"),
    [
        pytest.param(
            stop_at(step, call, when),
            goes_on,
            id=f"{step}-{call}-{when}-{'goes-on' if goes_on else 'stays-stopped'}",
        )
        for step, call, when in STEPS
        for goes_on in (False, True)
        if not goes_on or call == 2
    ],
)
def test_one_that_is_stopped_at_a_step_takes_nothing_with_it(alone: Any, goes_on: bool) -> None:
    for hook, owners in (("prolog", {"job:c1:12:0"}), ("epilog", set())):
        script = start_script(alone, hook)
        for pid in wait_for_stopped(alone.agent, script):
            if goes_on:
                os.kill(pid, signal.SIGCONT)
        assert script.wait(TIMEOUT_S) == 0
        assert_held_by(alone, owners)


def test_eight_prologs_on_one_cpu_beside_runs_for_all_gpus(alone: Any) -> None:
    for index in range(4, 8):
        alone.state.node("n1").add_gpu(index, name="H100", memory_total_mb=81559, minor=index)
    cpus = {min(os.sched_getaffinity(0))}
    os.sched_setaffinity(alone.agent.process.pid, cpus)
    person = {name: text for name, text in alone.environ().items() if "SLURM_JOB" not in name}
    program = "from canhazgpu.cli.entry import main; main()"
    run = [program, "run", "--gpus", "8", "--wait", "1s", "--", "true"]

    def start_run() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", "-c", *run],
            env=person,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    started = [
        start_run(),
        *(start_script(alone, "prolog", **job_variables(number, "0")) for number in range(1, 9)),
        start_run(),
    ]
    for process in started:
        os.sched_setaffinity(process.pid, cpus)
    for process in started:
        process.wait(TIMEOUT_S)

    assert owners_in_book(alone).items() >= alone.owners_by_gpu().items()
    assert_one_owner_at_a_time(alone)
    assert any(owner.startswith("job:") for owner in alone.owners_by_gpu().values())
