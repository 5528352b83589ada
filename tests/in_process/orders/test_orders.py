"""Orders from one host to another over a real store with a user for each."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ledger_samples import gpus, uuid

from canhazgpu.errors import (
    CanhazgpuError,
    InputError,
    NodeStateError,
    OrderInterruptedError,
    StoreError,
    UnavailableError,
    advice_for,
)
from canhazgpu.gpu.ids import GpuIndex
from canhazgpu.in_process.orders import carry_out
from canhazgpu.in_process.orders.carry_out import LOCK_FILE, carry_out_orders
from canhazgpu.in_process.orders.taken_orders import FILE, TakenOrders
from canhazgpu.in_process.service import InProcessService
from canhazgpu.ledger.local.notices import Notices
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.keys import order_keys
from canhazgpu.ledger.store.orders import OrderStore
from canhazgpu.node.state_files import try_file_lock
from canhazgpu.node.users import Caller, Rights
from canhazgpu.service.health import QuarantineRequest, UnquarantineRequest
from canhazgpu.service.holdings import ExtendRequest, ReleaseAnswer, ReleaseRequest, RevokeRequest
from canhazgpu.service.orders import OrderedRequest, order_from_text, order_to_text

from .conftest import AGENT, ALICE, BOB, CHECK, NODE, ROOT, Shown, Site


def test_a_users_own_reservations_are_released_by_the_node(site: Site) -> None:
    site.reserve(ALICE, 0, 1)
    site.reserve(BOB, 2)

    answer = site.order(ReleaseRequest(), ALICE)

    assert (answer.node, site.held) == (NODE, {uuid(2)})
    assert [(one.claim.user, one.gpus) for one in answer.released] == [("alice", gpus(0, 1))]
    assert site.shown.is_done


def test_nobody_releases_what_is_anothers(site: Site) -> None:
    site.reserve(BOB, 2)

    with pytest.raises(InputError, match="reserved by bob"):
        site.order(ReleaseRequest(gpus=(GpuIndex(2),)), ALICE)

    assert site.held == {uuid(2)}


def test_an_administrator_takes_away_and_the_history_says_who_and_where(site: Site) -> None:
    site.reserve(BOB, 2)

    answer = site.order(RevokeRequest("needed", user="bob"), ROOT)

    assert [one.claim.user for one in answer.released] == ["bob"]
    assert site.held == set()
    event = [one for one in site.ledger.history(NODE, 0.0) if one.kind == "release"][-1]
    assert event.reason == "needed"
    assert event.by.startswith("root@") and len(event.by) > len("root@")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root keeps notices")
def test_who_lost_something_is_told_at_the_next_command_there(site: Site) -> None:
    site.reserve(BOB, 1, 2)
    site.reserve(ALICE, 0)

    site.order(RevokeRequest("needed", user="bob"), ROOT)
    site.order(ReleaseRequest(), ALICE)

    notices = Notices(site.directory / NODE)
    (told,) = notices.take(BOB.uid)
    assert (told.gpus, told.reason) == ("GPU 1, 2", "needed")
    assert told.by.startswith("root@")
    assert notices.take(ALICE.uid) == ()


@pytest.mark.parametrize(
    "request_",
    [
        RevokeRequest("x", user="bob"),
        QuarantineRequest((GpuIndex(0),), "x"),
        UnquarantineRequest((GpuIndex(0),)),
    ],
)
def test_who_is_no_administrator_there_does_not_administrate(
    site: Site, request_: OrderedRequest
) -> None:
    site.reserve(BOB, 2)

    with pytest.raises(InputError, match="operators may"):
        site.order(request_, ALICE)

    assert (site.held, site.view.quarantines) == ({uuid(2)}, {})


def test_who_may_not_reserve_there_orders_no_extension(site: Site) -> None:
    site.reserve(ALICE, 0)
    unwanted = replace(ALICE, rights=Rights(may_reserve=False, why_not="the site says so"))

    with pytest.raises(InputError, match="the site says so"):
        site.order(ExtendRequest(60.0), unwanted)

    # What is one's own may be released all the same.
    site.order(ReleaseRequest(), unwanted)
    assert site.held == set()


def test_whom_the_node_grants_nothing_the_node_extends_nothing(site: Site) -> None:
    """Whatever the login host's own `agent.users` say."""
    site.reserve(ALICE, 0)
    before = site.view.reservations
    site.rights_of_giver = lambda agent, uid: Rights(uid != ALICE.uid, why_not="the node says so")

    with pytest.raises(InputError, match="the node says so"):
        site.order(ExtendRequest(60.0), ALICE)

    assert site.view.reservations == before
    site.order(ReleaseRequest(), ALICE)
    assert site.held == set()


