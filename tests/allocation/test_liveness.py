"""Who is gone from a node, and who only cannot be looked at."""

from __future__ import annotations

import pytest

from canhazgpu.allocation.liveness import (
    DEFAULT_LEASE_S,
    HEARTBEAT_LOST,
    NODE_REBOOTED,
    PROCESSES_ENDED,
    LivenessContext,
    death_reason,
)
from canhazgpu.ledger.values import Claim
from canhazgpu.node.process_id import ProcessId

LIVING, DEAD = ProcessId(10, 1), ProcessId(11, 1)
HERE = LivenessContext("this boot", 1, lambda process: process == LIVING)


def claim(
    *processes: ProcessId, boot_id: str | None = "this boot", namespace: int | None = 1
) -> Claim:
    return Claim(
        "run:1", "run", "ann", boot_id=boot_id, processes=processes, pid_namespace=namespace
    )


@pytest.mark.parametrize(
    ("holder", "silent_s", "why"),
    [
        (claim(LIVING), 0, ""),
        (claim(DEAD), 0, PROCESSES_ENDED),
        (claim(DEAD, LIVING), 0, ""),
        (claim(DEAD, DEAD), 0, PROCESSES_ENDED),
        # Somebody who does not depend on processes
        (claim(), 1e9, ""),
        (claim(boot_id=None), 1e9, ""),
        # Another boot: whatever the pids are now
        (claim(LIVING, boot_id="earlier"), 0, NODE_REBOOTED),
        (claim(boot_id="earlier"), 0, NODE_REBOOTED),
        (claim(LIVING, boot_id=None), 0, ""),
        (claim(DEAD, boot_id=None), 0, PROCESSES_ENDED),
        # A container's pids: only its silence speaks
        (claim(DEAD, namespace=2), DEFAULT_LEASE_S, ""),
        (claim(LIVING, namespace=2), DEFAULT_LEASE_S + 1, HEARTBEAT_LOST),
        # Silence alone says nothing: the store may have been away
        (claim(LIVING), 1e9, ""),
        (claim(DEAD, namespace=None), 0, PROCESSES_ENDED),
    ],
)
def test_who_is_gone(holder: Claim, silent_s: float, why: str) -> None:
    assert death_reason(holder, silent_s, HERE) == why


def test_a_node_that_does_not_tell_its_boot_declares_nobody_dead_for_it() -> None:
    here = LivenessContext(None, None, lambda process: True)
    assert death_reason(claim(LIVING, boot_id="earlier", namespace=7), 1e9, here) == ""
