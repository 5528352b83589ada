"""What the agents of a private cluster served, beside a count of the hooks that ran.

A hook that does its work itself looks as if its agent had answered; the counts tell them apart.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from hosts.running_agent import METHODS
from polling import poll_until
from process_details import open_files

from canhazgpu.agent.client import call
from canhazgpu.agent.wire import interface
from canhazgpu.errors import AgentError

# Beside canhazgpu's own script, and under the same conditions as it asks the agent.
COUNTER = """#!/bin/sh
record={state}/$SLURMD_NODENAME/jobs/$SLURM_JOB_ID
if [ -z "$SLURM_JOB_GPUS" ]; then
    [ {hook} = epilog ] || exit 0
    for file in "$record.json" "$record"@*.json; do [ -e "$file" ] && break; done
    [ -e "$file" ] || exit 0
fi
echo {hook} >>{counts}/$SLURMD_NODENAME
"""


class NodeAgents:
    """The agents of a cluster's nodes, whose directories of state are in `state`."""

    def __init__(self, state: Path, counts: Path) -> None:
        self._state = state
        self._counts = counts
        self._killed: list[tuple[str, str, int]] = []
        counts.mkdir()

    def install_counters(self, slurm_dir: Path) -> None:
        """Count the hooks that Slurm runs; its scripts run from z to a."""
        for hook in ("prolog", "epilog"):
            path = slurm_dir / f"{hook}.d" / "z-counter.sh"
            path.write_text(
                COUNTER.format(state=self._state, counts=self._counts, hook=hook), "utf-8"
            )
            path.chmod(0o755)

    def count(self, hook: str, node: str) -> None:
        """Count a hook that a test runs by hand."""
        with (self._counts / node).open("a") as stream:
            stream.write(f"{hook}\n")

    def counted(self, hook: str, program: Path) -> Path:
        """Return a script that counts the hook, and then is the program."""
        path = self._counts / f"{hook}.sh"
        counts = f"{self._counts}/$SLURMD_NODENAME"
        path.write_text(f"#!/bin/sh\necho {hook} >>{counts}\nexec {program}\n", "utf-8")
        path.chmod(0o755)
        return path

    def hooks_that_ran(self, node: str) -> dict[str, int]:
        """How often each kind of hook ran, by the method that serves it."""
        path = self._counts / node
        hooks = path.read_text().split() if path.exists() else []
        return dict(Counter(METHODS[hook] for hook in hooks))

    def status(self, node: str) -> dict[str, Any]:
        return call(self._state / node, interface.STATUS)

    def handlers(self, node: str) -> list[int]:
        """Return the pids of the agent's processes for requests, and of its scanner.

        There are none where no agent runs.
        """
        try:
            agent = self.status(node)["pid"]
            text = Path(f"/proc/{agent}/task/{agent}/children").read_text()
        except (AgentError, OSError):
            return []
        return [int(pid) for pid in text.split()]

    def handler(self, node: str, job: int) -> int:
        """Return the pid of the process that does a hook of the job now, 0 where none does."""
        name = f"/hook-locks/{job}.lock"
        return next((pid for pid in self.handlers(node) if has_open(pid, name)), 0)

    def kill_handler(self, node: str, hook: str, pid: int) -> None:
        """Kill the agent's process for a hook: the agent does not serve that one."""
        os.kill(pid, signal.SIGKILL)
        self._killed.append((node, METHODS[hook], pid))

    def assert_all_answered(self, node: str, *, has_timer: bool = False) -> None:
        """Fail where a hook did its work by itself, or an agent had a fault.

        With `has_timer` slurmd runs health checks, and the tests keep it from running hooks: what
        was answered cannot be counted.
        """
        poll_until(lambda: self.status(node)["children"] <= 0, f"the agent of {node} to be idle")
        shown = self.status(node)
        hooks = set(METHODS.values())
        served = {name: times for name, times in shown["served"].items() if name in hooks}
        ran = Counter(self.hooks_that_ran(node))
        killed = [(name, pid) for at, name, pid in self._killed if at == node]
        ran.subtract(name for name, _ in killed)
        if has_timer:
            assert served
        else:
            assert served == {name: times for name, times in ran.items() if times}
        faults = [one["text"].rpartition(".")[2] for one in shown["faults"]]
        assert faults == [f"{name} (PID {pid}) died of SIGKILL" for name, pid in killed], shown[
            "faults"
        ]


def has_open(pid: int, ending: str) -> bool:
    """Tell whether the process has a file open whose path ends so; one that has ended has none."""
    return any(one.endswith(ending) for one in open_files(pid))
