#!/usr/bin/python3
"""Time jobs on a real private Slurm: without hooks, with empty ones, and with canhazgpu's.

Three Slurms with one node of 8 simulated GPUs each run beside each other: one has no hooks, one has
a prolog, an epilog and a task prolog that do nothing, and one has canhazgpu's with its agent. Each
row is taken on each of them, round by round, and each round begins with another of them, so that a
slow moment of the machine hits all of them alike. What a Slurm takes is divided by what the one
with empty hooks takes in the same round. Of these ratios the median is shown, and the interval in
which it is with 95 % probability: only an interval below a goal shows that the goal is reached.
Slurm's own daemons are part of every row.

    srun            srun --gres=gpu:1 true, from its start to its end
    burst           so many jobs of one second with one GPU each, until the last one has ended
    prologs         the installed prologs of eight jobs with one GPU, started at once, each from its
                    start to its end, while people wait in the node's queue ('canhazgpu run --wait')

The last row has no other Slurm to be compared with. It also tells how many prologs were not
answered by the agent, or decided without the store.

It needs root and Slurm's daemons. Where other programs load the machine, look at the ratios alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from slurm_sites import EMPTY, GPUS, NODE, OURS, PrivateSlurm, Site, running_sites

GOALS = {"srun": 1.3, "burst": 1.25}
"""Ratios to empty hooks."""
OUTSIDE_SHARE = 0.025
"""Of each side of an interval."""
GOAL_PROLOGS_S = 0.5
WAIT_S = 600.0
FIRST_JOB = 1_000_000
"""Jobs of the prologs that this starts itself have numbers that Slurm's have not."""
Values = dict[str, list[float]]
"""Seconds, by the name of the Slurm."""