def test_gpus_are_quarantined_and_unquarantined(site: Site) -> None:
    from canhazgpu.service.health import QuarantineAnswer

    site.reserve(BOB, 2)

    answer = site.order(QuarantineRequest((GpuIndex(2),), "fan"), ROOT, QuarantineAnswer)

    assert site.view.quarantines[uuid(2)].reason == "fan"
    assert [one.user for one in answer.changes[0].holders] == ["bob"]
    site.order(UnquarantineRequest((GpuIndex(2),)), ROOT, QuarantineAnswer)
    assert site.view.quarantines == {}


def test_an_order_that_comes_twice_is_carried_out_once(site: Site) -> None:
    from canhazgpu.service.holdings import ExtendAnswer

    site.reserve(ALICE, 0)
    before = site.view.reservations[uuid(0)].expires_at
    keys = order_keys(NODE)

    def twice(seconds: float) -> None:
        with site.server.client() as direct:
            text = direct.lindex(keys.orders, 0)
            if text:
                direct.rpush(keys.orders, text)
        site.look(seconds)

    site.command(twice).carry_out(ExtendRequest(100.0), ALICE, ExtendAnswer)
    site.carry_out()

    after = site.view.reservations[uuid(0)].expires_at
    assert before is not None and after == pytest.approx(before + 100.0)


def test_a_store_that_returns_to_an_older_copy_has_nothing_carried_out_twice(site: Site) -> None:
    from canhazgpu.service.holdings import ExtendAnswer

    site.reserve(ALICE, 0)
    before = site.view.reservations[uuid(0)].expires_at
    old: list[str] = []
    keys = order_keys(NODE)

    def kept(seconds: float) -> None:
        with site.server.client() as direct:
            old.extend(map(str, direct.lrange(keys.orders, 0, -1)))
        site.look(seconds)

    site.command(kept).carry_out(ExtendRequest(100.0), ALICE, ExtendAnswer)
    with site.server.client() as direct:
        direct.delete(keys.order_answers)
        direct.rpush(keys.orders, *old)

        assert site.carry_out() == 1

        (answer,) = direct.hvals(keys.order_answers)
    assert "has taken this order before" in str(answer)
    after = site.view.reservations[uuid(0)].expires_at
    assert before is not None and after == pytest.approx(before + 100.0)


@pytest.mark.parametrize("content", [b"", b"x", b"[]", b'{"a":"b"}', b'{"a":[]}', b"\xff"])
def test_a_record_of_taken_orders_that_is_garbage_is_begun_anew(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / FILE).write_bytes(content)
    known = TakenOrders(tmp_path)

    assert known.take("a", 100.0, 50.0)
    assert not known.take("a", 100.0, 60.0)
    assert known.take("b", 1000.0, 900.0)
    assert known.take("a", 1000.0, 901.0)


def test_an_order_that_cannot_be_noted_is_not_carried_out(site: Site) -> None:
    site.reserve(ALICE, 0)
    (site.directory / NODE / FILE).mkdir()

    with pytest.raises(NodeStateError, match="cannot keep"):
        site.order(ReleaseRequest(), ALICE)

    assert site.held == {uuid(0)}


