"""A node, and the hosts that order it, over a real store with a user for each."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ledger_samples import gpus, observation
from servers.private_redis import PrivateRedis
from servers.store_users import add_store_users, url_of_user

from canhazgpu.config.schema import StoreConfig
from canhazgpu.in_process.adapters import Adapters
from canhazgpu.in_process.orders.carry_out import take_and_carry_out
from canhazgpu.in_process.orders.give_order import OrderCommand
from canhazgpu.ledger.grant_answers import GrantedGpus
from canhazgpu.ledger.orders import OrderReaderKind
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.store.orders import OrderStore
from canhazgpu.ledger.values import Claim, NodeView
from canhazgpu.node.users import ADMINISTRATORS_RIGHTS, Caller
from canhazgpu.service.holdings import ReleaseAnswer
from canhazgpu.service.orders import OrderedRequest

if TYPE_CHECKING:
    from canhazgpu.in_process.adapters import RightsOfGiver

NODE = "n1"
ALICE, BOB = Caller(1000, "alice"), Caller(1001, "bob")
ROOT = Caller(0, "root", ADMINISTRATORS_RIGHTS)
CHECK, AGENT = OrderReaderKind.CHECK, OrderReaderKind.AGENT


@dataclass
class Shown:
    """A `Progress` that keeps what it shows."""

    texts: list[str] = field(default_factory=list)
    is_done: bool = False

    def show(self, text: str, steady: str) -> None:
        self.texts.append(text)

    def done(self) -> None:
        self.is_done = True


@dataclass
class Site:
    """A store with its users, the node n1, and login hosts that order it."""

    server: PrivateRedis
    directory: Path
    now: float = 0.0
    shown: Shown = field(default_factory=Shown)
    reader: OrderReaderKind = AGENT
    rights_of_giver: RightsOfGiver | None = None

    def store(self, role: str, node: str = "") -> StoreConfig:
        return StoreConfig(url=url_of_user(self.server, role, node), timeout_s=10.0)

    def adapters(self, caller: Caller, store: StoreConfig, node: str) -> Adapters:
        environ = {
            "CANHAZGPU_STORE_URL": store.url,
            "CANHAZGPU_NODE_NAME": node,
            "CANHAZGPU_NODE_STATE_DIR": str(self.directory / node),
            "CANHAZGPU_NODE_MARKER_DIR": str(self.directory / f"{node}-marker"),
        }
        return Adapters(environ, caller=lambda: caller, rights_of_giver=self.rights_of_giver)

    @property
    def on_node(self) -> Adapters:
        return self.adapters(ROOT, self.store("node", NODE), NODE)

    def carry_out(self) -> int:
        return take_and_carry_out(NODE, self.on_node, self.reader)

    def look(self, seconds: float) -> None:
        """What happens while the one who ordered waits."""
        self.now += seconds
        self.carry_out()

    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    def command(self, wait: Any = None) -> OrderCommand:
        orders = OrderStore(self.store("order"), Role.WRITE)
        return OrderCommand(
            orders,
            NODE,
            secrets.token_hex(16),
            self.shown,
            wait=wait or self.look,
            clock=lambda: self.now,
        )

    def order(self, request: OrderedRequest, caller: Caller, kind: Any = ReleaseAnswer) -> Any:
        return self.command().carry_out(request, caller, kind)

    def reserve(self, caller: Caller, *indices: int, type_: str = "manual") -> str:
        owner = f"{type_}:{caller.user}{indices}"
        claim = Claim(owner, type_, caller.user, caller.uid, duration_s=600.0)
        answer = self.ledger.reserve_given(claim, gpus(*indices), observation(NODE))
        assert isinstance(answer, GrantedGpus)
        return owner

    @property
    def ledger(self) -> RedisLedger:
        return RedisLedger(self.store("node", NODE), Role.WRITE)

    @property
    def view(self) -> NodeView:
        (view,) = self.ledger.read_nodes([NODE])
        return view

    @property
    def held(self) -> set[str]:
        return set(self.view.reservations)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with PrivateRedis(tcp=True) as server, server.client() as direct:
        add_store_users(direct, [NODE, "n2"])
        found = Site(server, tmp_path)
        found.ledger.publish_scan(observation(NODE))
        found.carry_out()
        yield found