def main(venv: Path, rounds: int, bursts: int, jobs: int, waiters: int) -> dict[str, object]:
    """Return all that was measured, in seconds."""
    with running_sites(venv) as (site, slurms):
        sruns = measure(slurms, rounds, srun_s)
        in_bursts = measure(slurms, bursts, lambda slurm: burst_s(slurm, jobs))
        prologs = prologs_beside_waiters(site, slurms[OURS], max(rounds // 2, 1), waiters)
    return {"srun": sruns, "burst": in_bursts, **prologs}


def measure(
    slurms: dict[str, PrivateSlurm], rounds: int, act: Callable[[PrivateSlurm], float]
) -> Values:
    """Return what `act` takes on each Slurm; the first round, which starts things, is left out."""
    found: Values = {name: [] for name in slurms}
    names = list(slurms)
    for turn in range(rounds + 1):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            took_s = act(slurms[name])
            if turn > 0:
                found[name].append(took_s)
            slurms[name].wait_nodes_idle()
    return found


def ratios(seconds: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """Return the median of the ratios of each round, and its interval of 95 %.

    The interval is that of the sign test: it assumes nothing of how the times are distributed. With
    fewer than six rounds it is narrower than 95 %, from the least ratio to the greatest.
    """
    found = sorted(one / other for one, other in zip(seconds, others, strict=True))
    count, outside, below = len(found), 0, 0.0
    # So many ratios at each end are left out, as long as that leaves out 2.5 % at most.
    while (below := below + math.comb(count, outside) / 2**count) <= OUTSIDE_SHARE:
        outside += 1
    outside = max(outside - 1, 0)
    return statistics.median(found), found[outside], found[count - 1 - outside]


def srun_s(slurm: PrivateSlurm) -> float:
    """Return the seconds of one srun."""
    began = time.perf_counter()
    slurm.run(["srun", "--gres=gpu:1", "true"], check=True)
    return time.perf_counter() - began


def burst_s(slurm: PrivateSlurm, jobs: int) -> float:
    """Return the seconds until all of these jobs have ended."""
    began = time.perf_counter()
    command = ["srun", "--quiet", "--gres=gpu:1", "--cpus-per-task=1", "--mem=10", "sleep", "1"]
    # A process for each, without a pipe that would have to be read.
    running = [
        subprocess.Popen(command, env=slurm.env(), cwd="/", stdout=subprocess.DEVNULL)
        for _ in range(jobs)
    ]
    failed = sum(one.wait(WAIT_S) != 0 for one in running)
    if failed:
        raise RuntimeError(f"{failed} of {jobs} jobs failed")
    return time.perf_counter() - began


def prologs_beside_waiters(
    site: Site, slurm: PrivateSlurm, rounds: int, waiters: int
) -> dict[str, object]:
    """Return the seconds of each prolog, and how many were not served as they should be."""
    site.canhazgpu("reserve", "--gpus", "1", "--duration", "2h")
    everything = ("run", "--gpus", str(GPUS + 1), "--wait", "2h", "--", "true")
    waiting = [
        subprocess.Popen([site.program, *everything], env=site.environ, stderr=subprocess.DEVNULL)
        for _ in range(waiters)
    ]
    try:
        await_queue(site, waiters)
        served = site.served("JobStart")
        took: list[float] = []
        for turn in range(rounds):
            first = FIRST_JOB + turn * GPUS
            took += eight_hooks_s(site, "prolog", slurm, first)
            eight_hooks_s(site, "epilog", slurm, first)
        unserved = len(took) - (site.served("JobStart") - served)
        still_waiting = site.waiting()
    finally:
        for one in waiting:
            one.terminate()
        for one in waiting:
            one.wait(WAIT_S)
    return {
        "prologs": took,
        "waiters": still_waiting,
        "not through the agent": unserved,
        "decided alone": site.decided_alone(FIRST_JOB),
        "granted": site.granted(FIRST_JOB),
    }


def await_queue(site: Site, waiters: int) -> None:
    """Wait until so many wait in the queue."""
    ends_at = time.monotonic() + WAIT_S
    while (found := site.waiting()) < waiters:
        if time.monotonic() > ends_at:
            raise RuntimeError(f"{found} of {waiters} wait in the queue of {NODE}")
        time.sleep(0.5)


def eight_hooks_s(site: Site, name: str, slurm: PrivateSlurm, first: int) -> list[float]:
    """Start the hooks of eight jobs at once; return the seconds of each."""
    began: dict[int, float] = {}
    for position in range(GPUS):
        now = time.perf_counter()
        began[site.hook(name, slurm, first + position, position).pid] = now
    took = []
    while began:
        pid, status = os.wait()
        if pid not in began:
            continue
        if status != 0:
            raise RuntimeError(f"a {name} ended with {os.waitstatus_to_exitcode(status)}")
        took.append(time.perf_counter() - began.pop(pid))
    return took


def show(found: dict[str, object]) -> None:
    """Print a table: medians, what 99 % are below, and the ratios to empty hooks."""
    for row, goal in GOALS.items():
        values = found[row]
        assert isinstance(values, dict)
        for name, seconds in values.items():
            ratio, low, high = ratios(seconds, values[EMPTY])
            aim = f"  (goal {goal})" if name == OURS else ""
            print(
                f"{row:8} {name:12} {text(seconds)}"
                f"  {ratio:5.2f} x empty hooks ({low:.2f} to {high:.2f}){aim}"
            )
    prologs = found["prologs"]
    assert isinstance(prologs, list)
    print(f"prologs  {OURS:12} {text(prologs)}  (goal: 99 % below {GOAL_PROLOGS_S} s)")
    facts = ("granted", "waiters", "not through the agent", "decided alone")
    print(
        f"         of {len(prologs)} prologs: " + ", ".join(f"{one} {found[one]}" for one in facts)
    )


def text(seconds: Sequence[float]) -> str:
    """Return the median, and what 99 % are below."""
    p99 = sorted(seconds)[int(len(seconds) * 0.99)]
    return f"{statistics.median(seconds):7.3f} s (p99 {p99:7.3f})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("venv", type=Path, help="has canhazgpu installed with its embedded store")
    parser.add_argument("--rounds", type=int, default=20, help="of srun")
    parser.add_argument("--bursts", type=int, default=8, help="rounds of bursts")
    parser.add_argument("--jobs", type=int, default=50, help="jobs of one burst")
    parser.add_argument("--waiters", type=int, default=48, help="people who wait meanwhile")
    parser.add_argument("--json", action="store_true", help="print every value, in seconds")
    given = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("it has to be root")
    measured = main(given.venv.absolute(), given.rounds, given.bursts, given.jobs, given.waiters)
    if given.json:
        print(json.dumps(measured))
    else:
        show(measured)
