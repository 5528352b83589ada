"""What a node's user can make of the indexes: a needless read, and no word of another node."""

from __future__ import annotations

import pytest
from ledger_samples import gpus, job, observation, waiter

from canhazgpu.ledger.store.keys import jobs_index_key, user_index_key
from canhazgpu.ledger.usage import DAY_S

from .conftest import UserSite
from .test_rights import assert_denied


def changes(key: str) -> list[tuple[str, ...]]:
    """Commands that would take a hint away or hide it."""
    return [
        ("SREM", key, "x"), ("SPOP", key), ("DEL", key), ("UNLINK", key), ("EXPIRE", key, "1"),
        ("SET", key, "x"), ("RENAME", key, f"{key}0"), ("SMOVE", key, f"{key}0", "x"),
        ("SINTERSTORE", key, f"{key}0"), ("SUNIONSTORE", key, f"{key}0"), ("COPY", key, f"{key}0"),
        ("EVAL", f"return redis.call('DEL', '{key}')", "0"), ("RESTORE", key, "0", "x", "REPLACE"),
    ]  # fmt: skip


def test_a_nodes_user_adds_hints_and_takes_none_away(site: UserSite) -> None:
    ledger = site.ledger("node", "n1")
    ledger.reserve_given(job(7), gpus(0), observation("n1"))
    day = int(site.direct.time()[0] // DAY_S)
    keys = [jobs_index_key(7), user_index_key(1000, day)]
    assert all(site.direct.scard(key) == 1 for key in keys)
    with site.client("node", "n10") as client:
        for command in (one for key in keys for one in changes(key)):
            assert_denied(client, command)
    with site.client("reader") as client:
        for key in keys:
            assert_denied(client, ("SADD", key, "x"))
    assert all(site.direct.scard(key) == 1 for key in keys)


def test_false_hints_of_another_node_are_told_of_nobody(site: UserSite) -> None:
    honest = site.ledger("node", "n1")
    honest.reserve_given(job(7), gpus(0), observation("n1"))
    honest.join_queue("n1", waiter(job(8)))
    site.ledger("node", "n10").publish_scan(observation("n10"))
    for node in ("n1", "n10"):
        site.ledger("node", node).keep_indexes(node)
    day = int(site.direct.time()[0] // DAY_S)
    flood = [f"7 {name} {day}" for name in ("n10", "no-node", "../n1", "x" * 10**6)]
    with site.client("node", "n10") as client:
        client.sadd(jobs_index_key(7), *flood, *(f"7 f{number} {day}" for number in range(20000)))
        client.sadd(user_index_key(1000, day), "n10", "\x1b[2J", "x" * 10**6)
    reader = site.ledger("reader")
    found = reader.find_job("7")
    assert "n1" in found.nodes
    assert "x" * 10**6 not in found.nodes
    assert next(one.kind for one in reader.history_on("n1", found.days["n1"])) == "grant"
    for node in ("n10", "no-node"):
        told = reader.history_on(node, found.days[node])
        assert [one for one in told if one.claim and one.claim.job_id == "7"] == []
    users = reader.find_user(1000, 1)
    assert "n1" in users.nodes
    assert not any("\x1b" in one for one in users.nodes)


@pytest.mark.parametrize("node", ["n1"])
def test_a_login_of_before_may_not_add_hints_and_works(site: UserSite, node: str) -> None:
    user = f"canhazgpu-node-{node}"
    rules = next(one for one in site.direct.acl_list() if one.split()[1] == user)
    without = rules.split()[2:]
    text = " ".join(without).replace("(%W~canhazgpu:index:* resetchannels -@all +sadd)", "")
    text = text.replace("(%W~canhazgpu:index:* -@all +sadd)", "")
    site.direct.execute_command("ACL", "SETUSER", user, "reset", *text.split())
    ledger = site.ledger("node", node)
    ledger.reserve_given(job(7), gpus(0), observation(node))
    ledger.keep_indexes(node)
    assert ledger.read_nodes([node])[0].reservations.keys() == set(gpus(0))
    # Its entries do not count as complete: it is read in full.
    assert node in site.ledger("reader").find_user(1000, 1).unindexed
    assert node in site.ledger("reader").find_job("7").unindexed
