"""What is judged: as values, and as the files that tasks, hooks and the soak itself wrote.

All times are seconds by CLOCK_BOOTTIME, which `/proc/uptime` shows to hooks that are shell scripts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

JOB, RUN, RESERVE = "job", "run", "reserve"
NOTE = "soak "
"""Begins the note of each run and reservation of the soak; its number follows."""
AVAILABLE = "available"
PROLOG, EPILOG, RUNNING = "prolog", "epilog", "running"


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody who had GPUs from the first to the last sign of life, as the holder itself says.

    `owner` tells holders apart: a job's attempt, a run, a reservation. `key` is how `status` names
    its reservation: ``job:12``, ``run:7``. `is_checked` is false for a task that has Slurm's own
    numbers, as one that nobody checked. `share` is the part of each GPU that it asked for.
    """

    kind: str
    owner: str
    key: str
    node: str
    gpus: tuple[str, ...]
    began: float
    last_seen: float
    is_checked: bool = True
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Rogue:
    """A process that used a GPU without a reservation: for certain from `began` to `ended`."""

    node: str
    gpu: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class HookRun:
    """A hook of a job that began, or ``running``: that Slurm said that the job ran."""

    hook: str
    node: str
    job: str
    at: float


@dataclass(frozen=True, slots=True)
class Look:
    """The second look at the GPUs that `key` was to get on the node: when it began."""

    node: str
    key: str
    at: float


@dataclass(frozen=True, slots=True)
class Request:
    """A command of a person: `ended` and `status` are None where it did not end by itself in time.

    `holds_until` is the latest time at which what it got ends by itself.
    """

    kind: str
    key: str
    began: float
    ended: float | None
    status: int | None
    has_traceback: bool = False
    holds_until: float | None = None


@dataclass(frozen=True, slots=True)
class GpuAnswer:
    """What `status` said of a GPU: its state, and the keys of those who have it."""

    gpu: str
    state: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of `status` about a node, asked for and come at these times."""

    node: str
    asked: float
    answered: float
    gpus: tuple[GpuAnswer, ...]


def read_holders(notes: Path, gpus: Mapping[str, Sequence[str]]) -> list[Holder]:
    """Return what the tasks wrote; `gpus` are the UUIDs of each node in Slurm's order."""
    texts = (path.read_text() for path in sorted(notes.iterdir()))
    return [found for text in texts if (found := parse_holder(text, gpus)) is not None]


def parse_holder(text: str, gpus: Mapping[str, Sequence[str]]) -> Holder | None:
    """Return a task's record: a line of JSON, then a line with the time for each sign of life.

    None where the task was killed before it had written the first line.
    """
    first, ended, rest = text.partition("\n")
    if not ended:
        return None
    begin = json.loads(first)
    kind, owner, node, at = begin["kind"], begin["owner"], begin["node"], begin["at"]
    words = [word for word in begin["gpus"].split(",") if word]
    # A line that was cut short is a lower number, at most.
    signs = [float(line) for line in rest.split("\n")[:-1]]
    return Holder(
        kind=kind,
        owner=f"{kind}:{owner}",
        key=f"{kind}:{owner.partition('.')[0]}",
        node=node,
        gpus=tuple(gpus[node][int(word)] if word.isdecimal() else word for word in words),
        began=at,
        last_seen=max([at, *signs]),
        is_checked=not any(word.isdecimal() for word in words),
        share=begin.get("share", 1.0),
    )


def parse_hook_runs(lines: Iterable[str]) -> list[HookRun]:
    """Return what the hooks' scripts wrote: hook, node, job, time."""
    rows = (line.split() for line in lines)
    return [HookRun(row[0], row[1], row[2], float(row[3])) for row in rows if len(row) == 4]


def parse_looks(lines: Iterable[str]) -> list[Look]:
    """Return what the agents noted: node, key, time."""
    rows = (line.split() for line in lines)
    return [Look(row[0], row[1], float(row[2])) for row in rows if len(row) == 3]


def parse_answer(text: str, asked: float, answered: float) -> Answer:
    """Return what `status --json` printed about one node."""
    (node,) = json.loads(text)["nodes"]
    return Answer(
        node["node"],
        asked,
        answered,
        tuple(
            GpuAnswer(gpu["uuid"], gpu["state"], tuple(map(_key, gpu["reservations"])))
            for gpu in node["gpus"]
        ),
    )


def _key(reservation: Mapping[str, str | None]) -> str:
    if reservation["job_id"]:
        return f"job:{reservation['job_id']}"
    kind = RUN if reservation["type"] == RUN else RESERVE
    return f"{kind}:{(reservation['note'] or '').removeprefix(NOTE)}"
