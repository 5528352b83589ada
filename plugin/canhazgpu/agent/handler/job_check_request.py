"""Carry out `CheckJob`: a task of a job found no record of its job's GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from canhazgpu.agent.handler.calling_process import ConnectedProcess
from canhazgpu.agent.handler.conversation import send_message
from canhazgpu.agent.handler.fresh_process import use_environment
from canhazgpu.agent.handler.proven_conversation import ProvenConversation
from canhazgpu.agent.request import Request
from canhazgpu.agent.scanner.client import ScannerSource
from canhazgpu.agent.wire import interface
from canhazgpu.in_process.service import open_hook_service
from canhazgpu.probe.source_scan import StartSourceScan
from canhazgpu.schedulers.slurm.job_check.node_environment import with_recorded_conf
from canhazgpu.service.jobs import JobCheck


def refuse_job_check(request: Request) -> None:
    """Answer that this agent checks no jobs: it is of a host without GPUs."""
    refusal = interface.error(interface.METHOD_NOT_FOUND, {"method": interface.CHECK_JOB})
    send_message(request.connection, refusal)


def run_job_check(scanner_socket: Path, environ: Mapping[str, str], request: Request) -> None:
    """Answer the request. `environ` is the node's; nothing that the caller sends is used."""
    conversation = ProvenConversation(request, interface.CHECK_JOB)
    if conversation.pidfd is None:
        send_message(request.connection, interface.error(interface.NOT_PERMITTED))
        return

    def scan_sources(conf: Path, directory: Path) -> StartSourceScan:
        return ScannerSource(scanner_socket, conf, directory)

    environ = with_recorded_conf(environ)
    use_environment(environ)
    process = ConnectedProcess(request.peer, conversation.pidfd)
    answer = open_hook_service(scan_sources).check_job(JobCheck(environ, process, conversation))
    conversation.answer({"status": int(answer.state), "errors": "", "output": answer.message})
