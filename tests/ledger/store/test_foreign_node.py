"""Two clusters with nodes of one name on one store: the second is refused, and told what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from ledger_samples import Observe, Store, contents, gpus, job, manual, uuid, view, waiter

from canhazgpu.errors import ForeignNodeError, error_text
from canhazgpu.ledger.grant_answers import GrantedGpus
from canhazgpu.ledger.journal_entries import JournalEntry, NumberedEntry
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.keys import NodeKeys
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.node.identity import NodeIdentity


def identity(node: str, cluster: str = "alpha", machine: str = "m1") -> NodeIdentity:
    return NodeIdentity(node, cluster, machine, f"host-of-{machine}")


def ledger_of(store: Store, own: NodeIdentity) -> RedisLedger:
    return RedisLedger(store.config, Role.WRITE, identity=own)


CHANGES: dict[str, Callable[[RedisLedger, str, Any], Any]] = {
    "reserve_given": lambda one, _, seen: one.reserve_given(job(9), gpus(1), seen),
    "reserve_count": lambda one, _, seen: one.reserve_count(job(9), 1, seen),
    "publish_scan": lambda one, _, seen: one.publish_scan(seen),
    "release": lambda one, node, _: one.release(node, job(1).owner, "ended"),
    "renew": lambda one, node, _: one.renew(node, job(1).owner),
    "extend": lambda one, node, _: one.extend(node, manual(2).owner, 60.0),
    "join_queue": lambda one, node, _: one.join_queue(node, waiter(job(9))),
    "leave_queue": lambda one, node, _: one.leave_queue(node, [job(9).owner], "left"),
    "quarantine": lambda one, node, _: one.quarantine(node, uuid(1), "fan", "root"),
    "unquarantine": lambda one, node, _: one.unquarantine(node, uuid(1), "root"),
    "record": lambda one, node, _: one.record_entries(
        node, "t", [NumberedEntry(1, JournalEntry("release", 1.0, job(1).owner, gpus(0)))]
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_clusters_node_changes_nothing(
    store: Store, node: str, observe: Observe, node_hashes: NodeKeys, change: str
) -> None:
    first = ledger_of(store, identity(node))
    first.reserve_given(job(1), gpus(0), observe())
    before = contents(store.raw_client, node_hashes.in_order())
    other = ledger_of(store, identity(node, "beta", "m2"))

    with pytest.raises(ForeignNodeError) as caught:
        CHANGES[change](other, node, observe())

    told = error_text(caught.value)
    assert f"{node} as a node of cluster 'alpha', on the host 'host-of-m1'" in told
    assert "cluster 'beta'" in told and "store.prefix" in told
    assert f"canhazgpu admin forget {node}" in told
    assert contents(store.raw_client, node_hashes.in_order()) == before


@pytest.mark.parametrize(
    "own",
    [("alpha", "m1"), ("alpha", "new mainboard"), ("beta", "m1")],
    ids=["the same", "another machine of the cluster", "another cluster of the machine"],
)
def test_the_node_itself_goes_on(
    store: Store, node: str, observe: Observe, own: tuple[str, str]
) -> None:
    ledger_of(store, identity(node)).publish_scan(observe())
    after = ledger_of(store, identity(node, *own))

    assert isinstance(after.reserve_given(job(1), gpus(0), observe()), GrantedGpus)
    after.publish_scan(observe())
    with pytest.raises(ForeignNodeError, match=f"cluster '{own[0]}'"):
        ledger_of(store, identity(node, "gamma", "m3")).publish_scan(observe())


def test_who_records_nothing_is_refused_too_and_says_nothing_of_the_node(
    store: Store, node: str, observe: Observe, node_hashes: NodeKeys
) -> None:
    """So do people's commands."""
    user = replace(identity(node, "beta", "m2"), records=False)
    ledger_of(store, user).publish_scan(observe())
    assert store.raw_client.hget(node_hashes.scan, "identity") is None

    ledger_of(store, identity(node)).publish_scan(observe())
    with pytest.raises(ForeignNodeError):
        ledger_of(store, user).reserve_given(job(1), gpus(0), observe())
    before = store.raw_client.hget(node_hashes.scan, "identity")
    same = replace(identity(node, "beta", "m1"), records=False)
    ledger_of(store, same).publish_scan(observe())
    assert store.raw_client.hget(node_hashes.scan, "identity") == before


def test_a_node_that_was_forgotten_is_the_next_ones(
    store: Store, node: str, observe: Observe
) -> None:
    ledger_of(store, identity(node)).publish_scan(observe())
    other = ledger_of(store, identity(node, "beta", "m2"))
    # The command that the error names works on the refused node too.
    assert other.forget_node(node)

    other.publish_scan(observe())
    with pytest.raises(ForeignNodeError):
        ledger_of(store, identity(node)).publish_scan(observe())


def test_a_ledger_without_identity_and_other_nodes_are_as_before(
    store: Store, node: str, observe: Observe, ledger: RedisLedger
) -> None:
    """So do the release before, people's commands, and administrators elsewhere."""
    ledger_of(store, identity(node)).publish_scan(observe())

    ledger.publish_scan(observe())
    assert ledger.quarantine(node, uuid(1), "fan", "root")
    elsewhere = ledger_of(store, identity("elsewhere", "beta", "m2"))
    assert elsewhere.unquarantine(node, uuid(1), "root")
    with pytest.raises(ForeignNodeError):
        ledger_of(store, identity(node, "beta", "m2")).publish_scan(observe())


def test_two_prefixes_keep_them_apart(store: Store, node: str, observe: Observe) -> None:
    ledgers = [
        RedisLedger(replace(store.config, prefix=prefix), Role.WRITE, identity=own)
        for prefix, own in (
            ("canhazgpu", identity(node)),
            ("beta", identity(node, "beta", "m2")),
        )
    ]
    for number, one in enumerate(ledgers):
        assert isinstance(one.reserve_given(job(number), gpus(0), observe()), GrantedGpus)
    assert [view(one, node).reservations[uuid(0)].claim.job_id for one in ledgers] == ["0", "1"]


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "7", '{"cluster": 7}', '{"cluster": "alpha"}', "{"]
)
def test_what_is_no_identity_refuses_nobody(
    store: Store, node: str, observe: Observe, node_hashes: NodeKeys, text: str
) -> None:
    store.raw_client.hset(node_hashes.scan, "identity", text)

    ledger_of(store, identity(node)).publish_scan(observe())

    with pytest.raises(ForeignNodeError):
        ledger_of(store, identity(node, "beta", "m2")).publish_scan(observe())
