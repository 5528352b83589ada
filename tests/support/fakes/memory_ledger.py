"""A ledger in memory that can be changed, and an `App` on a node called n1, for some caller."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from click.testing import CliRunner, Result
from fakes.in_memory_service import service_opener
from fakes.read_only_ledger import NOW, FakeProbe

from canhazgpu.cli.app import App
from canhazgpu.cli.main import cli
from canhazgpu.config.schema import ValidationConfig
from canhazgpu.errors import InputError
from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.ledger.co_holders import add_holder, holder_of, select_holders
from canhazgpu.ledger.port import Counted, Observation
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.values import (
    Claim,
    FoundNodes,
    NodeCounts,
    NodeHead,
    NodeView,
    Quarantine,
    Reservation,
    Share,
    Waiter,
)
from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.users import ADMINISTRATORS_RIGHTS, Caller
from canhazgpu.people.holdings import current_waiters
from canhazgpu.probe.node_probe import judge_scan, usage_policy

ALICE = Caller(1001, "alice")
BOB = Caller(1002, "bob")
ROOT = Caller(0, "root", ADMINISTRATORS_RIGHTS)


def uuid(index: int) -> str:
    return f"GPU-{index}a"


def gpu(index: int, used_mb: int = 45, *processes: GpuProcess, **more: Any) -> GpuReading:
    return GpuReading(index, uuid(index), index, "H100", used_mb, 80000, processes, **more)


def scan(*gpus: GpuReading, fault: str | None = None, node: str = "n1") -> Scan:
    return Scan(node, 0.0, 0.1, gpus, fault)


def manual(
    index: int, who: Caller = ALICE, *, left_s: float = 600.0, token: str = ""
) -> Reservation:
    """A reservation for a time; by default the user's GPUs have one owner."""
    owner = token or f"manual:{who.user}"
    claim = Claim(owner, "manual", who.user, who.uid)
    return Reservation(uuid(index), claim, NOW - 60, NOW + left_s)


def running(index: int, who: Caller = ALICE) -> Reservation:
    claim = Claim(f"run:{index}", "run", who.user, who.uid, processes=(ProcessId(4711, 1),))
    return Reservation(uuid(index), claim, NOW - 60, None, NOW - 5)


def job(
    index: int, who: Caller = ALICE, job_id: str = "12", share: Share | None = None
) -> Reservation:
    owner = f"job:c:{job_id}:0"
    claim = Claim(owner, "slurm", who.user, who.uid, job_id=job_id, share=share)
    return Reservation(uuid(index), claim, NOW - 60)


@dataclass
class UsagePolicyProbe:
    """Gives one scan as the real probe judges it."""

    gpus: tuple[GpuReading, ...] = ()
    fault: str | None = None
    node: str = ""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    meanwhile: Callable[[], None] = lambda: None
    """What happens while the scan is under way."""

    def start(self) -> UsagePolicyProbe:
        return self

    def observe(self) -> Observation:
        self.meanwhile()
        return judge_scan(
            scan(*self.gpus, fault=self.fault, node=self.node),
            usage_policy(self.validation),
            0.1,
            self.validation.health_checks,
        )


def view(*reservations: Reservation, node: str = "n1", gpus: int = 4, **more: Any) -> NodeView:
    """A node that published so many GPUs a minute ago."""
    held: dict[str, Reservation] = {}
    for one in reservations:
        held = add_holder(held, one)
    seen = scan(*map(gpu, range(gpus)), node=node)
    return replace(NodeView(node, NOW, seen, NOW - 60, held), **more)


