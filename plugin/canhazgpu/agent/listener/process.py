"""The agent's main process: from the configuration to a listener that serves until it is ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from canhazgpu.agent.command_runner import CommandRunner
from canhazgpu.agent.handler.command_request import run_command_request
from canhazgpu.agent.handler.hook_request import run_hook_request
from canhazgpu.agent.handler.job_check_request import refuse_job_check, run_job_check
from canhazgpu.agent.handler.preparation import prepare_handler
from canhazgpu.agent.handler.serve import Runners, run_handler, run_spare_handler
from canhazgpu.agent.listener.admission import Admission, Limits
from canhazgpu.agent.listener.forking import HANDLED_SIGNALS
from canhazgpu.agent.listener.helpers import Helpers
from canhazgpu.agent.listener.history import History
from canhazgpu.agent.listener.kept_for_handlers import keep_for_handlers
from canhazgpu.agent.listener.loop import Listener
from canhazgpu.agent.listener.preload import freeze, import_everything
from canhazgpu.agent.listener.scanner_starter import ScannerStarter
from canhazgpu.agent.listener.service_manager import ServiceManager
from canhazgpu.agent.listener.spare_handler import SpareHandler
from canhazgpu.agent.listener.watcher_starter import WatcherStarter
from canhazgpu.agent.orders.order_reader import OrderReaderProcess
from canhazgpu.agent.orders.order_reader_starter import OrderReaderStarter
from canhazgpu.agent.reports import Reports
from canhazgpu.agent.request import Door
from canhazgpu.agent.socket_files import (
    HOOKS_SOCKET,
    PEOPLE_SOCKET,
    SCANNER_SOCKET,
    agent_directory,
    listen,
    lock_agent,
)
from canhazgpu.agent.watcher.journal_watch import JournalWatch
from canhazgpu.agent.watcher.process import Watcher
from canhazgpu.agent.watcher.runs.runs_watch import RunsWatch
from canhazgpu.config.host_role import has_own_gpus
from canhazgpu.config.schema import AgentConfig, Config
from canhazgpu.errors import NodeStateError
from canhazgpu.in_process.orders.at_check import AWAIT
from canhazgpu.ledger.store.url import EMBEDDED
from canhazgpu.node.identity import node_name, state_dir
from canhazgpu.schedulers.slurm.job_check.node_environment import node_environment

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
    sockets = agent_directory(directory)
    is_node = has_own_gpus(config)
    scanner_socket, of_node = sockets / SCANNER_SOCKET, node_environment(environ)
    history = History(release, node, os.getpid(), config.agent.role)
    watching = Watcher(node, directory, environ, read_config, scanner_socket)
    watcher = WatcherStarter(JournalWatch(directory), RunsWatch(directory), watching.run)
    reader = OrderReaderProcess(node, environ, read_config, scanner_socket)
    of_job = partial(run_job_check, scanner_socket, of_node)
    runners = Runners(
        partial(run_hook_request, scanner_socket),
        of_job if is_node else refuse_job_check,
        partial(run_command_request, scanner_socket, of_node, commands),
    )
    prepare = partial(prepare_handler, environ)
    reports = Reports()
    spare = SpareHandler(lambda end: run_spare_handler(end, reports.write_end, prepare, runners))
    try:
        of_scanner = _listening(scanner_socket, 0o600) if is_node else nullcontext()
        with _signals() as stopped, of_scanner as scanner:
            with _doors(sockets, of_node=is_node) as doors:
                helpers = Helpers(history.fault)
                if scanner is not None:
                    scanning = ScannerStarter(scanner, config.agent.driver_idle_s)
                    of_orders = _order_reader(reader, config)
                    helpers = Helpers(history.fault, scanning, watcher, spare, of_orders)
                listener = Listener(
                    doors,
                    Admission(_limits(config.agent)),
                    history,
                    lambda request: run_handler(request, runners),
                    helpers,
                    reports=reports,
                )
                manager.ready()
                while not stopped.count:
                    listener.step(stopped.descriptor)
            manager.stopping()
            _finish(listener, stopped)
    finally:
        os.close(lock)


def _order_reader(reader: OrderReaderProcess, config: Config) -> OrderReaderStarter | None:
    """Return what starts the order reader; None where the health check takes the orders."""
    # Nobody but this node reaches its private server, so nobody orders there.
    awaits = config.agent.orders == AWAIT and config.store.url != EMBEDDED
    return OrderReaderStarter(reader.run) if awaits else None


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
    ends_at = time.monotonic() + STOP_GRACE_S
    while listener.busy and stopped.count < 2 and time.monotonic() < ends_at:
        listener.step(stopped.descriptor, max(ends_at - time.monotonic(), 0.0))
    listener.kill_children()
