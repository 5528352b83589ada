"""Hooks that get no CPU, or are stopped, over a store that answers: never do they decide alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hook_jobs import (
    assert_never_alone,
    assert_one_owner_at_a_time,
    job_variables,
    owners_in_book,
)
from hosts.stopped_steps import stop_at

pytestmark = pytest.mark.slow

DELAY_S = 5.0
"""Longer than a hook waits for a store that does not answer."""
TIMEOUT_S = 120.0

DELAYED_IMPORT = """
import sys, time
class Delay:
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            time.sleep({delay_s})
sys.meta_path.insert(0, Delay)
from canhazgpu.{hook}.main import main
main()
"""

RUN_HOOK = """
from canhazgpu.{hook}.main import main
main()
"""

STEPS = [
    ("canhazgpu.schedulers.slurm.hook.startup.load", 1, "before"),
    ("canhazgpu.probe.node_probe:NodeProbe.start", 1, "after"),
    ("canhazgpu.schedulers.slurm.hook.run.open_job_hook", 1, "before"),
    ("canhazgpu.schedulers.slurm.hook.node_context.node_ledger", 1, "after"),
    ("socket:socket.connect", 1, "before"),
    ("socket:socket.connect", 1, "after"),
    *(("socket:socket.sendall", call, when) for call in (1, 2, 3) for when in ("before", "after")),
    *(
        ("canhazgpu.ledger.local.book.book_file:BookFile.open", call, "before")
        for call in (1, 2, 3, 4)
    ),
]


@pytest.fixture
def alone(node: Any) -> Iterator[Any]:
    """The node; whatever is done with it, no hook takes the store for lost."""
    yield node
    assert_never_alone(node)


def start(node: Any, program: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", "-c", program],
        env=node.environ(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def expect_end(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, output) == (0, "")


@pytest.mark.parametrize("node", ["slurm"], indirect=True)
@pytest.mark.parametrize(
    "module", ["redis", "asyncio.base_events", "tomllib", "canhazgpu.ledger.store.client"]
)
def test_imports_take_none_of_the_stores_time(alone: Any, module: str) -> None:
    for hook in ("prolog", "epilog"):
        program = DELAYED_IMPORT.format(module=module, delay_s=DELAY_S, hook=hook)
        expect_end(start(alone, program))
        held = {"job:c1:12:0"} if hook == "prolog" else set()
        assert set(alone.owners_by_gpu().values()) == held
        assert owners_in_book(alone) == alone.owners_by_gpu()


@pytest.mark.parametrize("node", ["slurm"], indirect=True)
@pytest.mark.parametrize(("step", "call", "when"), STEPS)
def test_a_hook_that_is_stopped_at_a_step_hears_the_store(
    alone: Any, step: str, call: int, when: str
) -> None:
    for hook in ("prolog", "epilog"):
        process = start(alone, stop_at(step, call, when) + RUN_HOOK.format(hook=hook))
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), (process.communicate(timeout=TIMEOUT_S), hook)
        time.sleep(DELAY_S)
        os.kill(process.pid, signal.SIGCONT)
        expect_end(process)
        held = {"job:c1:12:0"} if hook == "prolog" else set()
        assert set(alone.owners_by_gpu().values()) == held
        assert owners_in_book(alone) == alone.owners_by_gpu()


@pytest.mark.parametrize("node", ["canhazgpu"], indirect=True)
def test_eight_prologs_on_one_cpu_beside_runs_for_all_gpus(alone: Any) -> None:
    for index in range(4, 8):
        alone.state.node("n1").add_gpu(index, name="H100", memory_total_mb=81559, minor=index)
    cpu = str(min(os.sched_getaffinity(0)))
    program = "from canhazgpu.{} import main; main()"
    hook, command = program.format("prolog.main"), program.format("cli.entry")
    person = {name: text for name, text in alone.environ().items() if "SLURM_JOB" not in name}
    run = [command, "run", "--gpus", "8", "--wait", "1s", "--", "true"]
    started = [
        subprocess.Popen(
            ["taskset", "-c", cpu, sys.executable, "-I", "-c", *arguments],
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for arguments, environ in [
            (run, person),
            *(([hook], alone.environ(**job_variables(number, "0"))) for number in range(1, 9)),
            (run, person),
        ]
    ]
    for process in started:
        process.wait(TIMEOUT_S)
    assert owners_in_book(alone).items() >= alone.owners_by_gpu().items()
    assert_one_owner_at_a_time(alone)
    assert any(owner.startswith("job:") for owner in alone.owners_by_gpu().values())
