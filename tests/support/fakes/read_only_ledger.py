"""A ledger, a probe and a job lookup in memory, and an `App` made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fakes.in_memory_service import service_opener

from canhazgpu.cli.app import App
from canhazgpu.gpu.scan import GpuReading, Scan
from canhazgpu.ledger.port import Counted, Observation
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.usage import DAY_S, UsageRead
from canhazgpu.ledger.values import Event, FoundNodes, NodeCounts, NodeHead, NodeView, Waiter
from canhazgpu.people.holdings import current_waiters
from canhazgpu.status.scheduler_jobs import JobNow

NOW = 1700000000.0


class FakeLedger:
    """Reads like a ledger; any change fails the test. `error` is raised instead, if any."""

    def __init__(self, *views: NodeView, error: BaseException | None = None) -> None:
        self._views = {view.node: view for view in views}
        self.error = error
        self.events: list[str] = []
        self.past: dict[str, list[Event]] = {}

    def show(self, *views: NodeView) -> None:
        """FrameOutput these nodes from now on."""
        self._views = {view.node: view for view in views}

    def read_nodes(self, nodes: Sequence[str] | None = None) -> list[NodeView]:
        self.events.append("look")
        if self.error:
            raise self.error
        names = sorted(self._views if nodes is None else nodes)
        return [self._views.get(name, NodeView(name, NOW, None, None)) for name in names]

    def read_node_pages(
        self, nodes: Sequence[str] | None = None, *, brief_above: int | None = None
    ) -> Iterator[list[NodeView]]:
        yield self.read_nodes(nodes)

    def read_node_heads(self, nodes: Sequence[str] | None = None) -> Iterator[NodeHead]:
        """No node has a head."""
        if self.error:
            raise self.error
        return (NodeHead(name, NOW) for name in sorted(self._views if nodes is None else nodes))

    def read_counts_or_heads(
        self,
        count: Callable[[NodeCounts], Counted | None],
        nodes: Sequence[str] | None = None,
    ) -> Iterator[Counted | NodeHead]:
        """No node has counts, or a head."""
        return self.read_node_heads(nodes)

    def read_queues(self) -> tuple[float, dict[str, tuple[Waiter, ...]]]:
        return NOW, {view.node: current_waiters(view) for view in self.read_nodes()}

    def find_owner(self, owner: str) -> FoundNodes:
        """No node is in an index."""
        return self.find_job("")

    def find_job(self, job_id: str) -> FoundNodes:
        """No node is in an index."""
        if self.error:
            raise self.error
        return FoundNodes({}, tuple(self._views))

    def find_user(self, uid: int, days: int) -> FoundNodes:
        """No node is in an index."""
        return self.find_job("")

    def node_names(self) -> list[str]:
        self.events.append("names")
        return sorted(self._views)

    def read_usage(self, days: int, nodes: Sequence[str] | None = None) -> UsageRead:
        """No node counts what is used there."""
        if self.error:
            raise self.error
        names = sorted(self._views if nodes is None else nodes)
        return UsageRead(NOW, int(NOW // DAY_S) - days, (), tuple(names))

    def history(self, node: str, since: float) -> list[Event]:
        self.events.append("history")
        return [one for one in self.past.get(node, []) if one.at >= since]

    def recent_events(self, since_s: float) -> tuple[float, dict[str, list[Event]]]:
        return NOW, {name: self.history(name, NOW - since_s) for name in self.node_names()}

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"status called {name} of the ledger")


@dataclass
class FakeProbe:
    """Gives one scan; `events` is the order of what was asked."""

    gpus: tuple[GpuReading, ...] = ()
    fault: str | None = None
    events: list[str] = field(default_factory=list)
    node: str = ""

    def start(self) -> FakeProbe:
        self.events.append("start")
        return self

    def observe(self) -> Observation:
        self.events.append("observe")
        return Observation(Scan(self.node, 0.0, 0.1, self.gpus, self.fault), 0.1)


@dataclass
class FakeJobLookup:
    """Is not to be asked."""

    def job_now(self, job_id: str) -> JobNow | None:
        raise AssertionError(f"asked for the state of {job_id}")

    def resolve_job_id(self, address: str) -> str | None:
        raise AssertionError(f"asked for the number of {address}")


def no_sleep(seconds: float) -> None:
    raise AssertionError(f"the command slept {seconds} s")


def app(
    ledger: FakeLedger,
    probe: FakeProbe,
    lookup: FakeJobLookup | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    width: int | None = None,
    sleep: Callable[[float], None] = no_sleep,
) -> App:
    """Return the commands' dependencies on a node called n1."""

    def open_ledger(_store: object, role: Role) -> Any:
        assert role is Role.READ
        probe.events.append("ledger")
        return ledger

    def open_probe(node: str, _config: object, _environ: object) -> FakeProbe:
        probe.node = node
        return probe

    return App(
        environ={"SLURMD_NODENAME": "n1", **(environ or {})},
        clock=lambda: 5.0,
        open_service=service_opener(
            probe=open_probe,
            ledger=open_ledger,
            job_lookup=lambda _slurm, _environ: lookup or FakeJobLookup(),
        ),
        width=lambda: width,
        sleep=sleep,
    )
