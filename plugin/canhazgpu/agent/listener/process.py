"""The agent's main process: from the configuration to a listener that serves until it is ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from canhazgpu.agent.agent_socket import PEOPLE_SOCKET
from canhazgpu.agent.command_runner import CommandRunner
from canhazgpu.agent.handler.hand_over import WATCHER_SOCKET
from canhazgpu.agent.handler.serve import run_handler
from canhazgpu.agent.listener.admission import Admission, Limits
from canhazgpu.agent.listener.agent_parts import AgentParts, PrivateSockets
from canhazgpu.agent.listener.forking import HANDLED_SIGNALS
from canhazgpu.agent.listener.history import History
from canhazgpu.agent.listener.kept_for_handlers import keep_for_handlers
from canhazgpu.agent.listener.loop import Listener
from canhazgpu.agent.listener.preload import freeze, import_everything
from canhazgpu.agent.listener.service_manager import ServiceManager
from canhazgpu.agent.reports import Reports
from canhazgpu.agent.request import Door
from canhazgpu.agent.socket_files import (
    HOOKS_SOCKET,
    SCANNER_SOCKET,
    agent_directory,
    listen,
    lock_agent,
)
from canhazgpu.config.schema import AgentConfig, Config
from canhazgpu.errors import NodeStateError
from canhazgpu.node.identity import node_name, state_dir

LOOK_GRACE_S = 5.0
"""How long who only looks may go on after SIGTERM: most have their answer within that time."""
STOP_GRACE_S = 75.0
"""How long requests that are under way may go on after SIGTERM; a second SIGTERM ends them."""


def run_agent(
    read_config: Callable[[], Config],
    environ: Mapping[str, str],
    release: str,
    commands: CommandRunner,
) -> None:
    """Serve until SIGTERM. Raises `NodeStateError` where another agent runs, and `ConfigError`.

    `read_config` reads the configuration anew; the watcher calls it, too. `commands` carries out
    what people type.
    """
    config = read_config()
    node = node_name(config.node, environ)
    directory = state_dir(config.node, node)
    os.umask(0o022)
    lock = lock_agent(directory)
    manager = ServiceManager(environ)
    import_everything()
    commands.preload()
    keep_for_handlers(config, node, environ)
    freeze()
    parts = AgentParts(node, directory, config, environ, read_config, commands)
    history = History(release, node, os.getpid(), config.agent.role)
    reports, runners = Reports(), parts.runners()
    sockets = agent_directory(directory)
    try:
        with _signals() as stopped, _private_sockets(sockets, of_node=parts.is_node) as private:
            with _doors(sockets, of_node=parts.is_node) as doors:
                listener = Listener(
                    doors,
                    Admission(_limits(config.agent)),
                    history,
                    lambda request: run_handler(request, runners),
                    parts.helpers(history.fault, private, runners, reports.write_end),
                    reports=reports,
                )
                manager.ready()
                while not stopped.count:
                    listener.step(stopped.descriptor)
            manager.stopping()
            _finish(listener, stopped)
    finally:
        os.close(lock)


def _limits(config: AgentConfig) -> Limits:
    return Limits(config.max_hooks, config.max_requests, config.max_requests_per_user)


class _Stopped:
    """How often the agent was told to end; `descriptor` is readable after any signal."""

    def __init__(self) -> None:
        self.count = 0
        self._receiver, self._sender = socket.socketpair()
        for one in (self._receiver, self._sender):
            one.setblocking(False)
        self.descriptor = self._receiver.fileno()
        self.wake_up_end = self._sender.fileno()

    def note(self, number: int, _frame: object) -> None:
        """Take a signal: SIGHUP and SIGCHLD only wake up."""
        self.count += number in (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def _signals() -> Iterator[_Stopped]:
    stopped = _Stopped()
    signal.set_wakeup_fd(stopped.wake_up_end, warn_on_full_buffer=False)
    for number in HANDLED_SIGNALS:
        signal.signal(number, stopped.note)
    yield stopped


@contextlib.contextmanager
def _private_sockets(sockets: Path, *, of_node: bool) -> Iterator[PrivateSockets | None]:
    """Give the sockets of scanner and watcher; a host without GPUs has neither."""
    if not of_node:
        yield None
        return
    with (
        _listening(sockets / SCANNER_SOCKET, 0o600) as scanner,
        _listening(sockets / WATCHER_SOCKET, 0o600) as queue,
    ):
        yield PrivateSockets(scanner, queue)


@contextlib.contextmanager
def _doors(sockets: Path, *, of_node: bool) -> Iterator[dict[Door, socket.socket]]:
    """Give the sockets at which requests arrive; no hooks ask the agent of a host without GPUs."""
    with contextlib.ExitStack() as files:
        doors = {}
        if of_node:
            doors[Door.HOOKS] = files.enter_context(_listening(sockets / HOOKS_SOCKET, 0o600))
        doors[Door.PEOPLE] = files.enter_context(_listening(sockets / PEOPLE_SOCKET, 0o666))
        yield doors


@contextlib.contextmanager
def _listening(path: Path, mode: int) -> Iterator[socket.socket]:
    """Give a listening socket; its file is removed in the end."""
    try:
        made = listen(path, mode)
    except OSError as exc:
        raise NodeStateError(f"cannot make the socket {path}: {exc.strerror or exc}") from exc
    try:
        yield made
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        made.close()


def _finish(listener: Listener, stopped: _Stopped) -> None:
    """Wait for the requests that are under way, then kill what is left."""
    listener.close_doors()
    began = time.monotonic()
    while listener.busy and stopped.count < 2 and time.monotonic() < began + STOP_GRACE_S:
        looks_end = time.monotonic() >= began + LOOK_GRACE_S
        if looks_end:
            listener.kill_endless_children()
        longest_s = STOP_GRACE_S if looks_end else LOOK_GRACE_S
        listener.step(stopped.descriptor, max(began + longest_s - time.monotonic(), 0.0))
    listener.kill_children()