@dataclass
class MemoryLedger:
    """Does what the port says of a ledger, without a history; `changes` is what was done."""

    views: dict[str, NodeView]
    changes: list[tuple[object, ...]] = field(default_factory=list)
    error: Exception | None = None
    change_error: Exception | None = None
    """What every change raises."""

    def read_nodes(self, nodes: Sequence[str] | None = None) -> list[NodeView]:
        if self.error:
            raise self.error
        names = sorted(self.views if nodes is None else nodes)
        return [self.views.get(name, NodeView(name, NOW, None, None)) for name in names]

    def find_owner(self, owner: str) -> FoundNodes:
        """No node is in an index."""
        return self.find_job("")

    def find_job(self, job_id: str) -> FoundNodes:
        """No node is in an index."""
        if self.error:
            raise self.error
        return FoundNodes({}, tuple(self.views))

    def read_node_heads(self, nodes: Sequence[str] | None = None) -> Iterator[NodeHead]:
        """No node has a head."""
        return (NodeHead(view.node, view.read_at) for view in self.read_nodes(nodes))

    def read_counts_or_heads(
        self,
        count: Callable[[NodeCounts], Counted | None],
        nodes: Sequence[str] | None = None,
    ) -> Iterator[Counted | NodeHead]:
        """No node has counts, or a head."""
        return self.read_node_heads(nodes)

    def read_queues(self) -> tuple[float, dict[str, tuple[Waiter, ...]]]:
        views = self.read_nodes()
        read_at = max((view.read_at for view in views), default=0.0)
        return read_at, {view.node: current_waiters(view) for view in views}

    def read_node_pages(
        self, nodes: Sequence[str] | None = None, *, brief_above: int | None = None
    ) -> Iterator[list[NodeView]]:
        yield self.read_nodes(nodes)

    def release(
        self, node: str, owner: str, reason: str, gpus: Sequence[str] = (), by: str = ""
    ) -> list[str]:
        self._change("release", node, owner, reason, tuple(gpus), by)
        held = self.views[node].reservations
        freed = [
            name for name in held if holder_of(held[name], owner) and (not gpus or name in gpus)
        ]
        left = select_holders(held, lambda one: one.claim.owner != owner or one.gpu not in freed)
        self._put(node, reservations=left)
        return freed

    def extend(
        self,
        node: str,
        owner: str,
        duration_s: float,
        gpus: Sequence[str] = (),
        longest_s: float = 0.0,
    ) -> list[Reservation]:
        self._change("extend", node, owner, duration_s, tuple(gpus))
        held = self.views[node].reservations
        longer = {
            name: replace(one, expires_at=one.expires_at + duration_s)
            for name, one in held.items()
            if one.claim.owner == owner and one.expires_at and (not gpus or name in gpus)
        }
        self._put(node, reservations={**held, **longer})
        return list(longer.values())

    def quarantine(self, node: str, gpu: str, reason: str, by: str) -> bool:
        self._change("quarantine", node, gpu, reason, by)
        there = self._view(node).quarantines
        self._put(node, quarantines={gpu: Quarantine(gpu, reason, NOW, by), **there})
        return gpu not in there

    def unquarantine(self, node: str, gpu: str, by: str) -> bool:
        self._change("unquarantine", node, gpu, by)
        there = dict(self._view(node).quarantines)
        lifted = there.pop(gpu, None)
        self._put(node, quarantines=there)
        return lifted is not None

    def forget_node(self, node: str) -> bool:
        self._change("forget", node)
        if self._view(node).reservations:
            raise InputError(f"a GPU of {node} is reserved")
        return self.views.pop(node, None) is not None

    def keep_indexes(self, node: str) -> None:
        """It has none: all is read."""

    def publish_scan(self, observation: Observation, alive: Collection[str] = ()) -> None:
        self._change("publish", observation.scan.node)
        node = observation.scan.node
        judged = {one.uuid for one in observation.scan.gpus} - observation.unknown
        kept = {
            name: one
            for name, one in self._view(node).quarantines.items()
            if one.by != "health" or name not in judged
        }
        new = {
            name: Quarantine(name, reason, NOW) for name, reason in observation.unhealthy.items()
        }
        self._put(node, scan=observation.scan, scanned_at=NOW, quarantines={**new, **kept})

    def _view(self, node: str) -> NodeView:
        return self.read_nodes([node])[0]

    def _put(self, node: str, **more: Any) -> None:
        self.views[node] = replace(self._view(node), **more)

    def _change(self, *what: object) -> None:
        if self.change_error:
            raise self.change_error
        self.changes.append(what)


def ledger(*views: NodeView) -> MemoryLedger:
    return MemoryLedger({one.node: one for one in views})


def run(
    store: MemoryLedger,
    *arguments: str,
    caller: Caller = ALICE,
    probe: Any = None,
    environ: Mapping[str, str] | None = None,
    role: Role | None = None,
) -> Result:
    """Run the command line; with `role` the ledger must be opened for just that."""

    def open_ledger(_store: object, asked: Role) -> Any:
        assert role in (None, asked)
        return store

    def open_probe(node: str, config: Any, _environ: object) -> Any:
        found = probe or FakeProbe(tuple(map(gpu, range(4))))
        found.node = node
        found.validation = config.validation
        return found

    app = App(
        environ={"SLURMD_NODENAME": "n1", **(environ or {})},
        clock=lambda: 5.0,
        open_service=service_opener(caller=lambda: caller, probe=open_probe, ledger=open_ledger),
        width=lambda: None,
    )
    return CliRunner().invoke(cli, arguments, obj=app)
