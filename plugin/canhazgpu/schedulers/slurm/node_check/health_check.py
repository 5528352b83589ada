"""The health check of the node, never twice at once, and ended in time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from canhazgpu.deadline import hard_deadline
from canhazgpu.epilog.check import NodeCheck
from canhazgpu.errors import NodeStateError
from canhazgpu.ledger.entries import HEALTH, Entry
from canhazgpu.node.own_files import make_directory, try_lock
from canhazgpu.schedulers.slurm.actions import log_to_system
from canhazgpu.schedulers.slurm.early import OPEN_DEADLINE_S
from canhazgpu.schedulers.slurm.hook import (
    TELL_DEADLINE_S,
    NodeSide,
    cry,
    fault_text,
    open_node,
)
from canhazgpu.schedulers.slurm.story import DAEMON_INFO

DEADLINE_S = 30.0
"""Slurm ends a health check after 60 s."""


def run(environ: Mapping[str, str]) -> bool:
    """Check the node unless another check is at it; tells whether all went well."""
    try:
        with hard_deadline(OPEN_DEADLINE_S):
            side = open_node(environ)
            lock = _try_lock(side.state_dir)
        if lock is None:
            return True
    except Exception as exc:
        cry(f"health check: {fault_text(exc)}")
        return False
    try:
        return _check(side)
    finally:
        os.close(lock)


def _try_lock(state_dir: Path) -> int | None:
    """Return the lock that keeps a second check away, see `try_lock`."""
    try:
        make_directory(state_dir)
        return try_lock(state_dir / ".health-check.lock")
    except OSError as exc:
        raise NodeStateError(
            f"cannot keep the node's records in {state_dir}: {exc.strerror}"
        ) from exc


def _check(side: NodeSide) -> bool:
    check = NodeCheck(side)
    fault = ""
    try:
        with hard_deadline(min(side.config.slurm.hook_deadline_s, DEADLINE_S)):
            check.run()
    except Exception as exc:
        fault = fault_text(exc)
        cry(f"health check: {fault}")
    for line in check.decisions:
        log_to_system(line, DAEMON_INFO)
    try:
        with hard_deadline(TELL_DEADLINE_S):
            _tell(side, check, fault)
    except Exception as exc:
        cry(f"health check: {fault_text(exc)}")
    return not fault


def _tell(side: NodeSide, check: NodeCheck, fault: str) -> None:
    """Put what was decided into the history; a check that decided nothing is no news."""
    said = [*check.decisions, *side.story.said]
    if (said or fault) and side.story.ledger is not None:
        facts = {"decisions": said, "took_s": side.story.took_s()}
        side.story.ledger.tell(Entry(HEALTH, 0.0, reason=fault or "; ".join(said), facts=facts))
