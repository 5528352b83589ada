"""The node's service for the process at the other end of a connection.

Who asks, the kernel says. What is decided, the node's own configuration and book decide.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

from canhazgpu.agent.callers.caller import caller_of
from canhazgpu.agent.handler.command_conversation import CommandConversation
from canhazgpu.agent.handler.watcher_handover import WATCHER_SOCKET, hand_over
from canhazgpu.agent.peer import UnknownPeerError, peer_groups
from canhazgpu.agent.scanner.scanned_node import open_scanned_node
from canhazgpu.agent.socket_files import agent_directory
from canhazgpu.agent.wire.command_line import CommandLine
from canhazgpu.agent.wire.interface import Call
from canhazgpu.config.host_role import has_own_gpus
from canhazgpu.config.load import load
from canhazgpu.config.schema import Config
from canhazgpu.errors import InputError
from canhazgpu.gpu.process_job import identified_job, is_of_another_node, job_text
from canhazgpu.in_process.adapters import Adapters
from canhazgpu.in_process.people_ledger import people_ledger
from canhazgpu.in_process.service import InProcessService
from canhazgpu.in_process.watching.waiting_request import WaitingRequest
from canhazgpu.in_process.watching.watched_grants import HandedOverError, WatchedGrants
from canhazgpu.ledger.local.book_grants import Committer
from canhazgpu.ledger.local.runs.run_files import RunFiles
from canhazgpu.ledger.port import Ledger
from canhazgpu.node.identity import boot_id, node_name, state_dir
from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.processes import identify_process, this_process
from canhazgpu.node.system_log import write_syslog
from canhazgpu.node.users import Caller
from canhazgpu.schedulers.slurm.attribution.attribution import hook_attribution
from canhazgpu.schedulers.slurm.conf.node_conf import conf_path
from canhazgpu.schedulers.slurm.control.enclosing_job import EnclosingJob, find_enclosing_job
from canhazgpu.schedulers.slurm.environment import SCHEDULER_TYPE
from canhazgpu.schedulers.slurm.job_check.node_environment import with_recorded_conf
from canhazgpu.service.port import NodeService

CHANGE_LIFE_S = 60.0
"""How long a handler may take from a grant's first step to its last."""
TOKEN_DIGITS = 32
"""Of the hash in an owner's token: so many that nobody finds a request with another's token."""
HAND_OVER_S = 20.0
"""Longest time for the watcher to take a request that waits."""


def open_people_service(
    scanner_socket: Path,
    environ: Mapping[str, str],
    conversation: CommandConversation,
    line: CommandLine,
    call: Call,
) -> NodeService:
    """Return the service of this node for the conversation's peer; opens nothing yet.

    `line` is what the `call` says.
    """
    environ = with_recorded_conf(environ)
    asking = _AskingProcess(scanner_socket, environ, conversation, line, call)
    return InProcessService(asking.adapters())


class _AskingProcess:
    """What the kernel says of the process that asks."""

    def __init__(
        self,
        scanner_socket: Path,
        environ: Mapping[str, str],
        conversation: CommandConversation,
        line: CommandLine,
        call: Call,
    ) -> None:
        self._scanner_socket = scanner_socket
        self._environ = environ
        self._conversation = conversation
        self._line = line
        self._call = call
        self._process = conversation.process()
        self._known_caller: Caller | None = None

    @cached_property
    def _config(self) -> Config:
        """The node's configuration, as it is when the request is carried out."""
        return load(self._environ).config

    def adapters(self) -> Adapters:
        is_node = has_own_gpus(self._config)
        return Adapters(
            self._environ,
            caller=self._caller,
            probe=partial(open_scanned_node, self._scanner_socket),
            command_environ=self._line.variables,
            process=self._process_id,
            new_owner=self._owner,
            job_around=self._job_around,
            before_wait=self._conversation.wait_for_others,
            node_ledger=self._open_ledger if is_node else None,
            watched=self._watched if is_node else None,
        )

    def _caller(self) -> Caller:
        if self._known_caller is None:
            self._known_caller = caller_of(self._conversation.request, self._config.agent)
        return self._known_caller

    def _open_ledger(self, node: str, config: Config) -> Ledger:
        gone = self._conversation.is_gone
        committer = Committer(this_process(), CHANGE_LIFE_S, peer_lives=lambda: not gone())
        return people_ledger(node, config, self._environ, write_syslog, committer)

    def _watched(self) -> WatchedGrants:
        config, request = self._config, self._conversation.request
        directory = state_dir(config.node, node_name(config.node, self._environ))
        try:
            groups = peer_groups(request.connection)
        except UnknownPeerError:
            groups = ()
        return WatchedGrants(
            RunFiles(directory),
            identify_process(request.agent) or ProcessId(request.agent, 0),
            request.peer.gid,
            groups,
            partial(self._hand_over, agent_directory(directory) / WATCHER_SOCKET),
        )

    def _hand_over(self, socket_path: Path, waiting: WaitingRequest) -> NoReturn:
        """Have the watcher answer; raises `HandedOverError` and `WatcherUnavailableError`."""
        command = {
            "call": dict(self._call.parameters),
            "takes_several": self._conversation.takes_several,
        }
        sys.stdout.flush()
        sys.stderr.flush()
        connection = self._conversation.request.connection
        hand_over(socket_path, connection, replace(waiting, command=command), HAND_OVER_S)
        raise HandedOverError

    def _process_id(self) -> ProcessId:
        found = identify_process(self._process.pid)
        try:
            self._process.require_alive()
        except ProcessLookupError:
            found = None
        if found is None:
            raise InputError("the process that asked has ended")
        return found

    def _owner(self, type_: str) -> str:
        """Return the token of this very request: asked again, it is the same owner's."""
        process = self._process_id()
        facts = (boot_id(), process.pid, process.started, self._process.uid, self._line.request)
        digest = sha256(repr((type_, *facts)).encode()).hexdigest()
        return f"{type_}:{digest[:TOKEN_DIGITS]}"

    def _job_around(self, variables: Mapping[str, str], node: str) -> EnclosingJob | None:
        """Return the job that the process is in; its control group says which, if there is one.

        The job's devices are told by the variables that Slurm gave it. Somebody who states others
        sees what is stated, and holds nothing.
        """
        said = find_enclosing_job(variables, node)
        config = self._config
        attribution = hook_attribution(conf_path(self._environ), node, state_dir(config.node, node))
        try:
            job = attribution(self._process.control_groups())
        except ProcessLookupError as exc:
            raise InputError("the process that asked has ended") from exc
        if job is None or is_of_another_node(job):
            return said
        if said is None or job != identified_job(SCHEDULER_TYPE, said.job_id):
            raise InputError(
                f"this process is in {job_text(job)}, and its environment does not say so:"
                " start it with the environment that the job had"
            )
        return said
