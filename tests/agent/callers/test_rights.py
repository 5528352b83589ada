"""Who a caller counts as, and what it may do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canhazgpu.agent.callers.rights import Accounts, CallerFacts, counts_as, rights_of

ANN, BOB, SUB = 1001, 1002, 100_005
STAFF = 50
NOBODY = Accounts()


def own(uid: int, *groups: int) -> CallerFacts:
    return CallerFacts(uid, has_account=True, groups=frozenset(groups))


def sub(
    *owners: int, has_account: bool | None = False, groups: tuple[int, ...] = ()
) -> CallerFacts:
    return CallerFacts(SUB, has_account, frozenset(owners), frozenset(groups))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (own(ANN), ANN),
        (sub(ANN), ANN),
        # Where the name service gives no answer, the uid stands for itself, or for its owner.
        (CallerFacts(ANN, has_account=None), ANN),
        (sub(ANN, has_account=None), ANN),
        # Root may map any uid: that a range of root's has it says nothing.
        (CallerFacts(ANN, has_account=True, owners=frozenset({0})), ANN),
        (sub(0, ANN), ANN),
        # A range may have the account that it is of.
        (CallerFacts(ANN, has_account=True, owners=frozenset({ANN})), ANN),
        # Nobody knows whose these are.
        (sub(), None),
        (sub(0), None),
        (sub(ANN, BOB), None),
        (sub(ANN, has_account=True), None),
        (CallerFacts(BOB, has_account=True, owners=frozenset({ANN})), None),
    ],
)
def test_who_a_caller_counts_as(facts: CallerFacts, expected: int | None) -> None:
    assert counts_as(facts) == expected
    rights = rights_of(facts, NOBODY, None)
    assert rights.may_reserve is (expected is not None)
    assert bool(rights.why_not) is (expected is None)
    assert not rights.may_administrate


def test_root_administrates_whatever_is_configured() -> None:
    rights = rights_of(own(0), NOBODY, NOBODY)
    assert (rights.may_reserve, rights.may_administrate) == (True, True)


@pytest.mark.parametrize(
    ("facts", "is_operator"),
    [
        (own(ANN), True),
        (own(BOB), False),
        (own(BOB, STAFF), True),
        # An operator's containers are not the operator.
        (sub(ANN), False),
        (sub(ANN, groups=(STAFF,)), False),
        (CallerFacts(ANN, has_account=True, owners=frozenset({BOB})), False),
        (CallerFacts(ANN, has_account=None), True),
    ],
)
def test_operators_administrate(facts: CallerFacts, is_operator: bool) -> None:
    operators = Accounts(frozenset({ANN}), frozenset({STAFF}))
    assert rights_of(facts, operators, None).may_administrate is is_operator


@pytest.mark.parametrize(
    ("facts", "may"),
    [
        (own(ANN), True),
        (own(BOB), False),
        (own(BOB, STAFF), True),
        (sub(ANN), True),
        (sub(BOB), False),
        (sub(BOB, groups=(STAFF,)), True),
        (sub(), False),
    ],
)
def test_a_site_may_say_who_reserves(facts: CallerFacts, may: bool) -> None:
    users = Accounts(frozenset({ANN}), frozenset({STAFF}))
    rights = rights_of(facts, NOBODY, users)
    assert rights.may_reserve is may
    assert bool(rights.why_not) is not may


def test_a_list_of_names_that_nobody_has_lets_nobody_in() -> None:
    """It is not the empty list, which lets in everybody."""
    assert not rights_of(own(ANN), NOBODY, NOBODY).may_reserve
    told = rights_of(own(ANN), NOBODY, Accounts(is_complete=False)).why_not
    assert "as far as the name service answered" in told


UIDS = st.sampled_from([0, 1, ANN, BOB, SUB, 2**32 - 2])
FACTS = st.builds(
    CallerFacts,
    UIDS,
    st.sampled_from([True, False, None]),
    st.frozensets(UIDS, max_size=3),
    st.frozensets(st.sampled_from([0, STAFF]), max_size=2),
)


@given(FACTS, st.frozensets(UIDS, max_size=2), st.none() | st.frozensets(UIDS, max_size=2))
def test_only_root_and_a_listed_account_of_its_own_administrate(
    facts: CallerFacts, operators: frozenset[int], users: frozenset[int] | None
) -> None:
    listed = None if users is None else Accounts(users)
    rights = rights_of(facts, Accounts(operators), listed)
    if rights.may_administrate:
        assert facts.uid == 0 or (facts.uid in operators and counts_as(facts) == facts.uid)
    if rights.may_administrate or not rights.why_not:
        assert rights.may_reserve
    if facts.uid != 0 and counts_as(facts) is None:
        assert not rights.may_reserve
    # Nobody counts as root but root.
    assert (counts_as(facts) == 0) <= (facts.uid == 0)
