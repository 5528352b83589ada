#!/usr/bin/python3
"""Time the hooks of one job over simulated GPUs, beside what no hook in Python can do without.

    hook_time.py [--rows TEXT] PYTHON [ROUNDS] [OTHER_PYTHON...]

PYTHON is an interpreter that has canhazgpu installed with its embedded store; others have other
revisions of it, to be compared with, each with a node and a store of its own. The rows are taken
in turn within each round, so that a slow moment of the machine hits all of them alike. With
--rows, only those whose name has the text, and bare Python's.

The rows "agent" ask a node's agent: "cold" one that was just started, "warm" one that has served
before. Their CPU time is that of the client, the agent and all its processes. A revision without
an agent has none.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from hook_node import Agents, Row, environments, prepare

DEFAULT_ROUNDS = 20
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""The nodes' files are in memory, as those below /run are; None for the usual directory."""
SETTLE_S = 0.02
"""Time for the agent's processes to end: their CPU time counts for the row."""

CALL = "import sys; from {} import main; sys.exit(main())"
"""As the installed scripts do it; -m would import half as much again as bare Python does."""
STOP_STORE = """
import sys
try:
    from canhazgpu.ledger.embedded import server
except ImportError:  # releases before 0.1.0 have it in one module
    from canhazgpu.ledger import embedded as server
server.stop(sys.argv[1])
"""
BARE_S, BARE = "python -I -S -c pass", "bare python"
Times = dict[str, list[float]]


def main(pythons: list[str], rounds: int, wanted: str = "") -> None:
    """Print the median of each row in milliseconds, with its ratio to the first interpreter's."""
    with tempfile.TemporaryDirectory(prefix="hook-time-", dir=MEMORY) as directory:
        roots = [Path(directory, str(place)) for place in range(len(pythons))]
        for root in roots:
            prepare(root, root / "store")
        agents = [Agents(*one) for one in zip(pythons, roots, strict=True)]
        try:
            rows = [
                chosen({**timed_rows(root), **one.start()}, wanted)
                for root, one in zip(roots, agents, strict=True)
            ]
            found, cpu = measure(pythons, rows, agents, rounds)
        finally:
            for one in agents:
                one.stop()
            for python, root in zip(pythons, roots, strict=True):
                subprocess.run(
                    [python, "-I", "-c", STOP_STORE, root / "store"], check=True, timeout=30
                )
    show(pythons, found, cpu)


def chosen(rows: dict[str, Row], wanted: str) -> dict[str, Row]:
    """Return the rows whose name has the text, and those that all others are compared with."""
    return {name: row for name, row in rows.items() if wanted in name or name in (BARE, BARE_S)}


def show(pythons: list[str], found: list[Times], cpu: list[Times]) -> None:
    """Print the medians, with the times below which 99 % are, and the mean CPU time."""
    bare = statistics.median(found[0][BARE])
    bare_s = statistics.median(found[0][BARE_S])
    for name, values in found[0].items():
        median = statistics.median(values)
        p99 = sorted(values)[int(len(values) * 0.99)]
        print(
            f"{name:34} {median:7.1f} ms (p99 {p99:7.1f})  {median / bare:5.1f} x bare python"
            f"  {median / bare_s:5.1f} x -S  {statistics.mean(cpu[0][name]):6.1f} ms CPU"
        )
        for python, times, other_cpu in zip(pythons[1:], found[1:], cpu[1:], strict=True):
            if name in times:
                other = statistics.median(times[name])
                ratio = statistics.mean(other_cpu[name]) / statistics.mean(cpu[0][name])
                print(
                    f"{'':34} {other:7.1f} ms  {other / median:5.2f} x the first,"
                    f" {ratio:5.2f} x its CPU: {python}"
                )


def measure(
    pythons: list[str], rows: list[dict[str, Row]], agents: list[Agents], rounds: int
) -> tuple[list[Times], list[Times]]:
    """Return for each interpreter the milliseconds of each row, one value for each round.

    The second value are those of CPU time.
    """
    found: list[Times] = [{name: [] for name in one} for one in rows]
    cpu: list[Times] = [{name: [] for name in one} for one in rows]
    for turn in range(rounds + 1):
        for name in rows[0]:
            for place, python in enumerate(pythons):
                if name not in rows[place]:
                    continue
                wall_ms, cpu_ms = timed(python, rows[place][name], agents[place], name)
                if turn > 0:  # the first round starts the store
                    found[place][name].append(wall_ms)
                    cpu[place][name].append(cpu_ms)
    return found, cpu


def timed(python: str, row: Row, agents: Agents, name: str) -> tuple[float, float]:
    """Return the milliseconds of wall time and of CPU time of one run."""
    arguments, environ = row
    agents.before(name)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    agent_before_s = agents.cpu_s(name)
    began = time.perf_counter()
    # No timeout: subprocess would look for the end every 50 ms only.
    subprocess.run([python, "-I", *arguments], env=environ, stdout=subprocess.DEVNULL, check=True)
    wall_s = time.perf_counter() - began
    time.sleep(SETTLE_S)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return wall_s * 1000, (cpu_s + agents.cpu_s(name) - agent_before_s) * 1000


def timed_rows(root: Path) -> dict[str, Row]:
    """Return what is timed without an agent: its arguments and environment."""
    gpus, node = environments(root)
    job = {name: value for name, value in gpus.items() if name != "SLURM_JOB_GPUS"}
    return {
        BARE_S: (["-S", "-c", "pass"], job),
        BARE: (["-c", ""], job),
        "import redis": (["-c", "import redis"], job),
        "prolog, job without GPUs": (["-c", CALL.format("canhazgpu.prolog.main")], job),
        "prolog, two GPUs": (["-c", CALL.format("canhazgpu.prolog.main")], gpus),
        "health check": (["-c", CALL.format("canhazgpu.epilog.health_check")], node),
        "epilog, two GPUs": (["-c", CALL.format("canhazgpu.epilog.main")], gpus),
        "canhazgpu status": (["-c", CALL.format("canhazgpu.cli.entry"), "status"], node),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", default="", metavar="TEXT")
    parser.add_argument("python")
    parser.add_argument("rounds", nargs="?", type=int, default=DEFAULT_ROUNDS)
    parser.add_argument("others", nargs="*", metavar="other_python")
    given = parser.parse_args()
    main([given.python, *given.others], given.rounds, given.rows)
