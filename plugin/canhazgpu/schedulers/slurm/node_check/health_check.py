"""The health check of the node, never twice at once, and ended in time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from canhazgpu.deadline import hard_deadline
from canhazgpu.errors import NodeStateError
from canhazgpu.ledger.journal_entries import HEALTH, JournalEntry
from canhazgpu.node.state_files import make_directory, try_file_lock
from canhazgpu.schedulers.slurm.control.actions import write_syslog
from canhazgpu.schedulers.slurm.hook.log import DAEMON_INFO
from canhazgpu.schedulers.slurm.hook.run import (
    LOG_DEADLINE_S,
    NodeContext,
    hook_error_text,
    log_emergency,
    open_node_context,
)
from canhazgpu.schedulers.slurm.hook.startup import OPEN_DEADLINE_S
from canhazgpu.schedulers.slurm.node_check.maintenance import NodeCheck

DEADLINE_S = 30.0
"""Slurm ends a health check after 60 s."""


def run_node_check(environ: Mapping[str, str]) -> bool:
    """Check the node unless another check is at it; tells whether all went well."""
    try:
        with hard_deadline(OPEN_DEADLINE_S):
            side = open_node_context(environ)
            lock = _try_lock(side.state_dir)
        if lock is None:
            return True
    except Exception as exc:
        log_emergency(f"health check: {hook_error_text(exc)}")
        return False
    try:
        return _check(side)
    finally:
        os.close(lock)


def _try_lock(state_dir: Path) -> int | None:
    """Return the lock that keeps a second check away, see `try_file_lock`."""
    try:
        make_directory(state_dir)
        return try_file_lock(state_dir / ".health-check.lock")
    except OSError as exc:
        raise NodeStateError(
            f"cannot keep the node's records in {state_dir}: {exc.strerror}"
        ) from exc


def _check(side: NodeContext) -> bool:
    check = NodeCheck(side)
    fault = ""
    try:
        with hard_deadline(min(side.config.slurm.hook_deadline_s, DEADLINE_S)):
            check.run()
    except Exception as exc:
        fault = hook_error_text(exc)
        log_emergency(f"health check: {fault}")
    for line in check.decisions:
        write_syslog(line, DAEMON_INFO)
    try:
        with hard_deadline(LOG_DEADLINE_S):
            _record_decisions(side, check, fault)
    except Exception as exc:
        log_emergency(f"health check: {hook_error_text(exc)}")
    return not fault


def _record_decisions(side: NodeContext, check: NodeCheck, fault: str) -> None:
    """Put what was decided into the history; a check that decided nothing is no news."""
    said = [*check.decisions, *side.hook_log.messages]
    if (said or fault) and side.hook_log.ledger is not None:
        facts = {"decisions": said, "took_s": side.hook_log.took_s()}
        side.hook_log.ledger.record_note(
            JournalEntry(HEALTH, 0.0, reason=fault or "; ".join(said), facts=facts)
        )
