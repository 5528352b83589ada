"""A node whose watcher looks after clients that wait, as handlers hand them over; no agent beside.

The listener is the agent's own, without sockets for requests.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hosts.watched_runs import NODE, WatchedNode
from polling import poll_until

from canhazgpu.agent.handler.watcher_handover import WATCHER_SOCKET, hand_over
from canhazgpu.agent.listener.activity import Activity
from canhazgpu.agent.listener.admission import Admission, Limits
from canhazgpu.agent.listener.helpers import Helpers
from canhazgpu.agent.listener.loop import Listener
from canhazgpu.agent.listener.preload import freeze, import_everything
from canhazgpu.agent.listener.scanner_starter import ScannerStarter
from canhazgpu.agent.listener.watcher_starter import WatcherStarter
from canhazgpu.agent.socket_files import SCANNER_SOCKET, agent_directory, listen
from canhazgpu.agent.watcher.journal_watch import JournalWatch
from canhazgpu.agent.watcher.process import WaitingSocket, Watcher
from canhazgpu.agent.watcher.runs.runs_watch import RunsWatch
from canhazgpu.agent.wire.framing import Inbox, decode, encode
from canhazgpu.allocation.allocator import Grant
from canhazgpu.allocation.refusal import Refusal
from canhazgpu.config.schema import Config
from canhazgpu.errors import CanhazgpuError
from canhazgpu.in_process.watching.waiting_request import RunSettings, WaitingRequest
from canhazgpu.ledger.owner import RUN
from canhazgpu.ledger.user_limits import NO_LIMITS, UserLimits
from canhazgpu.ledger.values import Claim
from canhazgpu.node.boot_clock import uptime_s
from canhazgpu.node.identity import boot_id, pid_namespace
from canhazgpu.node.processes import identify_process
from canhazgpu.node.run_marker import new_run_marker
from canhazgpu.probe.bounded_child import die_with_parent
from canhazgpu.service.grants import GpuRequest

HAND_OVER_S = 60.0
SCANNER_IDLE_S = 1.0
HELD_UP = "held-up"
REFUSAL = Refusal("there are too few")


class ToldAsJson:
    """`WaiterAnswers` as one JSON object for each."""

    def __init__(self, _waiting: WaitingRequest) -> None:
        pass

    def progress(self, text: str, steady: str) -> bytes:
        return encode({"progress": text, "steady": steady})

    def refused(self, refusal: Refusal) -> bytes:
        return encode({"refused": refusal.reason})

    def failed(self, error: CanhazgpuError) -> bytes:
        return encode({"failed": str(error)})

    def granted(self, config: Config, grant: Grant) -> bytes:
        """Wait while the test holds it up: the grant is committed, and nobody is told."""
        held_up = Path(config.node.state_dir).parent / HELD_UP
        if held_up.exists():
            held_up.with_name(f"{HELD_UP}-{os.getpid()}").touch()
            while held_up.exists():
                time.sleep(0.01)
        return encode({"granted": [gpu.index for gpu in grant.gpus]})


@dataclass
class Client:
    """A process that waits, and its end of the connection."""

    process: subprocess.Popen[bytes]
    connection: socket.socket
    waiting: WaitingRequest
    inbox: Inbox = field(default_factory=Inbox)
    told: list[dict[str, Any]] = field(default_factory=list)

    @property
    def owner(self) -> str:
        return self.waiting.owner

    def next(self) -> dict[str, Any]:
        """What it is told next; nothing where the connection has ended."""
        while (frame := self.inbox.take()) is None:
            chunk = self.connection.recv(65536)
            if not chunk:
                return {}
            self.inbox.add(chunk)
        self.told.append(decode(frame))
        return self.told[-1]

    def until(self, key: str) -> Any:
        """What it is told under this key, when that comes."""
        while key not in (told := self.next()):
            assert told, f"the connection ended without {key}: {self.told}"
        return told[key]


@dataclass
class WaitingNode(WatchedNode):
    """A `WatchedNode` without an agent: `hosting` gives it a listener that starts its watcher."""

    host: int = 0
    clients: list[Client] = field(default_factory=list)

    @contextlib.contextmanager
    def hosting(self) -> Iterator[WaitingNode]:
        """Have a listener, which starts a watcher when it is needed."""
        sockets = agent_directory(self.state_dir)
        sockets.mkdir(parents=True)
        with (
            listen(sockets / WATCHER_SOCKET, 0o600) as listening,
            listen(sockets / SCANNER_SOCKET, 0o600) as scanner,
        ):
            self.host = os.fork()
            if self.host == 0:
                try:
                    die_with_parent(os.getppid())()
                    self._listen(listening, scanner)
                finally:
                    os._exit(1)
        try:
            yield self
        finally:
            os.kill(self.host, signal.SIGKILL)
            os.waitpid(self.host, 0)
            for one in self.clients:
                one.connection.close()
                one.process.kill()
                one.process.wait()

    def _listen(self, listening: socket.socket, scanner: socket.socket) -> None:
        import_everything()
        freeze()
        receiver, sender = socket.socketpair()
        sender.setblocking(False)
        receiver.setblocking(False)
        signal.set_wakeup_fd(sender.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        config = self.config
        sockets = agent_directory(self.state_dir)
        watcher = Watcher(
            NODE,
            self.state_dir,
            {"SLURMD_NODENAME": NODE},
            lambda: config,
            sockets / SCANNER_SOCKET,
            WaitingSocket(listening, ToldAsJson),
        )
        activity = Activity("test", NODE, os.getpid())
        starter = WatcherStarter(
            JournalWatch(self.state_dir), RunsWatch(self.state_dir), watcher.run, listening
        )
        helpers = Helpers(self._fault, ScannerStarter(scanner, SCANNER_IDLE_S), starter)
        listener = Listener({}, Admission(Limits(1, 1, 1)), activity, _serve_nobody, helpers)
        while True:
            listener.step(receiver.fileno())

    def _fault(self, text: str) -> None:
        with (self.directory / "faults").open("a") as stream:
            stream.write(text + "\n")

    def faults(self) -> list[str]:
        """What the listener has noted."""
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / "faults").read_text().splitlines()
        return []

    def watcher(self) -> int:
        """The pid of the watcher, once there is one."""
        return poll_until(lambda: min(self.watchers(), default=0))

    def watchers(self) -> list[int]:
        """The listener's children."""
        task = Path(f"/proc/{self.host}/task/{self.host}/children")
        return [int(pid) for pid in task.read_text().split()]

    @contextlib.contextmanager
    def answers_held_up(self) -> Iterator[Callable[[], int]]:
        """Let nobody be told of a grant; gives the pid of the process that has made one."""
        mark = self.directory / HELD_UP

        def who() -> int:
            found = next(iter(self.directory.glob(f"{HELD_UP}-*")), None)
            return int(found.name.removeprefix(f"{HELD_UP}-")) if found else 0

        mark.touch()
        try:
            yield lambda: poll_until(who)
        finally:
            mark.unlink()

    def queue(self) -> list[str]:
        """The owners in the queue, as everybody sees them."""
        (view,) = self.ledger().read_nodes([NODE])
        return [one.owner for one in view.queue]

    def wait_for(
        self,
        count: int = 1,
        *,
        uid: int = 0,
        type_: str = RUN,
        wait_s: float | None = None,
        gives_up: bool = False,
        again: Client | None = None,
        limits: UserLimits = NO_LIMITS,
        **gpus: Any,
    ) -> Client:
        """Hand a client over that waits for so many GPUs; or the same one `again`."""
        if again is None:
            process = subprocess.Popen(["/bin/sleep", "3600"], user=uid, start_new_session=True)
            waiting = _waiting(process.pid, count, uid, type_, wait_s, gives_up, gpus)
            waiting = replace(waiting, limits=limits)
        else:
            process, waiting = again.process, again.waiting
        own, its = socket.socketpair()
        own.settimeout(HAND_OVER_S)
        with its:
            path = agent_directory(self.state_dir) / WATCHER_SOCKET
            hand_over(path, its, waiting, HAND_OVER_S)
        self.clients.append(Client(process, own, waiting))
        return self.clients[-1]


def _waiting(
    pid: int,
    count: int,
    uid: int,
    type_: str,
    wait_s: float | None,
    gives_up: bool,
    gpus: dict[str, Any],
) -> WaitingRequest:
    client = identify_process(pid)
    assert client is not None
    owner = f"{type_}:w{pid}"
    claim = Claim(owner, type_, f"user{uid}", uid, boot_id=boot_id())
    if type_ == RUN:
        claim = replace(claim, processes=(client,), pid_namespace=pid_namespace())
    else:
        claim = replace(claim, boot_id=None, duration_s=3600.0)
    return WaitingRequest(
        claim,
        GpuRequest(count, **gpus),
        client,
        30.0,
        REFUSAL,
        ends_at_uptime_s=None if wait_s is None else uptime_s() + wait_s,
        gives_up=gives_up,
        run=RunSettings(new_run_marker(owner), uid, ()) if type_ == RUN else None,
    )


def _serve_nobody(_request: object) -> Any:
    os._exit(1)