def test_one_that_was_taken_by_a_process_that_died_is_not_carried_out_again(site: Site) -> None:
    site.reserve(BOB, 2)

    def dies_then_another_looks(_: float) -> None:
        OrderStore(site.store("node", NODE), Role.WRITE).take(NODE, AGENT)
        site.carry_out()

    with pytest.raises(UnavailableError, match="was interrupted"):
        site.command(dies_then_another_looks).carry_out(
            RevokeRequest("x", user="bob"), ROOT, ReleaseAnswer
        )

    assert site.held == {uuid(2)}


def test_one_that_comes_after_its_giver_gave_up_is_refused(site: Site) -> None:
    site.reserve(BOB, 2)
    with pytest.raises(UnavailableError, match="will not carry the order out"):
        site.command(site.time_passes).carry_out(
            RevokeRequest("x", user="bob"), ROOT, ReleaseAnswer
        )
    # The store's clock is not the test's: the order is made as old as it would be.
    keys = order_keys(NODE)
    with site.server.client() as direct:
        order_id, _, text = str(direct.lpop(keys.orders)).partition(" ")
        order = order_from_text(text)
        late = replace(order, given_at=order.given_at - order.wait_s - 1)
        direct.rpush(keys.orders, f"{order_id} {order_to_text(late)}")

        assert site.carry_out() == 1

        assert "given up" in str(direct.hget(keys.order_answers, order_id))
    assert site.held == {uuid(2)}


def test_what_is_no_order_is_answered_and_the_next_is_carried_out(site: Site) -> None:
    site.reserve(ALICE, 0)
    keys = order_keys(NODE)
    other = order_to_text(replace(site.command()._order(ReleaseRequest(), ALICE, 60.0), node="n2"))
    with site.server.client() as direct:
        for number, text in enumerate(("{}", "x" * 9000, other, "[" * 9000)):
            direct.rpush(keys.orders, f"{number:032x} {text}")

        site.order(ReleaseRequest(), ALICE)

        answers = [str(direct.hget(keys.order_answers, f"{number:032x}")) for number in range(4)]
    assert all('"error"' in one for one in answers), answers
    assert "it is for n2" in answers[2]
    assert site.held == set()


def test_two_processes_do_not_carry_out_at_once(site: Site) -> None:
    site.reserve(ALICE, 0)
    (site.directory / NODE).mkdir(exist_ok=True)
    lock = try_file_lock(site.directory / NODE / LOCK_FILE)
    assert lock is not None
    try:
        with pytest.raises(UnavailableError):
            site.order(ReleaseRequest(), ALICE)
        assert site.held == {uuid(0)}
    finally:
        os.close(lock)

    assert site.carry_out() == 1


def test_what_is_waited_for_is_shown(site: Site) -> None:
    site.reader = CHECK
    site.carry_out()
    with pytest.raises(UnavailableError):
        site.command(site.time_passes).carry_out(ReleaseRequest(), ALICE, ReleaseAnswer)

    assert any(
        "its health check, which takes orders, runs every" in one for one in site.shown.texts
    )
    site.reader = AGENT
    site.carry_out()
    site.shown.texts.clear()
    with pytest.raises(UnavailableError):
        site.command(site.time_passes).carry_out(ReleaseRequest(), ALICE, ReleaseAnswer)
    assert any("its agent was last seen" in one for one in site.shown.texts)


def test_who_waits_no_longer_is_told_until_when_it_may_happen(site: Site) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(
        OrderInterruptedError, match=r"may still carry the order out, until \d\d:"
    ) as c:
        site.command(interrupted).carry_out(ReleaseRequest(), ALICE, ReleaseAnswer)

    assert advice_for(c.value).exit_code == 130
    assert site.shown.is_done


