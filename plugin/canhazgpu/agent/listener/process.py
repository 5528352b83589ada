"""The agent's main process: from the configuration to a listener that serves until it is ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from canhazgpu.agent.agent_socket import PEOPLE_SOCKET
from canhazgpu.agent.command_runner import CommandRunner
from canhazgpu.agent.handler.serve import run_handler
from canhazgpu.agent.handler.watcher_handover import WATCHER_SOCKET
from canhazgpu.agent.handler_reports import Reports
from canhazgpu.agent.listener.activity import Activity
from canhazgpu.agent.listener.admission import Admission, Limits
from canhazgpu.agent.listener.agent_parts import AgentParts, PrivateSockets
from canhazgpu.agent.listener.forking import HANDLED_SIGNALS, blocked_signals
from canhazgpu.agent.listener.handler_cache import fill_handler_cache
from canhazgpu.agent.listener.loop import Listener
from canhazgpu.agent.listener.preload import freeze, import_everything
from canhazgpu.agent.listener.service_manager import ServiceManager
from canhazgpu.agent.reexecution.execution import execute
from canhazgpu.agent.reexecution.inherited_state import (
    VARIABLES,
    InheritedState,
    take_inherited_state,
)
from canhazgpu.agent.reexecution.installed_files import identity_of, installation_fault
from canhazgpu.agent.reexecution.kept_sockets import KeptSockets
from canhazgpu.agent.reexecution.leftovers import own_children
from canhazgpu.agent.reexecution.program import Program, own_program, take_asked
from canhazgpu.agent.reexecution.trial_start import TrialStart
from canhazgpu.agent.reexecution.upgrade import Upgrade
from canhazgpu.agent.request import RequestSocket
from canhazgpu.agent.socket_files import (
    HOOKS_SOCKET,
    SCANNER_SOCKET,
    agent_directory,
    lock_agent,
)
from canhazgpu.config.schema import AgentConfig, Config
from canhazgpu.errors import NodeStateError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.node.identity import node_name, state_dir

CLOSED_S = 1.0
"""How long nobody is let in, so that the requests end that are under way, before this process
becomes another program. Those that take longer go on; a hook waits for 6 s to be accepted."""
HELPERS_END_S = 2.0
"""How long to wait for the end of scanner and watcher then; one may hang in the kernel."""
LOOK_GRACE_S = 5.0
"""How long who only looks may go on after SIGTERM: most have their answer within that time."""
STOP_GRACE_S = 75.0
"""How long requests that are under way may go on after SIGTERM; a second SIGTERM ends them."""


def run_agent(
    read_config: Callable[[], Config],
    environ: Mapping[str, str],
    release: str,
    commands: CommandRunner,
    installed: Path,
) -> None:
    """Serve until SIGTERM. Raises `NodeStateError` where another agent runs, and `ConfigError`.

    `read_config` reads the configuration anew; the watcher calls it, too. `commands` carries out
    what people type. When the file `installed` of this release is written anew, or at SIGHUP, this
    process becomes what is installed then.
    """
    # Before the rest is imported: what is written meanwhile is another release.
    running = identity_of(installed)
    left, handed = set(own_children()), take_inherited_state(os.environ)
    environ = {name: text for name, text in environ.items() if name not in VARIABLES}
    config = read_config()
    node = node_name(config.node, environ)
    directory = state_dir(config.node, node)
    os.umask(0o022)
    lock = lock_agent(directory, handed.lock)
    import_everything()
    commands.preload()
    fill_handler_cache(config, node, environ)
    freeze()
    parts = AgentParts(node, directory, config, environ, read_config, commands)
    activity = Activity(release, node, os.getpid(), config.agent.role, handed.history)
    kept, sockets = KeptSockets(handed), agent_directory(directory)
    manager = ServiceManager(environ)
    own, look = own_program(), partial(identity_of, installed)
    try:
        with _signals() as stopped, _private_sockets(kept, sockets, parts.is_node) as private:
            with _open_request_sockets(kept, sockets, parts.is_node) as listening:
                listener = _listener(parts, listening, private, activity, Reports(handed.reports))
                listener.adopt(handed)
                listener.leftovers.add(left - {one.pid for one in handed.children})
                kept.close_rest()
                upgrade = Upgrade(own, look, running, TrialStart(), activity.tell_upgrade_fault)
                manager.ready()
                replacement = _Replacement(listener, sockets, kept, lock, manager)
                _serve(listener, stopped, upgrade, replacement)
            manager.stopping()
            _finish(listener, stopped)
    finally:
        os.close(lock)


def check_start(read_config: Callable[[], Config], commands: CommandRunner) -> None:
    """Do what precedes serving; raises `ConfigError`, `NodeStateError` for what is not whole."""
    read_config()
    import_everything()
    commands.preload()
    if fault := installation_fault():
        raise NodeStateError(f"the installation is not whole: {fault}")


def _listener(
    parts: AgentParts,
    listening: Mapping[RequestSocket, socket.socket],
    private: PrivateSockets | None,
    activity: Activity,
    reports: Reports,
) -> Listener:
    runners = parts.runners()
    return Listener(
        listening,
        Admission(_limits(parts.config.agent)),
        activity,
        lambda request: run_handler(request, runners),
        parts.helpers(activity.fault, private, runners, reports.write_end),
        reports=reports,
    )


def _serve(
    listener: Listener, stopped: _Stopped, upgrade: Upgrade, replacement: _Replacement
) -> None:
    """Serve until the agent is to end, or becomes another program."""
    while not stopped.count:
        if stopped.take_reload():
            upgrade.ask(take_asked(replacement.directory))
        with blocked_signals():
            upgrade.step()
        program = upgrade.to_execute(is_quiet=not listener.has_brief_requests)
        if program and (why := replacement.execute(program, stopped)):
            upgrade.note_failure(why)
        listener.step(stopped.descriptor, upgrade.wait_s)
    upgrade.end()


def _limits(config: AgentConfig) -> Limits:
    return Limits(config.max_hooks, config.max_requests, config.max_requests_per_user)


class _Stopped:
    """How often the agent was told to end; `descriptor` is readable after any signal."""

    def __init__(self) -> None:
        self.count = 0
        self.is_reload_due = False
        self._receiver, self._sender = socket.socketpair()
        for one in (self._receiver, self._sender):
            one.setblocking(False)
        self.descriptor = self._receiver.fileno()
        self.wake_up_end = self._sender.fileno()

    def note(self, number: int, _frame: object) -> None:
        """Take a signal: SIGCHLD only wakes up."""
        self.count += number in (signal.SIGTERM, signal.SIGINT)
        self.is_reload_due |= number == signal.SIGHUP

    def passes_on(self) -> bool:
        """Leave a SIGHUP that came to the next program; return whether there is to be one.

        Call it with the signals blocked.
        """
        if not self.count and self.take_reload():
            os.kill(os.getpid(), signal.SIGHUP)
        return not self.count

    def take_reload(self) -> bool:
        """Return whether SIGHUP came since the last call."""
        is_due, self.is_reload_due = self.is_reload_due, False
        return is_due


@contextlib.contextmanager
def _signals() -> Iterator[_Stopped]:
    stopped = _Stopped()
    signal.set_wakeup_fd(stopped.wake_up_end, warn_on_full_buffer=False)
    for number in HANDLED_SIGNALS:
        signal.signal(number, stopped.note)
    # An agent that becomes another program has them blocked until here.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_SIGNALS)
    yield stopped


@contextlib.contextmanager
def _private_sockets(
    kept: KeptSockets, sockets: Path, of_node: bool
) -> Iterator[PrivateSockets | None]:
    """Give the sockets of scanner and watcher; a host without GPUs has neither."""
    if not of_node:
        yield None
        return
    with (
        kept.listening(sockets / SCANNER_SOCKET, 0o600) as scanner,
        kept.listening(sockets / WATCHER_SOCKET, 0o600) as queue,
    ):
        yield PrivateSockets(scanner, queue)


@contextlib.contextmanager
def _open_request_sockets(
    kept: KeptSockets, sockets: Path, of_node: bool
) -> Iterator[dict[RequestSocket, socket.socket]]:
    """Give the sockets at which requests arrive; no hooks ask the agent of a host without GPUs."""
    with contextlib.ExitStack() as files:
        listening = {}
        if of_node:
            listening[RequestSocket.HOOKS] = files.enter_context(
                kept.listening(sockets / HOOKS_SOCKET, 0o600)
            )
        listening[RequestSocket.PEOPLE] = files.enter_context(
            kept.listening(sockets / PEOPLE_SOCKET, 0o666)
        )
        yield listening


@dataclass(frozen=True, slots=True)
class _Replacement:
    """Makes this process another program, with all that an agent has to keep."""

    listener: Listener
    directory: Path
    sockets: KeptSockets
    lock: int
    manager: ServiceManager

    def execute(self, program: Program, stopped: _Stopped) -> str:
        """Become the program; returns why not, "" where the agent is to end instead."""
        listener = self.listener
        self.manager.reloading()
        listener.leave_waiting()
        ends_at = time.monotonic() + CLOSED_S
        while listener.has_brief_requests and not stopped.count:
            if (left_s := ends_at - time.monotonic()) <= 0:
                break
            listener.step(stopped.descriptor, left_s)
        why = "" if stopped.count else self._without_helpers(program, stopped)
        listener.let_in_again()
        if why:
            self.manager.ready()
        return why

    def _without_helpers(self, program: Program, stopped: _Stopped) -> str:
        listener = self.listener
        listener.leftovers.add(listener.helpers.end_and_forget())
        listener.leftovers.wait(HELPERS_END_S)
        connections, children = listener.handed_requests()
        reports = listener.reports
        what = InheritedState(
            self.lock,
            self.sockets.open,
            self.sockets.managed,
            (reports.read_end, reports.write_end),
            connections,
            children,
            listener.activity.status(),
        )
        failed = execute(program, what, HANDLED_SIGNALS, stopped.passes_on)
        listener.helpers.resume()
        return f"cannot execute {program.python}: {failed.strerror}" if failed else ""


def _finish(listener: Listener, stopped: _Stopped) -> None:
    """Wait for the requests that are under way, then kill what is left."""
    listener.close_sockets()
    began = time.monotonic()
    while listener.busy and stopped.count < 2 and time.monotonic() < began + STOP_GRACE_S:
        looks_end = time.monotonic() >= began + LOOK_GRACE_S
        if looks_end:
            listener.kill_endless_children()
        longest_s = STOP_GRACE_S if looks_end else LOOK_GRACE_S
        listener.step(stopped.descriptor, max(began + longest_s - time.monotonic(), 0.0))
    listener.kill_children()
