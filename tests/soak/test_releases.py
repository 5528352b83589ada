"""A `release` names GPUs: it may end a reservation that its user has got meanwhile."""

from __future__ import annotations

import pytest

from canhazgpu_soak.load.releases import Release, held_until

ASKED, ENDS = 10.0, 30.0


def until(*releases: Release) -> float:
    return held_until("alice", "n1", ("GPU-a", "GPU-b"), ASKED, ENDS, releases)


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        (Release("alice", "n1", frozenset({"GPU-b", "GPU-c"}), 12.0, 13.0), 12.0),
        (Release("alice", "n1", frozenset({"GPU-a"}), 12.0), 12.0),
        (Release("alice", "n1", frozenset({"GPU-a"}), 8.0, 10.5), 8.0),
        (Release("alice", "n1", frozenset({"GPU-a"}), 8.0, 9.0), ENDS),
        (Release("alice", "n1", frozenset({"GPU-a"}), 31.0), ENDS),
        (Release("bob", "n1", frozenset({"GPU-a"}), 12.0), ENDS),
        (Release("alice", "n2", frozenset({"GPU-a"}), 12.0), ENDS),
        (Release("alice", "n1", frozenset({"GPU-c"}), 12.0), ENDS),
    ],
    ids=[
        "meanwhile",
        "still under way",
        "begun before it was asked for",
        "over before",
        "after its end",
        "another user",
        "another node",
        "other GPUs",
    ],
)
def test_until_when_a_user_certainly_has_the_gpus(release: Release, expected: float) -> None:
    assert until(release) == expected


def test_the_first_of_several_counts() -> None:
    late, early = (Release("alice", "n1", frozenset({"GPU-a"}), at) for at in (20.0, 15.0))
    assert until(late, early) == 15.0
    assert until() == ENDS
