"""Carry out a hook's request with the service that hooks have in their own process, too."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path

from canhazgpu.agent.callers.ordering_user import rights_of_ordering_user
from canhazgpu.agent.handler.conversation import Conversation
from canhazgpu.agent.handler.fresh_process import use_environment
from canhazgpu.agent.scanner.client import ScannerSource
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.interface import Call, environment_of
from canhazgpu.in_process.service import open_hook_service
from canhazgpu.node.hook_caller import HookCaller
from canhazgpu.probe.source_scan import StartSourceScan
from canhazgpu.service.jobs import CheckRequest, JobEnd, JobStart
from canhazgpu.service.port import NodeService

WITHOUT_CONTEXT_S = 5.0
"""What a request may take that failed before it knew its own limit: it only logs."""
EXIT_CODE_WANTED = "HOOK_EXIT_CODE"
"""Set by the health check's script where it was called with ``--exit-code``."""
MAX_OUTPUT = 32 * 1024


def run_hook_request(scanner_socket: Path, conversation: Conversation, call: Call) -> bool:
    """Run the hook, which asks the conversation before it acts; answer with its outcome.

    Returns whether all went as usual.
    """
    environ = environment_of(call)
    use_environment(environ)

    def scan_sources(conf: Path, state_dir: Path) -> StartSourceScan:
        return ScannerSource(scanner_socket, conf, state_dir)

    service = open_hook_service(scan_sources, rights_of_ordering_user)
    status, is_routine = _RUNS[call.method](service, environ, conversation)
    if conversation.confirms(WITHOUT_CONTEXT_S):
        conversation.answer(
            {"status": status, "errors": _written(sys.stderr), "output": _written(sys.stdout)}
        )
    return is_routine


def _job_start(
    service: NodeService, environ: Mapping[str, str], caller: HookCaller
) -> tuple[int, bool]:
    answer = service.job_start(JobStart(environ, caller))
    return answer.exit_status, answer.is_routine


def _job_end(
    service: NodeService, environ: Mapping[str, str], caller: HookCaller
) -> tuple[int, bool]:
    answer = service.job_end(JobEnd(environ, caller))
    return answer.exit_status, answer.is_routine


def _check(
    service: NodeService, environ: Mapping[str, str], caller: HookCaller
) -> tuple[int, bool]:
    answer = service.check(CheckRequest(environ, caller))
    if environ.get(EXIT_CODE_WANTED) and answer.exit_code:
        print(f"canhazgpu: {answer.fault}", file=sys.stderr)  # noqa: T201 - the hook's own
    return answer.exit_code, answer.is_routine


Run = Callable[[NodeService, Mapping[str, str], HookCaller], tuple[int, bool]]
"""Returns the exit status, and whether all went as usual."""
_RUNS: dict[str, Run] = {
    interface.JOB_START: _job_start,
    interface.JOB_END: _job_end,
    interface.CHECK: _check,
}


def _written(stream: object) -> str:
    return stream.getvalue()[-MAX_OUTPUT:] if isinstance(stream, StringIO) else ""
