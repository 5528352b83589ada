"""Run a prolog or an epilog: open its context, act, log the outcome.

Slurm drains a node whose hook exits non-zero. No failure of canhazgpu may drain the node, so each
failure becomes a decision about the job and a line in the log.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace

from canhazgpu.deadline import hard_deadline
from canhazgpu.errors import InputError, advice_for
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.schedulers.port import claim_of
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.hook.failure import hook_error_text, log_emergency
from canhazgpu.schedulers.slurm.hook.log import write_hook_log
from canhazgpu.schedulers.slurm.hook.node_context import JobHook, open_job_hook, open_node_context
from canhazgpu.schedulers.slurm.hook.startup import (
    OPEN_DEADLINE_S,
    ScanSources,
    StartedHook,
    scan_in_child,
)

LOG_DEADLINE_S = 3.0
"""Longest time for logging what was done, longer than Redis' timeout.

Entries that are in the node's journal by then are sent later."""


@dataclass(frozen=True, slots=True)
class HookOutcome:
    """The exit status. `is_routine` is True where nothing failed and nothing special was logged."""

    exit_status: int
    is_routine: bool = False


def run_hook(
    environ: Mapping[str, str],
    act: Callable[[JobHook], None],
    kind: str,
    started: StartedHook | Exception | None = None,
    scan_sources: ScanSources = scan_in_child,
) -> HookOutcome:
    """Open the hook, act, and log it as `kind`.

    `started` is what `start_hook` returned, None if it was not called. The status is non-zero only
    for invalid variables, and only for a person who runs the hook by hand. For slurmd it is always
    0: otherwise a new release of Slurm with other variables would drain all its nodes.
    """
    try:
        with hard_deadline(OPEN_DEADLINE_S, of_running=True):
            if isinstance(started, Exception):
                raise started
            context = open_node_context(environ, started, scan_sources)
    except Exception as exc:
        # Without a context the job cannot be requeued. It starts unchecked; the log says so.
        log_emergency(hook_error_text(exc))
        return HookOutcome(0)
    try:
        hook = open_job_hook(context, environ)
    except InputError as exc:
        print(f"canhazgpu: {exc}", file=sys.stderr)  # noqa: T201 - for whoever runs it by hand
        if names.SCRIPT_CONTEXT not in environ:
            return HookOutcome(advice_for(exc).exit_code)
        context.actions.log(f"{exc}; no GPU is checked, reserved or released (please report this)")
        return HookOutcome(0)
    except Exception as exc:
        log_emergency(hook_error_text(exc))
        return HookOutcome(0)
    try:
        act(hook)
        hook.keep_job_files()
        with hard_deadline(LOG_DEADLINE_S, of_running=True):
            log_outcome(hook, kind)
    except Exception as exc:
        log_emergency(hook_error_text(exc))
        return HookOutcome(0)
    return HookOutcome(0, is_routine=not hook.hook_log.messages)


def log_outcome(hook: JobHook, kind: str) -> None:
    """Log what the hook did, unless it had nothing to do."""
    if hook.hook_log.ledger is not None or hook.hook_log.messages:
        job = replace(hook.job, owner=hook.hook_log.owner_of(hook.job.owner))
        claim = claim_of(job, names.SCHEDULER_TYPE, hook.boot_id)
        write_hook_log(hook.hook_log, kind, hook.node, claim)
