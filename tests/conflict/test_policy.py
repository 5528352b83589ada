"""Which step comes next: a table of causes, chains and facts."""

from __future__ import annotations

import itertools

import pytest

from canhazgpu.config.conflict_chain import CONFIGURABLE, StepKind, parse_chain
from canhazgpu.conflict.policy import ConflictCause, ConflictFacts, next_step
from canhazgpu.conflict.requeue_comment import requeue_comment, requeues_in_comment

U, R, Q = ConflictCause.UNRESERVED, ConflictCause.RESERVED, ConflictCause.QUARANTINED
UNREADABLE, ABSENT, BLIND, OURS = (
    ConflictCause.UNREADABLE,
    ConflictCause.ABSENT,
    ConflictCause.NO_GPU_READABLE,
    ConflictCause.INTERNAL_FAULT,
)
ALL = "wait:5,swap,kill,requeue,drain,warn"
ABLE = {"can_swap": True, "can_kill": True, "can_warn": True}


def walk(chain: str, *causes: ConflictCause, **facts: object) -> list[str]:
    """All steps that are tried where none helps, to the end."""
    steps = parse_chain(chain)
    known = ConflictFacts(frozenset(causes), **facts)  # type: ignore[arg-type]
    place, tried = 0, []
    while not tried or tried[-1] != "end":
        place, step = next_step(steps, place, known)
        tried.append(str(step))
        place += 1
    return tried


@pytest.mark.parametrize(
    ("causes", "facts", "tried"),
    [
        # Somebody without a reservation: all may help.
        ({U}, ABLE, "wait:5 swap kill requeue drain warn requeue hold end"),
        # A person or another job: nobody is killed, and nobody shares a GPU.
        ({R}, ABLE, "wait:5 swap requeue drain requeue hold end"),
        ({U, R}, ABLE, "wait:5 swap requeue drain requeue hold end"),
        # A GPU's own fault: it neither passes in seconds nor is anybody's process to blame.
        ({Q}, ABLE, "swap requeue drain warn requeue hold end"),
        ({UNREADABLE}, ABLE, "swap requeue drain warn requeue hold end"),
        ({U, Q}, ABLE, "swap requeue drain warn requeue hold end"),
        ({ABSENT}, ABLE, "swap requeue drain requeue hold end"),
        # No GPU can be read: there is nothing to swap with.
        ({BLIND}, ABLE, "requeue drain warn requeue hold end"),
        # A fault of canhazgpu's own neither drains a node nor holds a job.
        ({OURS}, ABLE, "requeue warn requeue hold end"),
        # What would not work here is passed over.
        ({U}, {}, "wait:5 requeue drain requeue hold end"),
        ({U}, {**ABLE, "can_kill": False}, "wait:5 swap requeue drain warn requeue hold end"),
        # A job that cannot be requeued.
        ({U}, {"can_requeue": False}, "wait:5 drain end"),
        ({OURS}, {"can_requeue": False}, "end"),
        # A job that was requeued often enough.
        ({U}, {"requeues": 3, "max_requeues": 3}, "wait:5 drain hold end"),
        ({U}, {"requeues": 2, "max_requeues": 3}, "wait:5 requeue drain requeue hold end"),
        ({OURS}, {"requeues": 9, "max_requeues": 3}, "requeue requeue hold end"),
    ],
)
def test_what_is_tried(causes: set[ConflictCause], facts: dict[str, object], tried: str) -> None:
    assert walk(ALL, *causes, **facts) == tried.split()


@pytest.mark.parametrize(
    ("chain", "causes", "facts", "first"),
    [
        ("requeue", {U}, {}, "requeue"),
        ("warn", {U}, ABLE, "warn"),
        ("warn", {R}, ABLE, "requeue"),
        ("warn,drain", {R}, ABLE, "drain"),
        ("kill", {U}, {}, "requeue"),
        ("requeue,drain", {U}, {"requeues": 5, "max_requeues": 5}, "drain"),
        ("requeue,warn", {U}, {**ABLE, "can_requeue": False}, "warn"),
        ("requeue", {U}, {"requeues": 5, "max_requeues": 5}, "hold"),
        ("drain", {OURS}, {}, "requeue"),
        ("wait:9,kill", {BLIND}, {}, "requeue"),
    ],
)
def test_what_is_tried_first(
    chain: str, causes: set[ConflictCause], facts: dict[str, object], first: str
) -> None:
    assert walk(chain, *causes, **facts)[0] == first


def test_nothing_ever_kills_a_reserved_owner_or_drains_for_our_own_fault() -> None:
    for size in range(1, len(ConflictCause) + 1):
        for causes in itertools.combinations(ConflictCause, size):
            tried = walk(ALL, *causes, **ABLE)
            if set(causes) != {U}:
                assert "kill" not in tried
            if R in causes:
                assert "warn" not in tried
            if OURS in causes:
                assert "drain" not in tried
            assert tried[-2:] == ["hold", "end"]


def test_every_chain_comes_to_an_end_whatever_the_facts() -> None:
    for chain in itertools.permutations(word.replace("wait", "wait:1") for word in CONFIGURABLE):
        assert walk(",".join(chain), U, requeues=9, max_requeues=9, can_requeue=False)[-1] == "end"


def test_a_place_beyond_the_end_is_the_end() -> None:
    assert (
        next_step(parse_chain("requeue"), 99, ConflictFacts(frozenset({U})))[1].kind is StepKind.END
    )


@pytest.mark.parametrize(
    ("comment", "attempt", "count"),
    [
        ("", 5, 0),
        ("mine", 5, 0),
        (requeue_comment(3, 20, "GPU 1 is in use"), 5, 3),
        (requeue_comment(3, 20, "x"), 2, 2),
        (requeue_comment(3, 20, "x"), 0, 0),
        ("canhazgpu: requeue 999999/20: forged", 1, 1),
        ("canhazgpu: requeue 9999999/20: forged", 9, 0),
        ("canhazgpu: requeue -1/20: forged", 9, 0),
        ("canhazgpu: requeue ٣/20: forged", 9, 0),
        ("see canhazgpu: requeue 4/20: x", 9, 0),
        # Once it was held and released, it counts anew.
        ("canhazgpu: held after 20 requeues, 'scontrol release 12' lets it try again: x", 21, 0),
    ],
)
def test_the_count_of_requeues_is_the_jobs_own_and_never_above_its_restarts(
    comment: str, attempt: int, count: int
) -> None:
    assert requeues_in_comment(comment, attempt) == count
