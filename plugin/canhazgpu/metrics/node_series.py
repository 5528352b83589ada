"""The series of what nodes count, and those that a node alone has; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.owner import MANUAL, RUN
from canhazgpu.metrics.counts import HOOKS, JOB, REFUSED_CAUSES, HistoryCounts, duration_buckets
from canhazgpu.metrics.label_value import label_value


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What the node knows of itself; times in seconds.

    `store_away_s` is for how long its hooks have found the store away, 0 while it answers.
    `agent_children` is the number of the agent's child processes, None without an agent.
    """

    node: str
    store_away_s: float = 0.0
    agent_children: int | None = None


_KINDS = (JOB, RUN, MANUAL)
_COUNTERS: tuple[tuple[str, str, tuple[str, ...], list[tuple[str, ...]]], ...] = (
    ("grants", "Grants of GPUs.", ("type",), [(one,) for one in _KINDS]),
    ("granted_gpus", "GPUs that were granted.", ("type",), [(one,) for one in _KINDS]),
    ("released_gpus", "GPUs that were released.", ("type",), [(one,) for one in _KINDS]),
    ("refusals", "Jobs that were refused their GPUs.", ("cause",), []),
    ("refused_requests", "Requests of people for GPUs that were refused.", ("cause",),
     [(one,) for one in REFUSED_CAUSES]),
    ("conflicts", "Jobs about which a policy decided.", ("policy", "cause"), []),
    ("requeues", "Jobs that were put back into the queue.", (), [()]),
    ("quarantines", "Quarantines that were set.", (), [()]),
    ("store_outages", "Outages of the store in which hooks decided.", (), [()]),
    ("local_decisions", "Hooks that decided without the store.", ("hook",),
     [(one,) for one in HOOKS]),
)  # fmt: skip
"""Name, text, labels, and the values that are told before there is anything to count."""


def node_series(facts: NodeFacts, counts: HistoryCounts) -> Iterator[Metric]:
    """Yield the families of this node."""
    node = label_value(facts.node)
    yield from counted_series({facts.node: counts})
    yield _gauge(
        "store_away_seconds", "For how long the hooks found the store away.", node,
        facts.store_away_s,
    )  # fmt: skip
    if facts.agent_children is not None:
        yield _gauge(
            "agent_children", "Child processes of the node's agent.", node, facts.agent_children
        )


def counted_series(counted: Mapping[str, HistoryCounts]) -> Iterator[Metric]:
    """Yield the families of what these nodes have counted."""
    nodes = [(label_value(name), counts) for name, counts in counted.items()]
    for name, text, labels, values in _COUNTERS:
        family = CounterMetricFamily(f"canhazgpu_{name}", text, labels=("node", *labels))
        for node, counts in nodes:
            known = {key[1:]: number for key, number in counts.numbers.items() if key[0] == name}
            for value in sorted({*values, *known}):
                family.add_metric([node, *value], known.get(value, 0))
        yield family
    durations = HistogramMetricFamily(
        "canhazgpu_hook_duration_seconds",
        "How long Slurm's hooks took for jobs with GPUs.",
        labels=("node", "hook"),
    )
    for node, counts in nodes:
        for hook in HOOKS:
            durations.add_metric(
                [node, hook], duration_buckets(counts, hook), counts.seconds.get(hook, 0.0)
            )
    yield durations


def _gauge(name: str, text: str, node: str, value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"canhazgpu_{name}", text, labels=("node",))
    family.add_metric([node], value)
    return family
