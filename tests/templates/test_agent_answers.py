"""What the installed scripts do after each status of the client that asks the node's agent."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from canhazgpu.agent.hook_client import HANDLER_DEAD, NOT_SERVED, UNDECIDED
from canhazgpu.templates.slurm_files import HookSettings, hook_texts

HOOKS = {
    "prolog": ("prolog.d/canhazgpu.sh", "JobStart"),
    "epilog": ("epilog.d/canhazgpu.sh", "JobEnd"),
    "health_check": ("canhazgpu/health_check.sh", "Check"),
}
JOB_HOOKS = ("prolog", "epilog")
JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "0", "SLURMD_NODENAME": "n1"}
KILLED = -9
"""A client's status that stands for its death of SIGKILL."""


@dataclass(frozen=True, slots=True)
class Node:
    """Scripts whose Python runs `client`; what else they run is noted in `runs`, and succeeds."""

    directory: Path
    settings: HookSettings

    def client_ends_with(self, status: int, after_s: float = 0.0) -> None:
        """Have the client note its arguments, and end so."""
        end = "os.kill(os.getpid(), 9)" if status == KILLED else f"os._exit({status})"
        (self.directory / "client.py").write_text(
            "import os, sys, time\n"
            f"open({str(self.directory / 'asked')!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
            f"time.sleep({after_s})\n{end}\n"
        )

    def run(self, hook: str, *arguments: str, **environ: str) -> tuple[int, str]:
        script = self.directory / f"{hook}.sh"
        script.write_text(hook_texts(self.settings)[HOOKS[hook][0]])
        done = subprocess.run(
            ["/bin/sh", script, *arguments],
            env={**JOB, **environ},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == ""
        return done.returncode, done.stderr

    def runs(self) -> list[str]:
        path = self.directory / "runs"
        return path.read_text().splitlines() if path.exists() else []

    def asked(self) -> list[str]:
        path = self.directory / "asked"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    python = bin_directory / "python"
    runs = tmp_path / "runs"
    note = f'echo "own lost=${{HOOK_LOST_S-unset}}" >>"{runs}"'
    python.write_text(f'#!/bin/sh\n[ "$2" != -S ] || exec {sys.executable} "$@"\n{note}\n')
    program = bin_directory / "canhazgpu-healthcheck"
    program.write_text(f'#!/bin/sh\necho "program $*" >>"{runs}"\n')
    for path in (python, program):
        path.chmod(0o755)
    state_dir = tmp_path / "state"
    at = state_dir / "n1" / "agent" / "hooks.sock"
    at.parent.mkdir(parents=True)
    settings = HookSettings(
        python=str(python),
        client=str(tmp_path / "client.py"),
        config_file=None,
        state_dir=f"{state_dir}/%n",
        hook_deadline_s=45.0,
    )
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(at))
        yield Node(tmp_path, settings)


@pytest.mark.parametrize("hook", HOOKS)
def test_what_the_agent_has_done_is_not_done_again(node: Node, hook: str) -> None:
    node.client_ends_with(0)
    assert node.run(hook) == (0, "")
    assert node.runs() == []
    assert node.asked() == [f"{node.directory}/state/n1/agent/hooks.sock {HOOKS[hook][1]}"]


