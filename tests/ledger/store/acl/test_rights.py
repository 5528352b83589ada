"""What the users of a real server may do: their own work, and nothing about other nodes."""

from __future__ import annotations

import time

import pytest
from ledger_samples import contents, gpus, job, manual, observation, uuid, view, waiter
from servers.private_redis import PrivateRedis, free_port

from canhazgpu.errors import StoreError
from canhazgpu.ledger.grant_answers import GrantedGpus
from canhazgpu.ledger.journal_entries import JournalEntry, NumberedEntry
from canhazgpu.ledger.port import GrantOptions
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.keys import node_keys
from canhazgpu.ledger.store.ledger import RedisLedger

from .conftest import NODES, PREFIXES, UserSite
from .hostile_commands import SERVER_COMMANDS, assert_denied, hostile_commands

PAIRS = [("n1", "n10"), ("n10", "n1"), ("n1", "N1"), ("a.b-c_d", "node"), ("node", "a.b-c_d")]


def use_node(ledger: RedisLedger, node: str) -> None:
    """Do with a node whatever hooks and people on it do."""
    observed = observation(node)
    assert ledger.reserve_given(job(1), gpus(0), observed) == GrantedGpus(gpus(0), repeated=False)
    options = GrantOptions(queues=True, affinity=True)
    assert isinstance(ledger.reserve_count(manual(2), 1, observed, options), GrantedGpus)
    assert ledger.renew(node, job(1).owner) == [uuid(0)]
    assert len(ledger.extend(node, manual(2).owner, 60.0)) == 1
    assert ledger.join_queue(node, waiter(job(3))) == 1
    ledger.leave_queue(node, [job(3).owner], "enough")
    assert ledger.quarantine(node, uuid(3), "fan", "root")
    assert ledger.unquarantine(node, uuid(3), "root")
    entry = JournalEntry("release", time.time(), job(1).owner, gpus(0), reason="ended")
    ledger.record_entries(node, "token", [NumberedEntry(1, entry)])
    assert ledger.release(node, manual(2).owner, "done") != []
    ledger.publish_scan(observation(node), [job(1).owner])
    after = ledger.wait_for_event(node, "", 0.0)
    assert ledger.wait_for_event(node, after, 0.01) == after
    assert len(ledger.history(node, 0.0)) > 5


@pytest.mark.parametrize("node", NODES)
def test_a_nodes_user_does_all_of_its_own_node(site: UserSite, node: str) -> None:
    use_node(site.ledger("node", node), node)

    assert [one.node for one in site.ledger("node", "n1").read_nodes()] == [node]


def test_every_user_reads_all_nodes(site: UserSite) -> None:
    for node in NODES:
        site.ledger("node", node).reserve_given(job(1), gpus(0), observation(node))

    for ledger in (site.ledger("reader"), site.ledger("node", "n1"), site.ledger("admin")):
        views = ledger.read_nodes()
        assert {one.node for one in views} == set(NODES)
        assert all(uuid(0) in one.reservations for one in views)
        assert ledger.history("n10", 0.0)[-1].kind == "grant"
        assert ledger.wait_for_event("n10", "0-0", 1.0) != "0-0"


@pytest.mark.parametrize(("own", "other"), PAIRS)
def test_a_nodes_user_changes_no_other_node(site: UserSite, own: str, other: str) -> None:
    for node in (own, other):
        site.ledger("admin").reserve_given(job(1), gpus(0), observation(node))
    keys = [*node_keys(other).in_order(), "canhazgpu:nodes"]
    before = contents(site.direct, keys)

    with site.client("node", own) as client:
        for command in hostile_commands(other, own, "canhazgpu"):
            assert_denied(client, command)
    for change in (
        lambda ledger: ledger.reserve_given(job(9), gpus(1), observation(other)),
        lambda ledger: ledger.release(other, job(1).owner, "mine"),
        lambda ledger: ledger.publish_scan(observation(other, 1)),
        lambda ledger: ledger.quarantine(other, uuid(1), "mine", "root"),
        lambda ledger: ledger.forget_node(other),
    ):
        with pytest.raises(StoreError, match=f"the login of {own} changes that node alone"):
            change(site.ledger("node", own))

    assert contents(site.direct, keys) == before


