#!/usr/bin/python3
"""Time what people's commands take over simulated GPUs, with the node's agent and without it.

    run_time.py [--rounds N] [--slow-rounds N] [--runs N...] [--kept N] [--json] VENV

VENV has canhazgpu installed, and a Redis server is on the path. Root is needed for the rows of the
agent; commands are then an ordinary user's, who has to be able to execute what is in VENV. Rows
that are compared are taken in turn within each round, so that a slow moment of the machine hits all
of them alike.

    status, run          one command, from its start to its end: wall time, CPU time of client and
                         agent together, and the ratio to `python3 -I -c pass`; what a process used
                         that watches a run without an agent is not in it
    so many runs         of 50 ms, started at once on 8 GPUs, until the last one has ended
    memory               of all processes that watch so many runs, above an idle host's (PSS)
    from the end ...     from the end of who has all GPUs to the start of who waits
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from people_host import Host

GPUS = 8
DEFAULT_ROUNDS = 20
DEFAULT_SLOW_ROUNDS = 3
"""Of the rows that take seconds."""
BURST_GOALS_S = {16: 1.5, 48: 4.5}
"""Within how many seconds so many runs at once are to end."""
GOALS = {"status, agent": 5.0, "run --gpus 1 -- true, agent": 7.0}
"""Ratios to bare Python."""
KEPT_RUNS, KEPT_GOAL_MIB = 48, 48.0
COMMANDS = "commands, ms"
BARE, AGENT, DIRECT = "python3 -I -c pass", "agent", "no agent"
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""The hosts' files are in memory, as those below /run are; None for the usual directory."""
SETTLE_S = 0.02
"""Time for the agent's processes to end: their CPU time counts for the row."""
IDLE_S = 2.0
"""Time for handlers to end before memory is counted."""
END_S = 120.0
Values = dict[str, list[tuple[float, float]]]
"""Of each row what was measured, and either milliseconds of CPU time or how many failed."""
Found = dict[str, Values]


@dataclass(frozen=True, slots=True)
class Extent:
    """How often is measured, and with how many runs."""

    rounds: int
    slow_rounds: int
    bursts: tuple[int, ...]
    kept: int


def main(venv: Path, extent: Extent) -> Found:
    """Return all that was measured."""
    names = (AGENT, DIRECT) if os.geteuid() == 0 else (DIRECT,)
    with ExitStack() as ends:
        directory = Path(ends.enter_context(tempfile.TemporaryDirectory(dir=MEMORY)))
        directory.chmod(0o755)
        hosts = {name: started(ends, directory, venv, name, GPUS) for name in names}
        found = {COMMANDS: command_times(hosts, extent.rounds)}
        for count in extent.bursts:
            row = f"{count} runs of 50 ms on {GPUS} GPUs, s"
            found[row] = measured(hosts, partial(burst, count=count), extent.slow_rounds)
        for end in ("command", "both"):
            row = f"from the end of the {end} to the next, ms"
            found[row] = measured(hosts, partial(handover_ms, end=end), extent.slow_rounds)
        wide = {name: started(ends, directory, venv, name, extent.kept) for name in names}
        row = f"memory for {extent.kept} runs, MiB"
        found[row] = measured(wide, partial(kept_mib, count=extent.kept), 1)
    return found


def started(ends: ExitStack, directory: Path, venv: Path, name: str, gpus: int) -> Host:
    """Start a host that ends with all the others."""
    root = directory / f"{name.replace(' ', '-')}-{gpus}"
    host = Host(root, venv, gpus, has_agent=name == AGENT)
    ends.callback(host.stop)
    return host


def command_times(hosts: dict[str, Host], rounds: int) -> Values:
    """Return the milliseconds of wall time and of CPU time of each command, by its row."""
    any_host = next(iter(hosts.values()))
    program = str(any_host.program)
    rows = {
        BARE: (any_host, [str(any_host.python), "-I", "-c", "pass"]),
        "--version": (any_host, [program, "--version"]),
    }
    for name, host in hosts.items():
        rows[f"status, {name}"] = (host, [program, "status"])
        rows[f"run --gpus 1 -- true, {name}"] = (
            host,
            [program, "run", "--gpus", "1", "--", "true"],
        )
    found: Values = {name: [] for name in rows}
    for turn in range(rounds + 1):
        for name, (host, command) in rows.items():
            took = command_ms(host, command)
            if turn > 0:  # the first round opens the driver
                found[name].append(took)
    return found


