"""What one user may have of a node, by what is held and waited for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canhazgpu.ledger.user_limits import (
    NO_LIMITS,
    UserLimits,
    over_limit,
    too_many_waiters,
)
from canhazgpu.ledger.values import Claim, Reservation, Waiter

ANN, BOB = 1001, 1002
OWN = Claim("run:own", "run", "ann", ANN)
FOUR = UserLimits(max_gpus=4)


def held(gpu: int, owner: str = "manual:a", uid: int = ANN) -> Reservation:
    return Reservation(f"GPU-{gpu}", Claim(owner, owner.partition(":")[0], "x", uid), 1.0)


def waiter(owner: str, count: int = 1, uid: int = ANN, gpus: tuple[str, ...] = ()) -> Waiter:
    return Waiter(owner, "x", uid, count, gpus)


@pytest.mark.parametrize(
    ("reservations", "waiters", "count", "refused"),
    [
        ([], [], 4, False),
        ([], [], 5, True),
        ([held(0), held(1, "run:b")], [], 2, False),
        ([held(0), held(1, "run:b")], [], 3, True),
        ([held(0)], [waiter("run:w", 2)], 1, False),
        ([held(0)], [waiter("run:w", 2)], 2, True),
        ([held(0)], [waiter("run:w", 0, gpus=("GPU-4", "GPU-5"))], 2, True),
        # What is others', a job's, or the request's own does not count.
        ([held(gpu, "run:b", BOB) for gpu in range(4)], [waiter("run:w", 4, BOB)], 4, False),
        ([held(gpu, "job:c:1:0") for gpu in range(4)], [], 4, False),
        ([held(gpu, OWN.owner) for gpu in range(4)], [waiter(OWN.owner, 4)], 4, False),
        # Who waits behind gives way.
        ([held(0)], [waiter(OWN.owner, 2), waiter("run:w", 3)], 3, False),
        ([held(0)], [waiter("run:w", 3), waiter(OWN.owner, 2)], 2, True),
    ],
)
def test_gpus_that_are_held_and_waited_for_count(
    reservations: list[Reservation], waiters: list[Waiter], count: int, refused: bool
) -> None:
    assert bool(over_limit(FOUR, reservations, waiters, OWN, count)) is refused
    assert over_limit(NO_LIMITS, reservations, waiters, OWN, count) == ""


def test_each_holder_of_a_shared_gpu_counts() -> None:
    shared = replace(held(0, "job:c:1:0", BOB), co_holders=(held(0, "run:b"),))

    assert over_limit(UserLimits(max_gpus=1), [shared], [], OWN, 1)
    assert not over_limit(UserLimits(max_gpus=2), [shared], [], OWN, 1)


def test_the_text_says_what_is_held_and_what_is_allowed() -> None:
    text = over_limit(FOUR, [held(0), held(1)], [waiter("run:w")], OWN, 2)

    assert text == (
        "a user may have 4 GPUs of a node at most (run.max_gpus);"
        " you hold 2, wait for 1, and ask for 2 more"
    )


@pytest.mark.slow
@given(st.lists(st.integers(1, 3), max_size=12), st.integers(1, 8))
def test_whoever_asks_one_after_another_never_has_more(asked: list[int], most: int) -> None:
    reservations: list[Reservation] = []
    for place, count in enumerate(asked):
        claim = Claim(f"run:{place}", "run", "ann", ANN)
        if not over_limit(UserLimits(most), reservations, [], claim, count):
            reservations += [held(len(reservations), claim.owner) for _ in range(count)]
            assert len(reservations) <= most
        else:
            assert len(reservations) + count > most


def test_waiters_of_a_user_are_counted() -> None:
    two = UserLimits(max_waiters=2)
    waiting = [waiter("run:a"), waiter("run:b", uid=BOB)]

    assert too_many_waiters(two, waiting, waiter("run:c")) == ""
    waiting.append(waiter("run:c"))
    assert too_many_waiters(two, waiting, waiter("run:d")) == (
        "2 requests of yours wait already, and a user may have 2 at most"
        " (agent.max_waiters_per_user)"
    )
    assert too_many_waiters(two, waiting, waiter("run:c")) == ""
    assert too_many_waiters(two, waiting, waiter("run:d", uid=BOB)) == ""
    assert too_many_waiters(NO_LIMITS, waiting, waiter("run:d")) == ""
