"""How many requests are taken at once."""

from __future__ import annotations

from canhazgpu.agent.listener.admission import FIRST_REQUESTS, Admission, Limits
from canhazgpu.agent.request import Door

ANN, BOB, EVE = 1001, 1002, 1003


def test_people_take_no_slot_of_hooks() -> None:
    admission = Admission(Limits(hooks=1, people=2, per_user=2))
    for user in range(2 + FIRST_REQUESTS):
        assert not admission.is_full(Door.PEOPLE)
        assert admission.admit(Door.PEOPLE, user)

    assert admission.is_full(Door.PEOPLE)
    assert not admission.is_full(Door.HOOKS)
    assert admission.admit(Door.HOOKS, 0)
    assert admission.is_full(Door.HOOKS)


def test_one_user_takes_only_so_many() -> None:
    admission = Admission(Limits(hooks=1, people=5, per_user=2))
    assert [admission.admit(Door.PEOPLE, ANN) for _ in range(3)] == [True, True, False]
    assert admission.admit(Door.PEOPLE, BOB)

    admission.leave(Door.PEOPLE, ANN)

    assert admission.admit(Door.PEOPLE, ANN)
    assert not admission.admit(Door.PEOPLE, ANN)


def test_users_who_have_taken_all_places_keep_nobody_out() -> None:
    admission = Admission(Limits(hooks=1, people=4, per_user=2))
    assert all(admission.admit(Door.PEOPLE, user) for user in (ANN, ANN, BOB, BOB))

    assert not admission.admit(Door.PEOPLE, ANN)
    assert admission.admit(Door.PEOPLE, EVE)
    # One only: there are no places left.
    assert not admission.admit(Door.PEOPLE, EVE)
    admission.leave(Door.PEOPLE, ANN)
    admission.leave(Door.PEOPLE, ANN)
    assert admission.admit(Door.PEOPLE, EVE)


def test_what_left_is_counted_no_longer() -> None:
    admission = Admission(Limits(hooks=1, people=1, per_user=1))
    for door in Door:
        for _ in range(3):
            assert admission.admit(door, ANN)
            assert door is Door.PEOPLE or admission.is_full(door)
            admission.leave(door, ANN)
            assert not admission.is_full(door)
            assert admission.admit(door, ANN)
            admission.leave(door, ANN)
