"""Which GPUs jobs had from when until when: as the jobs say themselves, and as the history says."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from clusters.gpu_cluster import GpuCluster

# Notes what the task sees and when. Slurm's SIGTERM counts as the end; a task that was killed has
# none. Components of a heterogeneous job bear one id, so that their tasks name their part.
HOLD_SCRIPT = """#!/bin/sh
# hold SECONDS [PART]
job=$SLURM_JOB_ID.${{SLURM_RESTART_COUNT:-0}}
note={notes}/$job.$SLURMD_NODENAME.$$
over() {{ date +%s%N >>$note; exit 0; }}
trap over TERM
echo $job ${{2:-all}} $SLURMD_NODENAME =${{CUDA_VISIBLE_DEVICES-}} $(date +%s%N) >$note
sleep $1 &
wait
over
"""


@dataclass(frozen=True, slots=True)
class TaskSpan:
    """What one task saw: `owner` is the job, its attempt and its part, times in nanoseconds."""

    owner: tuple[str, str]
    node: str
    gpus: frozenset[str]
    began: int
    ended: int


class JobSpans:
    """The tasks of a cluster's jobs that ran `hold`."""

    def __init__(self, cluster: GpuCluster) -> None:
        self._cluster = cluster
        self._notes = cluster.root / "notes"
        self._notes.mkdir()
        self._notes.chmod(0o1777)
        self._hold = cluster.root / "hold"
        self._hold.write_text(HOLD_SCRIPT.format(notes=self._notes))
        self._hold.chmod(0o755)

    def hold(self, seconds: float, part: str = "") -> str:
        """Return the command with which a task keeps its GPUs for so long."""
        return f"{self._hold} {seconds} {part}".strip()

    def all_spans(self) -> list[TaskSpan]:
        notes = [note.read_text() for note in sorted(self._notes.iterdir())]
        return [_span(text) for text in notes if text.endswith("\n")]

    def spans_of(self, job: int, attempt: int = 0) -> list[TaskSpan]:
        return [span for span in self.all_spans() if span.owner[0] == f"{job}.{attempt}"]

    def visible_gpus(self, job: int, attempt: int = 0) -> dict[str, set[str]]:
        """Return the GPUs that the attempt's tasks saw on each node, all together."""
        found: dict[str, set[str]] = defaultdict(set)
        for span in self.spans_of(job, attempt):
            found[span.node] |= span.gpus
        return dict(found)

    def granted_gpus(self, job: int, attempt: int = 0) -> dict[str, set[str]]:
        """Return the GPUs that the history says the attempt was granted on each node."""
        return self.all_granted_gpus().get(f"{job}.{attempt}", {})

    def all_granted_gpus(self) -> dict[str, dict[str, set[str]]]:
        """Return the same of every attempt, by `JOB.ATTEMPT` as in a span's owner."""
        found: dict[str, dict[str, set[str]]] = {}
        for event in _grants_and_releases(self._cluster):
            if event["kind"] == "grant":
                job, attempt = event["owner"].removeprefix("job:demo:").split(":")
                nodes = found.setdefault(f"{job}.{attempt}", {})
                nodes.setdefault(event["node"], set()).add(event["gpu"])
        return found

    def assert_nothing_shared(self) -> None:
        """No GPU was two owners' at once, neither to the jobs nor to the history."""
        for one, other in combinations(self.all_spans(), 2):
            if one.node == other.node and one.gpus & other.gpus and one.owner != other.owner:
                assert one.ended < other.began or other.ended < one.began, (one, other)
        holders: dict[tuple[str, str], str] = {}
        for event in _grants_and_releases(self._cluster):
            gpu = (event["node"], event["gpu"])
            if event["kind"] == "grant":
                assert gpu not in holders, (event, holders[gpu])
                holders[gpu] = event["owner"]
            else:
                assert holders.pop(gpu, None) == event["owner"], event
        assert holders == {}

    def assert_nothing_left(self) -> None:
        """No GPU is reserved and no node has a record of a job."""
        left = self.left()
        assert not left, f"{left} are left; the hooks said:\n{self._hook_lines()}"

    def left(self) -> list[str]:
        """Return the nodes with reserved GPUs, and the records of jobs."""
        nodes = self._cluster.status().items()
        return [
            node for node, gpus in nodes if any(gpu["reservation"] for gpu in gpus.values())
        ] + self._records()

    def _hook_lines(self) -> str:
        logs = map(self._cluster.slurm.log, self._cluster.slurm.spec.node_names())
        lines = [line for log in logs for line in log.splitlines() if "canhazgpu" in line]
        return "\n".join(lines[-40:])

    def _records(self) -> list[str]:
        found = (self._cluster.root / "run").glob("*/jobs/*")
        return [str(path) for path in found if path.suffix in (".json", ".env", ".warning")]


def _grants_and_releases(cluster: GpuCluster) -> list[dict[str, Any]]:
    """Return every grant and release of all nodes, in order of time.

    That is not the order of the history, where the store was told late.
    """
    lines = cluster.canhazgpu("events", "--json", "--since", "1h", node="n1").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    changes = [event for event in events if event["kind"] in ("grant", "release")]
    return sorted(changes, key=lambda event: event["at"])


def _span(text: str) -> TaskSpan:
    job, part, node, gpus, began, *ended = text.split()
    seen = frozenset(gpus.removeprefix("=").split(",")) - {""}
    return TaskSpan((job, part), node, seen, int(began), int(ended[0]) if ended else int(began))
