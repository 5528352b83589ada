"""People on a login host, whose agent orders a node, whose agent carries it out: real processes.

Each host has its own login of the store, and the people have none.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from hosts.cli_node import CliNode, make_cli_node
from hosts.running_agent import RunningAgent
from polling import poll_until
from servers.private_redis import PrivateRedis
from servers.store_users import add_store_users, url_of_user

from canhazgpu.config.schema import StoreConfig
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.store.orders import OrderStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may run an agent"),
]

PROGRAM = str(Path(sysconfig.get_path("scripts")) / "canhazgpu")
# Not nobody: that uid the kernel shows for users whom it cannot show.
ALICE, BOB = pwd.getpwnam("bin").pw_uid, pwd.getpwnam("daemon").pw_uid


@dataclass(frozen=True, slots=True)
class Cluster:
    """Node n1 with three GPUs, login host login1, and their agents."""

    here: CliNode
    server: PrivateRedis
    node: RunningAgent
    login: RunningAgent

    def run(
        self, agent: RunningAgent, user: int, *arguments: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, *arguments],
            env={
                "PATH": os.environ["PATH"],
                "CANHAZGPU_AGENT_SOCKET": str(agent.people_socket),
            },
            user=user,
            group=user,
            extra_groups=(),
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            cwd="/",
            check=False,
        )

    def on_login(self, user: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(self.login, user, *arguments)

    def on_node(self, user: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(self.node, user, *arguments)

    @property
    def holders(self) -> list[int | None]:
        store = StoreConfig(url=url_of_user(self.server, "reader"))
        (view,) = RedisLedger(store, Role.READ).read_nodes(["n1"])
        return sorted(one.claim.uid or 0 for one in view.all_reservations())


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("FAKE_NVML_NODE", "n1")
    with (
        make_cli_node(3) as here,
        PrivateRedis(tcp=True) as server,
        server.client() as direct,
    ):
        add_store_users(direct, ["n1"])
        with (
            RunningAgent(
                here.directory / "node",
                "n1",
                store={"url": url_of_user(server, "node", "n1")},
                validation={"nvml_library": here.library},
                agent={"orders": "await"},
            ) as node,
            RunningAgent(
                here.directory / "login",
                "login1",
                store={"url": url_of_user(server, "order")},
                agent={"role": "reader"},
            ) as login,
        ):
            for agent in (node, login):
                agent.hide_config()
            orders = OrderStore(StoreConfig(url=url_of_user(server, "order")), Role.WRITE)
            poll_until(lambda: orders.reader("n1") is not None)
            direct.execute_command("ACL", "SETUSER", "default", "off")
            yield Cluster(here, server, node, login)


def reserved(cluster: Cluster, user: int) -> None:
    done = cluster.on_node(user, "reserve", "--gpus", "1", "--duration", "1h")
    assert done.returncode == 0, done.stderr


def test_a_user_releases_and_extends_from_there_what_is_the_users_own(cluster: Cluster) -> None:
    reserved(cluster, ALICE)
    reserved(cluster, BOB)
    extended = cluster.on_login(ALICE, "extend", "--node", "n1", "--duration", "1h", "--json")
    assert extended.returncode == 0, extended.stderr
    assert len(json.loads(extended.stdout)["extended"]) == 1

    done = cluster.on_login(ALICE, "release", "--node", "n1")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("released GPU ") and " of n1: bin" in done.stdout
    assert cluster.holders == [BOB]
    assert cluster.login.status()["faults"] == cluster.node.status()["faults"] == []


def test_nobody_takes_what_is_anothers_and_an_ordinary_user_does_not_administrate(
    cluster: Cluster,
) -> None:
    reserved(cluster, BOB)
    for arguments in (
        ("release", "--node", "n1", "--gpu-ids", "0-2"),
        ("release", "--node", "n1", "--gpu-ids", "0-2", "--force"),
        ("admin", "release", "--node", "n1", "--user", "daemon", "--reason", "mine"),
        ("admin", "quarantine", "0", "--node", "n1", "--reason", "mine"),
        ("admin", "forget", "n1", "--release"),
    ):
        done = cluster.on_login(ALICE, *arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        assert "Traceback" not in done.stderr

    assert cluster.holders == [BOB]


def test_an_administrator_takes_away_and_the_user_is_told_once(cluster: Cluster) -> None:
    reserved(cluster, BOB)

    done = cluster.on_login(
        0, "admin", "release", "--node", "n1", "--user", "daemon", "--reason", "needed"
    )

    assert done.returncode == 0, done.stderr
    assert cluster.holders == []
    first, second = (cluster.on_node(BOB, "queue") for _ in range(2))
    assert "was taken from you" in first.stderr and "by root@" in first.stderr
    assert first.stderr.rstrip().endswith(": needed")
    assert second.stderr == ""
    status = cluster.on_login(BOB, "status", "--me")
    assert "was taken from you" in status.stdout and ": needed" in status.stdout


def test_the_node_finds_the_gpus_by_its_own_numbers(cluster: Cluster) -> None:
    for verb, reason in (("quarantine", ("--reason", "fan")), ("unquarantine", ())):
        done = cluster.on_login(0, "admin", verb, "1", "--node", "n1", *reason)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{verb}d GPU 1 of n1")
    assert cluster.node.status()["faults"] == []


def test_the_login_host_shows_the_node_and_says_where_to_go(cluster: Cluster) -> None:
    reserved(cluster, BOB)
    status = cluster.on_login(ALICE, "status", "--json")
    assert status.returncode == 0, status.stderr
    assert [one["node"] for one in json.loads(status.stdout)["nodes"]] == ["n1"]
    for arguments in (("run", "--gpus", "1", "--", "true"), ("reserve", "--gpus", "1")):
        done = cluster.on_login(ALICE, *arguments)
        assert done.returncode == 2 and "srun" in done.stderr, done.stderr
    done = cluster.on_login(ALICE, "release")
    assert done.returncode == 2 and "--node" in done.stderr


def test_whom_the_node_grants_nothing_extends_nothing_from_there(cluster: Cluster) -> None:
    reserved(cluster, ALICE)
    reserved(cluster, BOB)
    cluster.node.change_config(agent={"users": ["daemon"]})

    done = cluster.on_login(ALICE, "extend", "--node", "n1", "--duration", "1h")

    assert done.returncode == 2, done.stdout
    assert "you get no GPUs here: this site lets others reserve (agent.users)" in done.stderr
    done = cluster.on_login(BOB, "extend", "--node", "n1", "--duration", "1h")
    assert done.returncode == 0, done.stderr
    assert cluster.node.status()["faults"] == []


def test_nobody_on_the_node_orders_another(cluster: Cluster) -> None:
    with redis.Redis.from_url(url_of_user(cluster.server, "admin")) as direct:
        direct.set("canhazgpu:{n2}:order_reader", '{"kind":"agent","at_ms":1}')

    done = cluster.on_node(0, "admin", "release", "--node", "n2", "--user", "x", "--reason", "x")

    assert done.returncode == 4 and "the login of n1 changes that node alone" in done.stderr
