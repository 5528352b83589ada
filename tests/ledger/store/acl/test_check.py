"""`store acl --check` on real servers: what is missing, too little or too much."""

from __future__ import annotations

from dataclasses import replace

import pytest

from canhazgpu.errors import StoreError
from canhazgpu.ledger.store.acl.check import check_users

from .conftest import NODES, PREFIXES, UserSite


def problems(site: UserSite, nodes: tuple[str, ...] = NODES) -> dict[tuple[str, str], str]:
    """What the administrator is told of users other than default, which is open in tests."""
    found = check_users(site.config("admin"), nodes)
    return {(one.user, one.problem): one.detail for one in found if one.user != "default"}


def test_the_printed_users_are_as_they_should_be(site: UserSite) -> None:
    assert problems(site) == {}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_each_cluster_asks_for_its_own_users(site: UserSite, prefix: str) -> None:
    found = check_users(site.config("admin", prefix=prefix), NODES)

    assert {one.user for one in found} == {"default"}


@pytest.mark.parametrize(
    ("rules", "problem", "detail"),
    [
        ("off", "too little", "it is off"),
        ("resetpass", "too little", "no password"),
        ("-@write", "too little", "it may not HSET canhazgpu:{n1}:reservations"),
        ("-evalsha", "too little", "it may not EVALSHA"),
        ("clearselectors", "too little", "it may not SMEMBERS canhazgpu:nodes"),
        ("resetkeys", "too little", "it may not EVALSHA"),
        ("nopass", "too much", "it needs no password"),
        ("~canhazgpu:{n10}:*", "too much", "it has rights on keys canhazgpu:{n10}:*"),
        ("%W~canhazgpu:{n10}:scan", "too much", "canhazgpu:{n10}:scan"),
        ("~canhazgpu:{n1*", "too much", "canhazgpu:{n1*"),
        ("~*", "too much", "it has rights on keys *"),
        ("(~canhazgpu:* +del)", "too much", "it has rights on keys canhazgpu:*"),
        ("+config", "too much", "it may CONFIG SET maxmemory 0"),
        ("+@all", "too much", "it may CONFIG SET"),
        ("allchannels", "too much", "channels &*"),
    ],
)
def test_what_is_wrong_with_a_nodes_user_is_told(
    site: UserSite, rules: str, problem: str, detail: str
) -> None:
    words = [rules] if rules.startswith("(") else rules.split()
    site.direct.execute_command("ACL", "SETUSER", "canhazgpu-node-n1", *words)

    found = problems(site)

    assert ("canhazgpu-node-n1", problem) in found
    assert detail in found["canhazgpu-node-n1", problem]
    assert {user for user, _ in found} == {"canhazgpu-node-n1"}


@pytest.mark.parametrize(
    ("user", "rules", "problem"),
    [
        ("canhazgpu-reader", "+@write", "too much"),
        ("canhazgpu-reader", "~canhazgpu:*", "too much"),
        ("canhazgpu-reader", "-hgetall", "too little"),
        ("canhazgpu-reader", "-time", "too little"),
        ("canhazgpu-reader", "(%W~canhazgpu:{*}:orders +rpush)", "too much"),
        ("canhazgpu-order", "clearselectors", "too little"),
        ("canhazgpu-order", "(%W~canhazgpu:{*}:orders +ltrim)", "too much"),
        ("canhazgpu-order", "%W~canhazgpu:{*}:order_answers", "too much"),
        ("canhazgpu-admin", "+flushall", "too much"),
        ("canhazgpu-admin", "~*", "too much"),
        ("canhazgpu-admin", "-info", "too little"),
        ("canhazgpu-admin", "-unlink", "too little"),
    ],
)
def test_what_is_wrong_with_the_others_is_told(
    site: UserSite, user: str, rules: str, problem: str
) -> None:
    words = [rules] if rules.startswith("(") else rules.split()
    site.direct.execute_command("ACL", "SETUSER", user, *words)

    assert set(problems(site)) == {(user, problem)}


def test_missing_and_unknown_users_are_told(site: UserSite) -> None:
    site.direct.acl_deluser("canhazgpu-reader", "canhazgpu-node-N1")

    found = problems(site, (*NODES[1:], "new"))

    assert set(found) == {
        ("canhazgpu-reader", "missing"),
        ("canhazgpu-node-N1", "missing"),
        ("canhazgpu-node-new", "missing"),
        ("canhazgpu-node-n1", "unused"),
    }


@pytest.mark.parametrize(
    ("user", "rules", "told"),
    [
        ("canhazgpu", "on >x ~canhazgpu:* +@all -@admin -@dangerous", "ledger of every node"),
        ("web", "on >x ~web:* +@all", None),
        ("old", "off >x ~* +@all", None),
        ("metrics", "on >x ~* +@read", None),
    ],
)
def test_other_users_who_may_change_the_ledger_are_told(
    site: UserSite, user: str, rules: str, told: str | None
) -> None:
    site.direct.execute_command("ACL", "SETUSER", user, *rules.split())

    found = problems(site)

    assert {one for one, _ in found} == ({user} if told else set())
    assert all(told is None or told in detail for detail in found.values())


def test_a_default_user_without_a_password_is_told_until_it_is_off(site: UserSite) -> None:
    (open_one,) = check_users(site.config("admin"), NODES)
    site.direct.execute_command("ACL", "SETUSER", "default", "off")
    try:
        assert check_users(site.config("admin"), NODES) == []
    finally:
        with site.client("admin") as client:
            client.execute_command("ACL", "SETUSER", "default", "on")

    assert (open_one.user, open_one.problem) == ("default", "too much")
    assert "ACL SETUSER default off" in open_one.detail


@pytest.mark.parametrize(("role", "node"), [("node", "n1"), ("reader", "")])
def test_the_check_takes_the_administrators_login(site: UserSite, role: str, node: str) -> None:
    with pytest.raises(StoreError, match="denies this"):
        check_users(replace(site.config(role, node)), NODES)
