"""A node whose agent's processes crash at their steps: handlers, scanner, watcher, listener."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import redis
from crashes.crash_node import SQUEUE
from crashes.crash_page import CrashPage, library
from crashes.node_image import NodeImage, NodeState, node_state, store_client
from forking_python import ForkingPython
from hosts.hook_node import HOOK_MODULES, NODE, HookNode, make_hook_node
from hosts.running_agent import RunningAgent
from polling import poll_until
from simulated_driver import install_driver

import fake_nvml
from canhazgpu.errors import AgentError

TIMEOUT_S = 120.0
NOT_SERVED, HANDLER_DEAD = 120, 121
TAKES = """
import ctypes, importlib
take = ctypes.CDLL(None).crash_take
def taking(module, holder, name, role):
    owner = importlib.import_module("canhazgpu.agent." + module)
    owner = getattr(owner, holder) if holder else owner
    first = getattr(owner, name)
    def taken(*given, **named):
        take({page!r}, role)
        return first(*given, **named)
    setattr(owner, name, taken)
taking("handler.serve", "", "serve", b"handler")
taking("watcher.process", "Watcher", "run", b"watcher")
taking("watcher.forked_task", "", "_outcome", b"task")
taking("listener.scanner_starter", "", "serve", b"scanner")
taking("scanner.reader_process", "", "run_reader", b"reader")
taking("orders.order_reader", "OrderReaderProcess", "run", b"orders")
taking("listener.loop", "Listener", "step", b"listener")
import sys
take({page!r}, b"check" if "--check" in sys.argv else b"start")
"""
CLIENT = """
import sys
from canhazgpu.agent.hook_client import main
sys.exit(main({socket!r}, {method!r}))
"""
METHODS = {"prolog": "JobStart", "epilog": "JobEnd", "health_check": "Check"}
COMMAND = "import sys\nsys.argv = {argv!r}\nfrom canhazgpu.cli.entry import main\nmain()"


@dataclass
class CrashAgent:
    """The node, its agent, and an interpreter for hooks and commands."""

    node: HookNode
    agent: RunningAgent
    python: ForkingPython
    page: CrashPage
    store: redis.Redis
    images: Path

    @property
    def state_dir(self) -> Path:
        return self.agent.state_dir

    def runs(self) -> None:
        """Have the agent run, as its service does."""
        while not self.is_served():
            if self.agent.process.poll() is not None:
                self.agent.start_again()
            time.sleep(0.05)

    def is_served(self) -> bool:
        """Whether the agent answers: one that was just killed may not be seen to have ended."""
        try:
            return bool(self.agent.status())
        except AgentError:
            return False

    def store_is_away(self) -> None:
        for one in (self.node.configure, self.agent.change_config):
            one(store={"url": "unix:///nowhere/redis.sock"})

    def store_is_back(self) -> None:
        """Have the store answer, and wait until it has been told what it lacks."""
        for one in (self.node.configure, self.agent.change_config):
            one(store={"url": self.node.server.url})
        poll_until(lambda: not self.state().pending, "the store to be told")

    def slurm_has(self, *jobs: str) -> None:
        """Say which jobs Slurm has on the node."""
        (self.node.files / "jobs").write_text("".join(f"{one}\n" for one in jobs))

    def image(self) -> NodeImage:
        return NodeImage.take(self.images, (self.state_dir,), self.store)

    def state(self) -> NodeState:
        return node_state(self.state_dir, self.node.ledger, NODE)

    def hook(self, name: str, **variables: str) -> None:
        """Run a hook as its script does: by the agent, else by itself, and once more if killed."""
        environ = self.node.environ(**variables)
        client = CLIENT.format(socket=str(self.agent.hooks_socket), method=METHODS[name])
        done = self.python.run(["-c", client], environ, TIMEOUT_S)
        if done.returncode == HANDLER_DEAD:
            environ["HOOK_LOST_S"] = "0"
        if done.returncode in (NOT_SERVED, HANDLER_DEAD):
            module = next(one for one, what in HOOK_MODULES.items() if what == name)
            done = self.python.run(["-m", module], environ, TIMEOUT_S)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), (name, done)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command by the agent."""
        environ = {
            "CANHAZGPU_AGENT_SOCKET": str(self.agent.people_socket),
            "PATH": "/usr/bin:/bin",
            "HOME": "/",
        }
        argv = ["canhazgpu", *arguments]
        return self.python.run(["-c", COMMAND.format(argv=argv)], environ, TIMEOUT_S)

    def settled(self) -> NodeState:
        """The state once the agent has nothing left to do."""

        last: list[NodeState] = []

        def is_at_rest() -> bool:
            last[:] = [self.state()]
            return not last[0].faults() and "runs/" not in str(last[0].files)

        self.agent.wait_until_idle()
        with suppress(AssertionError):
            poll_until(is_at_rest)
        return last[0]


@contextmanager
def make_crash_agent(directory: Path, orders: str = "check") -> Iterator[CrashAgent]:
    """Make one; `orders` is ``agent.orders``."""
    driver = install_driver(directory / "driver")
    state = fake_nvml.FakeState(driver.parent / "state")
    state.set_default_node(NODE)
    page = CrashPage(directory / "page")
    with (
        make_hook_node(directory, driver, "slurm", state) as node,
        RunningAgent(
            directory,
            NODE,
            TAKES.format(page=str(page.path).encode()),
            preload=str(library()),
            store={"url": node.server.url, "timeout_s": 5.0, "retry_after_s": 1.0},
            validation={"nvml_library": str(driver)},
            agent={"driver_idle_s": 0.01, "orders": orders},
        ) as agent,
        ForkingPython(Path(sys.executable)) as python,
    ):
        node.configure(
            node={"state_dir": str(agent.state_dir), "marker_dir": str(directory / "agent-lib")}
        )
        node.slurm(squeue=SQUEUE.format(jobs=directory / "jobs"))
        store = store_client(node.server.url)
        made = CrashAgent(node, agent, python, page, store, directory / "images")
        made.slurm_has()
        yield made
        store.close()
