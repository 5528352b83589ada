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
from canhazgpu.config.load import load
from canhazgpu.errors import ConfigError
from canhazgpu.in_process.service import open_hook_service
from canhazgpu.node.identity import node_name, state_dir
from canhazgpu.probe.source_scan import StartSourceScan
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.attribution.groups_record import recorded_conf
from canhazgpu.service.jobs import JobCheck

KEPT = (names.NODE_NAME, names.SLURM_CONF)
KEPT_PREFIX = "CANHAZGPU_"


def node_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what of the agent's own environment says which node it serves."""
    return {
        name: text for name, text in environ.items() if name in KEPT or name.startswith(KEPT_PREFIX)
    }


def run_job_check(scanner_socket: Path, environ: Mapping[str, str], request: Request) -> None:
    """Answer the request. `environ` is the node's; nothing that the caller sends is used."""
    conversation = ProvenConversation(request, interface.CHECK_JOB)
    if conversation.pidfd is None:
        send_message(request.connection, interface.error(interface.NOT_PERMITTED))
        return

    def scan_sources(conf: Path, directory: Path) -> StartSourceScan:
        return ScannerSource(scanner_socket, conf, directory)

    environ = _with_slurm_conf(environ)
    use_environment(environ)
    process = ConnectedProcess(request.peer, conversation.pidfd)
    answer = open_hook_service(scan_sources).check_job(JobCheck(environ, process, conversation))
    conversation.answer({"status": int(answer.state), "errors": "", "output": answer.message})


def _with_slurm_conf(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the slurm.conf that hooks were given, if the agent has none."""
    given = dict(environ)
    if names.SLURM_CONF in given:
        return given
    try:
        node_config = load(given).config.node
    except ConfigError:
        return given
    found = recorded_conf(state_dir(node_config, node_name(node_config, given)))
    return {**given, names.SLURM_CONF: found} if found else given
