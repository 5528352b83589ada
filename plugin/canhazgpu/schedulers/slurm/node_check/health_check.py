"""Run the health check of the node, one at a time and with a time limit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from canhazgpu.deadline import hard_deadline
from canhazgpu.errors import NodeStateError, StoreError, advice_for, error_text
from canhazgpu.ledger.journal_entries import HEALTH, JournalEntry
from canhazgpu.logfmt import log_line
from canhazgpu.node.hook_caller import OWN_PROCESS, HookCaller
from canhazgpu.node.state_files import make_directory, try_file_lock
from canhazgpu.node.system_log import DAEMON_INFO, write_syslog
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.hook.failure import hook_error_text, log_emergency
from canhazgpu.schedulers.slurm.hook.node_context import NodeContext, open_node_context
from canhazgpu.schedulers.slurm.hook.run import LOG_DEADLINE_S
from canhazgpu.schedulers.slurm.hook.startup import (
    OPEN_DEADLINE_S,
    ScanSources,
    scan_in_child,
)
from canhazgpu.schedulers.slurm.node_check.maintenance import NodeCheck
from canhazgpu.schedulers.slurm.node_check.unchecked_jobs import check_unchecked_jobs

DEADLINE_S = 30.0
"""Slurm kills a health check after 60 s."""
JOBS_DEADLINE_S = 15.0
"""For jobs that nobody checked; usually there is none."""
REPORTS_DEADLINE_S = 5.0
"""For what Slurm is to be told of jobs' use, where the site wants it."""
LONGEST_S = DEADLINE_S + JOBS_DEADLINE_S + REPORTS_DEADLINE_S + LOG_DEADLINE_S + OPEN_DEADLINE_S


class CheckOutcome(NamedTuple):
    """What the check could not do, "" if it did all, and the exit status that says so.

    `is_routine` is True where it found nothing to do, either.
    """

    exit_code: int = 0
    fault: str = ""
    is_routine: bool = False


def run_node_check(
    environ: Mapping[str, str],
    caller: HookCaller = OWN_PROCESS,
    scan_sources: ScanSources = scan_in_child,
) -> CheckOutcome:
    """Check the node unless another check runs; that one then tells what it could not do."""
    try:
        with hard_deadline(OPEN_DEADLINE_S, of_running=True):
            context = open_node_context(environ, None, scan_sources)
            if context.config_fault is not None:
                raise context.config_fault  # the directory of the lock is not known, either
            lock = _try_lock(context.state_dir)
        if lock is None:
            return CheckOutcome()
    except Exception as exc:
        return _failed(exc)
    try:
        if not caller.confirms(LONGEST_S):
            return CheckOutcome()
        context.import_store_client()
        import canhazgpu.ledger.store.indexes.upkeep  # noqa: F401, PLC0415 - health checks alone, and before a clock runs

        return _check(context, environ, scan_sources, caller)
    finally:
        os.close(lock)


def _try_lock(state_dir: Path) -> int | None:
    """Return the lock that excludes a second check, None if one runs; see `try_file_lock`."""
    try:
        make_directory(state_dir)
        return try_file_lock(state_dir / ".health-check.lock")
    except OSError as exc:
        raise NodeStateError(
            f"cannot keep the node's records in {state_dir}: {exc.strerror}"
        ) from exc


def _failed(exc: Exception) -> CheckOutcome:
    fault = hook_error_text(exc)
    log_emergency(f"health check: {fault}")
    code = advice_for(exc).exit_code if isinstance(exc, StoreError) else 1
    return CheckOutcome(code, fault)


def _check(
    context: NodeContext,
    environ: Mapping[str, str],
    scan_sources: ScanSources,
    caller: HookCaller,
) -> CheckOutcome:
    check = NodeCheck(context, caller)
    answer = CheckOutcome()
    try:
        with hard_deadline(min(context.config.slurm.hook_deadline_s, DEADLINE_S)):
            check.run()
    except Exception as exc:
        answer = _failed(exc)
    context.keep_job_files()
    all_done = _check_unchecked_jobs(context, check, environ, scan_sources)
    _deliver_reports(context, environ)
    for line in check.decisions:
        write_syslog(line, DAEMON_INFO)
    try:
        with hard_deadline(LOG_DEADLINE_S, of_running=True):
            _record_decisions(context, check, answer.fault)
    except Exception as exc:
        log_emergency(f"health check: {hook_error_text(exc)}")
        all_done = False
    answer = answer if answer.fault else _without_store(context)
    told = answer.fault or check.decisions or context.hook_log.messages
    return answer._replace(is_routine=all_done and not told)


def _check_unchecked_jobs(
    context: NodeContext,
    check: NodeCheck,
    environ: Mapping[str, str],
    scan_sources: ScanSources,
) -> bool:
    """Check jobs whose prolog did not run; a failure is told, and the next check tries again.

    Returns False after a failure.
    """
    try:
        with hard_deadline(JOBS_DEADLINE_S):
            for what in check_unchecked_jobs(context, environ, scan_sources):
                check.decisions.append(log_line("unchecked", node=context.node, reason=what))
    except Exception as exc:
        log_emergency(f"health check: jobs without a prolog: {hook_error_text(exc)}")
        return False
    return True


def _deliver_reports(context: NodeContext, environ: Mapping[str, str]) -> None:
    """Tell Slurm what jobs made of their GPUs; what fails is no failure of the node."""
    slurm = context.config.slurm
    if slurm.job_report == "off":
        return
    from canhazgpu.schedulers.slurm.job_report.delivery import deliver_reports  # noqa: PLC0415 - few sites want it

    # Of its own time: the check's own commands are not to lack it.
    commands = SlurmCommands(slurm.bin_dir, REPORTS_DEADLINE_S - 1.0, environ)
    try:
        with hard_deadline(REPORTS_DEADLINE_S, of_running=True):
            deliver_reports(context.node, context.state_dir, commands)
    except Exception as exc:
        log_emergency(f"health check: reports of jobs' use: {hook_error_text(exc)}")


def _without_store(context: NodeContext) -> CheckOutcome:
    """Return that the store lacks what the check found, if it did not serve."""
    ledger = context.hook_log.ledger
    if ledger is None or not ledger.without_store:
        return CheckOutcome()
    error = ledger.store_error()
    return CheckOutcome(advice_for(error).exit_code, f"nothing was published: {error_text(error)}")


def _record_decisions(context: NodeContext, check: NodeCheck, fault: str) -> None:
    """Add the decisions to the history; a check without decisions or failure adds nothing."""
    messages = [*check.decisions, *context.hook_log.messages]
    if (messages or fault) and context.hook_log.ledger is not None:
        facts = {"decisions": messages, "took_s": context.hook_log.took_s()}
        if check.jobs:
            facts["jobs"] = check.jobs
        context.hook_log.ledger.record_note(
            JournalEntry(HEALTH, 0.0, reason=fault or "; ".join(messages), facts=facts)
        )