def test_a_reader_changes_nothing(site: UserSite) -> None:
    site.ledger("admin").reserve_given(job(1), gpus(0), observation("n1"))
    keys = [*node_keys("n1").in_order(), "canhazgpu:nodes"]
    before = contents(site.direct, keys)

    with site.client("reader") as client:
        for command in (
            *hostile_commands("n1", "", "canhazgpu"),
            ("SADD", "canhazgpu:nodes", "n1"),
            ("SCRIPT", "LOAD", "return 1"),
            ("EVAL", "return 1", "0"),
            ("EVALSHA", "0" * 40, "0"),
        ):
            assert_denied(client, command)
    with pytest.raises(StoreError, match=r"lacks the right \+evalsha"):
        site.ledger("reader").publish_scan(observation("n1"))

    assert contents(site.direct, keys) == before


@pytest.mark.parametrize(("role", "node"), [("node", "n1"), ("reader", "")])
def test_nobody_but_the_administrator_touches_the_server(
    site: UserSite, role: str, node: str
) -> None:
    with site.client(role, node) as client:
        for command in SERVER_COMMANDS:
            assert_denied(client, tuple(command.split()))


def test_the_administrator_does_what_the_documents_say(site: UserSite) -> None:
    ledger = site.ledger("admin")
    use_node(ledger, "n1")
    with site.client("admin") as client:
        for command in (
            "ACL LIST", "ACL WHOAMI", "CONFIG GET save", "INFO", "PING", "SCAN 0 MATCH canhazgpu:*",
            "UNLINK canhazgpu:{n1}:history", "XRANGE canhazgpu:{n1}:history - +", "SLOWLOG GET",
            "CLIENT LIST", "MEMORY USAGE canhazgpu:nodes", "ACL DRYRUN canhazgpu-reader PING",
        ):  # fmt: skip
            client.execute_command(*command.split())
        for command in ("FLUSHALL", "FLUSHDB", "SWAPDB 0 1", "GET elsewhere", "SET elsewhere 1"):
            assert_denied(client, tuple(command.split()))
    assert ledger.forget_node("n1")
    assert ledger.read_nodes() == []


@pytest.mark.slow
@pytest.mark.parametrize("prefix", PREFIXES)
def test_users_of_one_prefix_have_nothing_of_another(site: UserSite, prefix: str) -> None:
    others = [one for one in PREFIXES if one != prefix]
    for role, node in (("node", "n1"), ("reader", ""), ("admin", "")):
        with site.client(role, node, prefix) as client:
            for other in others:
                for command in hostile_commands("n1", "", other):
                    assert_denied(client, command)
                assert_denied(client, ("SMEMBERS", f"{other}:nodes"))
                assert_denied(client, ("HGETALL", node_keys("n1", other).scan))
                assert_denied(client, ("SADD", f"{other}:nodes", "n1"))


def test_two_clusters_on_one_server_do_not_see_each_other(site: UserSite) -> None:
    first, second = (site.ledger("node", "n1", prefix) for prefix in PREFIXES[:2])

    assert isinstance(first.reserve_given(job(1), gpus(0), observation("n1")), GrantedGpus)
    assert isinstance(second.reserve_given(job(2), gpus(0), observation("n1")), GrantedGpus)

    assert view(first, "n1").reservations[uuid(0)].claim.job_id == "1"
    assert view(second, "n1").reservations[uuid(0)].claim.job_id == "2"
    assert [one.node for one in second.read_nodes()] == ["n1"]
    assert second.release("n1", job(1).owner, "not ours") == []
    assert len(first.history("n1", 0.0)) == len(second.history("n1", 0.0)) == 1


@pytest.mark.slow
def test_users_of_a_redis_cluster(site: UserSite) -> None:
    settings = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    with (
        PrivateRedis(binary=site.server.binary, tcp=True, settings=settings) as server,
        server.client() as direct,
    ):
        direct.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        give_up = time.monotonic() + 20
        while direct.cluster("INFO")["cluster_state"] != "ok":
            assert time.monotonic() < give_up
            time.sleep(0.01)
        cluster = UserSite(server, direct)
        cluster.set_users()
        for role, node in (("node", "n1"), ("reader", ""), ("admin", "")):
            config = cluster.config(role, node)
            url = config.url.replace("redis://", "redis+cluster://").removesuffix("/0")
            ledger = RedisLedger(type(config)(url=url), Role.WRITE)
            if role == "node":
                use_node(ledger, "n1")
                with pytest.raises(StoreError, match="login of n1 changes that node alone"):
                    ledger.publish_scan(observation("n10"))
            assert [one.node for one in ledger.read_nodes()] == ["n1"]