@pytest.mark.parametrize("hook", JOB_HOOKS)
def test_what_the_agent_has_not_begun_the_hook_does_as_its_first_run(node: Node, hook: str) -> None:
    node.client_ends_with(NOT_SERVED)
    assert node.run(hook) == (0, "")
    # Seconds that the clock went on meanwhile count; on a busy machine they are several.
    (run,) = node.runs()
    assert re.fullmatch(r"own lost=(unset|[1-9]\d*)", run)
    assert len(node.asked()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("hook", JOB_HOOKS)
def test_the_time_that_an_agent_took_for_nothing_is_the_hooks(node: Node, hook: str) -> None:
    node.client_ends_with(NOT_SERVED, after_s=1.1)
    assert node.run(hook) == (0, "")
    (run,) = node.runs()
    assert int(run.removeprefix("own lost=")) >= 1


@pytest.mark.parametrize("hook", JOB_HOOKS)
def test_what_died_in_the_agent_the_hook_does_as_its_second_run(node: Node, hook: str) -> None:
    node.client_ends_with(HANDLER_DEAD)
    assert node.run(hook) == (0, "")
    (run,) = node.runs()
    assert int(run.removeprefix("own lost=")) >= 0


@pytest.mark.parametrize(("hook", "own_runs"), [("prolog", 2), ("epilog", 1)])
def test_a_prolog_is_begun_three_times_at_most(node: Node, hook: str, own_runs: int) -> None:
    """By the agent, by the hook itself, and once more; each after the one before is dead."""
    node.client_ends_with(HANDLER_DEAD)
    python = Path(node.settings.python)
    python.write_text(python.read_text() + "kill -KILL $$\n")
    status, errors = node.run(hook)
    assert status == 0
    assert "(status 137)" in errors
    assert (len(node.asked()), len(node.runs())) == (1, own_runs)
    # All but the first know that something of theirs may be there already.
    assert all(run.removeprefix("own lost=").isdecimal() for run in node.runs())


@pytest.mark.parametrize("hook", JOB_HOOKS)
def test_what_may_still_be_under_way_is_not_done_twice(node: Node, hook: str) -> None:
    node.client_ends_with(UNDECIDED)
    status, errors = node.run(hook, SLURM_SCRIPT_CONTEXT=f"{hook}_slurmd")
    assert (status, node.runs()) == (0, [])
    assert "the agent's process for this hook neither answers nor ends" in errors
    assert "of job 7 " in errors


@pytest.mark.parametrize(("hook", "runs"), [("prolog", 1), ("epilog", 0)])
def test_a_client_that_is_killed_is_as_a_hook_that_is(node: Node, hook: str, runs: int) -> None:
    node.client_ends_with(KILLED)
    status, errors = node.run(hook)
    assert (status, len(node.runs())) == (0, runs)
    assert ("(status 137)" in errors) is (runs == 0)


@pytest.mark.parametrize("hook", JOB_HOOKS)
def test_a_status_of_the_hook_comes_through_the_agent(node: Node, hook: str) -> None:
    for status in (1, 2):
        node.client_ends_with(status)
        by_slurm = node.run(hook, SLURM_SCRIPT_CONTEXT=f"{hook}_slurmd")
        assert by_slurm[0] == 0 and f"(status {status})" in by_slurm[1]
    assert node.run(hook) == (2, "")
    assert node.runs() == []


@pytest.mark.parametrize("status", [NOT_SERVED, HANDLER_DEAD])
@pytest.mark.parametrize("arguments", [[], ["--exit-code"]])
def test_a_check_that_the_agent_did_not_make_is_made_here(
    node: Node, status: int, arguments: list[str]
) -> None:
    node.client_ends_with(status)
    assert node.run("health_check", *arguments) == (0, "")
    assert node.runs() == [" ".join(["program", *arguments]).ljust(len("program "))]


def test_a_check_that_may_still_be_under_way_is_not_made_twice(node: Node) -> None:
    node.client_ends_with(UNDECIDED)
    assert node.run("health_check") == (0, "")
    assert node.run("health_check", "--exit-code") == (1, "")
    assert node.runs() == []


@pytest.mark.parametrize(("arguments", "exits"), [([], 0), (["--exit-code"], 4)])
def test_a_checks_status_is_for_those_who_ask(node: Node, arguments: list[str], exits: int) -> None:
    node.client_ends_with(4)
    assert node.run("health_check", *arguments) == (exits, "")
    assert node.runs() == []


@pytest.mark.parametrize("hook", HOOKS)
def test_without_an_agent_nobody_is_asked(node: Node, hook: str) -> None:
    node.client_ends_with(0)
    elsewhere = replace(node.settings, state_dir=f"{node.directory}/none")
    assert Node(node.directory, elsewhere).run(hook) == (0, "")
    assert (len(node.runs()), node.asked()) == (1, [])