def test_a_store_that_goes_away_meanwhile_is_an_error(site: Site) -> None:
    def goes_away(_: float) -> None:
        site.server.kill()

    with pytest.raises(StoreError):
        site.command(goes_away).carry_out(ReleaseRequest(), ALICE, ReleaseAnswer)


def test_an_error_inside_is_answered_and_no_traceback(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:

    def breaks(*_: object) -> ReleaseAnswer:
        raise RuntimeError("boom")

    monkeypatch.setattr(carry_out, "_REQUESTS", {ReleaseRequest: breaks})

    with pytest.raises(UnavailableError, match="internal error of n1: RuntimeError: boom"):
        site.order(ReleaseRequest(), ALICE)


def as_service(site: Site, caller: Caller, role: str, here: str, node: str = "") -> Any:
    return InProcessService(site.adapters(caller, site.store(role, node), here))


@pytest.mark.slow
def test_a_node_with_an_agent_is_never_written_by_others(site: Site) -> None:
    """Not by the administrator's login either, which could."""
    site.reserve(BOB, 2)
    before = site.view.reservations

    class Stop(Exception):
        pass

    class Stopping(Shown):
        def show(self, text: str, steady: str) -> None:
            raise Stop

    with pytest.raises(Stop):
        as_service(site, ROOT, "admin", "admin-host").revoke(
            RevokeRequest("x", NODE, user="bob"), Stopping()
        )

    assert site.view.reservations == before
    assert site.carry_out() == 1
    assert site.held == set()


def test_where_no_agent_is_known_a_login_that_may_writes_itself(site: Site) -> None:
    site.reader = CHECK
    site.carry_out()
    site.reserve(BOB, 2)

    answer = as_service(site, ROOT, "admin", "admin-host").revoke(
        RevokeRequest("x", NODE, user="bob")
    )

    assert (len(answer.released), site.held) == (1, set())


@pytest.mark.slow
def test_without_an_agent_the_login_for_orders_orders(site: Site) -> None:
    site.reader = CHECK
    site.carry_out()
    site.reserve(ALICE, 0)

    class Carrying(Shown):
        def show(self, text: str, steady: str) -> None:
            site.carry_out()

    answer = as_service(site, ALICE, "order", "login1").release(ReleaseRequest(NODE), Carrying())

    assert (len(answer.released), site.held) == (1, set())


@pytest.mark.parametrize(
    ("role", "node", "told"),
    [
        ("reader", "", r"lacks the right \+rpush"),
        ("node", "n2", "login of n2 changes that node alone"),
    ],
)
def test_a_login_that_may_not_order_is_told(site: Site, role: str, node: str, told: str) -> None:
    site.reserve(ALICE, 0)

    with pytest.raises(StoreError, match=told):
        as_service(site, ALICE, role, "n2", node).release(ReleaseRequest(NODE))

    assert site.held == {uuid(0)}


def test_a_node_that_takes_no_orders_is_told(site: Site) -> None:
    with site.server.client() as direct:
        direct.delete(order_keys(NODE).order_reader)

    with pytest.raises(InputError, match="n1 takes no orders"):
        as_service(site, ALICE, "order", "login1").release(ReleaseRequest(NODE))


def test_another_release_that_answers_is_the_stores_error(site: Site) -> None:
    def strange(_: float) -> None:
        own = OrderStore(site.store("node", NODE), Role.WRITE)
        taken = own.take(NODE, AGENT)
        if taken:
            own.answer(NODE, taken, '{"form":9}')

    with pytest.raises(CanhazgpuError, match="answered with something else"):
        site.command(strange).carry_out(ReleaseRequest(), ALICE, ReleaseAnswer)


def test_a_node_whose_orders_cannot_be_read_is_an_error_of_the_store(site: Site) -> None:
    with site.server.client() as direct:
        direct.set(order_keys(NODE).orders, "no list")

    with pytest.raises(StoreError):
        carry_out_orders(
            NODE, site.on_node, OrderStore(site.store("node", NODE), Role.WRITE), AGENT
        )
