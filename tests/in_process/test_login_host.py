"""What commands do on a host without GPUs (`agent.role = "reader"`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ledger_samples import gpus, observation, uuid
from servers.private_redis import PrivateRedis

from canhazgpu.allocation.progress import NO_PROGRESS
from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import InputError, ScanError, StoreError
from canhazgpu.gpu.ids import GpuIndex
from canhazgpu.in_process.adapters import Adapters
from canhazgpu.in_process.service import InProcessService
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim
from canhazgpu.service.grants import GpuRequest, ReserveRequest, RunRequest
from canhazgpu.service.health import QuarantineRequest, ValidateRequest
from canhazgpu.service.holdings import ExtendRequest, ReleaseRequest, RevokeRequest
from canhazgpu.service.status import StatusRequest

HERE = "login1"


def no_probe(*_: object) -> Any:
    raise AssertionError("nothing is scanned here")


@pytest.fixture
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as made:
        yield made


@pytest.fixture
def service(server: PrivateRedis) -> InProcessService:
    environ = {
        "CANHAZGPU_STORE_URL": server.url,
        "CANHAZGPU_AGENT_ROLE": "reader",
        "CANHAZGPU_NODE_NAME": HERE,
    }
    return InProcessService(Adapters(environ, probe=no_probe))


@pytest.mark.parametrize(
    "ask",
    [
        lambda service: service.reserve(ReserveRequest(GpuRequest(1)), NO_PROGRESS),
        lambda service: service.start_run(RunRequest(GpuRequest(1), ("true",)), NO_PROGRESS),
        lambda service: service.validate(ValidateRequest()),
        lambda service: service.release(ReleaseRequest()),
        lambda service: service.release(ReleaseRequest(HERE)),
        lambda service: service.extend(ExtendRequest(60.0)),
        lambda service: service.revoke(RevokeRequest("x", user="bob")),
        lambda service: service.quarantine(QuarantineRequest((GpuIndex(0),), "x")),
    ],
)
def test_what_takes_a_gpu_of_this_host_says_where_to_go(
    service: InProcessService, ask: Callable[[InProcessService], object]
) -> None:
    with pytest.raises(InputError, match="this host, which has none") as caught:
        ask(service)

    assert any(word in str(caught.value) for word in ("srun", "--node", "on a node"))


def test_status_shows_the_nodes_and_scans_nothing(
    service: InProcessService, server: PrivateRedis
) -> None:
    with pytest.raises(ScanError, match="knows no node"):
        service.status(StatusRequest())
    ledger = RedisLedger(StoreConfig(url=server.url), Role.WRITE)
    ledger.reserve_given(Claim("manual:1", "manual", "bob", 7), gpus(0), observation("n1"))
    ledger.publish_scan(observation("n2"))

    found = service.status(StatusRequest())

    assert [one.node for one in found.nodes] == ["n1", "n2"]
    assert [one.node for one in service.status(StatusRequest(nodes=("n2",))).nodes] == ["n2"]
    with pytest.raises(InputError, match=f"no node '{HERE}'"):
        service.status(StatusRequest(nodes=(HERE,)))
    (held,) = [one for one in found.nodes[0].gpus if one.uuid == uuid(0)]
    assert held.state.name == "RESERVED"


def test_without_the_store_nothing_is_known(
    service: InProcessService, server: PrivateRedis
) -> None:
    server.kill()

    with pytest.raises(StoreError):
        service.status(StatusRequest())


def test_nobody_there_writes_a_node_whatever_the_login_may_do(
    service: InProcessService, server: PrivateRedis
) -> None:
    ledger = RedisLedger(StoreConfig(url=server.url), Role.WRITE)
    ledger.reserve_given(Claim("manual:1", "manual", "bob", 7), gpus(0), observation("n1"))

    with pytest.raises(InputError, match="n1 takes no orders"):
        service.revoke(RevokeRequest("x", "n1", user="bob"))

    (view,) = ledger.read_nodes(["n1"])
    assert uuid(0) in view.reservations