def command_ms(host: Host, command: list[str]) -> tuple[float, float]:
    """Return the milliseconds of wall time and of CPU time of one command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    agent_before_s = host.agent_cpu_s()
    began = time.perf_counter()
    # No timeout: subprocess would look for the end every 50 ms only.
    status = host.start_command(command).wait()
    wall_s = time.perf_counter() - began
    if status != 0:
        raise RuntimeError(f"{command} ended with {status}")
    time.sleep(SETTLE_S)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return wall_s * 1000, (cpu_s + host.agent_cpu_s() - agent_before_s) * 1000


def measured(
    hosts: dict[str, Host], act: Callable[[Host], tuple[float, int]], rounds: int
) -> Values:
    """Return what `act` gives for each host, in turn."""
    found: Values = {name: [] for name in hosts}
    for _ in range(rounds):
        for name, host in hosts.items():
            found[name].append(act(host))
    return found


def burst(host: Host, count: int) -> tuple[float, int]:
    """Return the seconds that so many short runs at once take together, and how many failed."""
    began = time.perf_counter()
    runs = [host.start("--", "sleep", "0.05") for _ in range(count)]
    for run in runs:
        run.communicate(timeout=END_S)
    return time.perf_counter() - began, sum(run.returncode != 0 for run in runs)


def kept_mib(host: Host, count: int) -> tuple[float, int]:
    """Return the MiB that so many runs keep beside their commands, and how many had not begun."""
    host.start_command([str(host.program), "status"]).wait()
    time.sleep(IDLE_S)
    before = host.kept_mib()
    runs = [host.start("--", "sh", "-c", "echo up; exec sleep 600") for _ in range(count)]
    begun = sum(run.stdout is not None and run.stdout.readline() == b"up\n" for run in runs)
    time.sleep(IDLE_S)
    kept = host.kept_mib() - before
    for run in runs:
        run.kill()
        run.communicate(timeout=END_S)
    return kept, count - begun


def handover_ms(host: Host, end: str) -> tuple[float, int]:
    """Return the milliseconds from the end of who has all GPUs to the start of who waits.

    `end` is ``command`` for the command's end, or ``both`` for killing first what watches it where
    there is no agent. The second value is 0.
    """
    busy = host.start("--gpus", str(GPUS), "--", "sh", "-c", "echo up; exec sleep 60")
    assert busy.stdout is not None
    busy.stdout.readline()
    late = host.start("--gpus", str(GPUS), "--", "sh", "-c", "echo up")
    assert late.stdout is not None
    time.sleep(1.0)
    if end == "both":
        for pid in host.keepers():
            os.kill(pid, 9)
    began = time.perf_counter()
    busy.kill()
    late.stdout.readline()
    took = (time.perf_counter() - began) * 1000
    for one in (busy, late):
        one.communicate(timeout=END_S)
    return took, 0


def show(found: Found) -> None:
    """Print a table: medians, what 99 % are below, CPU time, and the ratio to bare Python."""
    show_commands(found.pop(COMMANDS))
    goals = {f"{count} runs of": goal for count, goal in BURST_GOALS_S.items()}
    goals[f"memory for {KEPT_RUNS} runs"] = KEPT_GOAL_MIB
    for row, by_host in found.items():
        goal = next((goal for start, goal in goals.items() if row.startswith(start)), None)
        for name, values in by_host.items():
            median = statistics.median(value for value, _ in values)
            failed = int(sum(count for _, count in values))
            bad = f", {failed} FAILED" if failed else ""
            wanted = aim(goal) if name == AGENT else ""
            print(f"{f'{row}, {name}':54} {median:8.2f}{bad}{wanted}")


def show_commands(commands: Values) -> None:
    """Print the rows of single commands."""
    bare = statistics.median(wall for wall, _ in commands[BARE])
    for name, values in commands.items():
        walls = sorted(wall for wall, _ in values)
        median, p99 = statistics.median(walls), walls[int(len(walls) * 0.99)]
        cpu = statistics.mean(cpu for _, cpu in values)
        print(
            f"{name:32} {median:8.1f} ms (p99 {p99:8.1f})  {median / bare:5.1f} x bare"
            f"  {cpu:7.1f} ms CPU{aim(GOALS.get(name))}"
        )


def aim(goal: float | None) -> str:
    """Return the goal as it is printed, "" for none."""
    return "" if goal is None else f"  (goal {goal:g})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("venv", type=Path)
    parser.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS, help="of single commands")
    parser.add_argument(
        "--slow-rounds", type=int, default=DEFAULT_SLOW_ROUNDS, help="of the others"
    )
    parser.add_argument("--runs", type=int, nargs="+", default=list(BURST_GOALS_S), metavar="N")
    parser.add_argument("--kept", type=int, default=KEPT_RUNS, metavar="N")
    parser.add_argument("--json", action="store_true", help="print every value")
    given = parser.parse_args()
    extent = Extent(given.rounds, given.slow_rounds, tuple(given.runs), given.kept)
    everything = main(given.venv.absolute(), extent)
    if given.json:
        print(json.dumps(everything))
    else:
        show(everything)
