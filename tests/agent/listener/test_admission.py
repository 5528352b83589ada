"""How many requests are taken at once."""

from __future__ import annotations

from canhazgpu.agent.listener.admission import FIRST_REQUESTS, Admission, Limits
from canhazgpu.agent.request import RequestSocket

ANN, BOB, EVE = 1001, 1002, 1003


def test_people_take_no_slot_of_hooks() -> None:
    admission = Admission(Limits(hooks=1, people=2, per_user=2))
    for user in range(2 + FIRST_REQUESTS):
        assert not admission.is_full(RequestSocket.PEOPLE)
        assert admission.admit(RequestSocket.PEOPLE, user)

    assert admission.is_full(RequestSocket.PEOPLE)
    assert not admission.is_full(RequestSocket.HOOKS)
    assert admission.admit(RequestSocket.HOOKS, 0)
    assert admission.is_full(RequestSocket.HOOKS)


def test_one_user_takes_only_so_many() -> None:
    admission = Admission(Limits(hooks=1, people=5, per_user=2))
    assert [admission.admit(RequestSocket.PEOPLE, ANN) for _ in range(3)] == [True, True, False]
    assert admission.admit(RequestSocket.PEOPLE, BOB)

    admission.leave(RequestSocket.PEOPLE, ANN)

    assert admission.admit(RequestSocket.PEOPLE, ANN)
    assert not admission.admit(RequestSocket.PEOPLE, ANN)


def test_users_who_have_taken_all_places_keep_nobody_out() -> None:
    admission = Admission(Limits(hooks=1, people=4, per_user=2))
    assert all(admission.admit(RequestSocket.PEOPLE, user) for user in (ANN, ANN, BOB, BOB))

    assert not admission.admit(RequestSocket.PEOPLE, ANN)
    assert admission.admit(RequestSocket.PEOPLE, EVE)
    # One only: there are no places left.
    assert not admission.admit(RequestSocket.PEOPLE, EVE)
    admission.leave(RequestSocket.PEOPLE, ANN)
    admission.leave(RequestSocket.PEOPLE, ANN)
    assert admission.admit(RequestSocket.PEOPLE, EVE)


def test_what_left_is_counted_no_longer() -> None:
    admission = Admission(Limits(hooks=1, people=1, per_user=1))
    for arrived_at in RequestSocket:
        for _ in range(3):
            assert admission.admit(arrived_at, ANN)
            assert arrived_at is RequestSocket.PEOPLE or admission.is_full(arrived_at)
            admission.leave(arrived_at, ANN)
            assert not admission.is_full(arrived_at)
            assert admission.admit(arrived_at, ANN)
            admission.leave(arrived_at, ANN)
