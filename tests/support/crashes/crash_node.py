"""A node whose hooks and commands crash at their steps, and are recovered from."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from crashes.crash_page import Action, Crash, CrashPage, library, take_program
from crashes.node_image import NodeImage, NodeState, node_state, store_client
from forking_python import ForkingPython
from hook_jobs import node_events
from hosts.hook_node import NODE, HookNode, make_hook_node
from polling import poll_until

import fake_nvml

TIMEOUT_S = 120.0
MEANWHILE_S = 0.3
"""How long others may work beside a process that is stopped, before it goes on."""
HOOKS = {
    "prolog": "canhazgpu.prolog.main",
    "epilog": "canhazgpu.epilog.main",
    "health_check": "canhazgpu.epilog.health_check",
}
ROLE = "work"
RUN_HOOK = "import sys\nfrom {module} import main\nsys.argv = ['{module}']\nsys.exit(main())\n"
RUN_COMMAND = "import sys\nfrom canhazgpu.cli.main import main\nsys.argv = {argv!r}\nmain()\n"
SQUEUE = """case $* in
*'%A|%u'*) while read -r job; do echo "$job|ann|RUNNING|1700000000|gres/gpu:2"; done <{jobs} ;;
*--nodelist*) while read -r job; do echo "$job RUNNING"; done <{jobs} ;;
*) for last; do :; done; echo "$last $last RUNNING" ;;
esac"""
SHOW = """printf 'JobId=%s JobName=x\\n   Requeue=1 Restarts=0 BatchFlag=1\\n' "$4"
case $4 in 12) gres='gpu:2(IDX:0-1)' ;; 13) gres='gpu:1(IDX:3)' ;; *) gres='gpu:1(IDX:2)' ;; esac
echo "     Nodes=n1 CPU_IDs=0-1 Mem=0 GRES=$gres"
"""


@dataclass
class Work:
    """What runs with a crash: a program, and its environment."""

    program: str
    environ: Mapping[str, str]


@dataclass
class CrashNode:
    """The node, and the interpreter whose runs may crash."""

    node: HookNode
    python: ForkingPython
    page: CrashPage
    store: redis.Redis
    images: Path

    @property
    def state_dir(self) -> Path:
        return self.node.files / "run"

    def slurm_has(self, *jobs: str) -> None:
        """Say which jobs Slurm has on the node; each has the first two GPUs."""
        (self.node.files / "jobs").write_text("".join(f"{one}\n" for one in jobs))

    def slurms_jobs(self) -> list[str]:
        return (self.node.files / "jobs").read_text().split()

    def image(self) -> NodeImage:
        directories = (self.state_dir, self.node.files / "lib")
        return NodeImage.take(self.images, directories, self.store)

    def state(self) -> NodeState:
        return node_state(self.state_dir, self.node.ledger, NODE)

    def hook(self, name: str, **variables: str) -> Work:
        return Work(RUN_HOOK.format(module=HOOKS[name]), self.node.environ(**variables))

    def command(self, *arguments: str) -> Work:
        environ = {**self.node.environ(), "PATH": os.defpath, "HOME": "/"}
        kept = {name: text for name, text in environ.items() if not name.startswith("SLURM_JOB")}
        return Work(RUN_COMMAND.format(argv=["canhazgpu", *arguments]), kept)

    def do(self, work: Work) -> subprocess.CompletedProcess[str]:
        """Carry it out without a crash."""
        return self.python.run(["-c", work.program], work.environ, TIMEOUT_S)

    def crash(
        self, work: Work, crash: Crash, meanwhile: Callable[[], object] = lambda: None
    ) -> subprocess.CompletedProcess[str]:
        """Carry it out with a crash; `meanwhile` runs beside one that is stopped."""
        self.page.set(ROLE, crash)
        program = take_program(self.page, ROLE) + work.program
        if crash.action is not Action.STOP:
            return self.python.run(["-c", program], work.environ, TIMEOUT_S)
        ended: list[subprocess.CompletedProcess[str]] = []
        stopped = threading.Thread(
            target=lambda: ended.append(self.python.run(["-c", program], work.environ, TIMEOUT_S))
        )
        stopped.start()
        poll_until(lambda: self.page.is_hit or ended)
        others = threading.Thread(target=meanwhile)
        others.start()
        others.join(MEANWHILE_S)
        if not ended:
            os.kill(self.page.pid, signal.SIGCONT)
        stopped.join()
        others.join()
        return ended[0]

    def faults(self) -> list[str]:
        """Whether a GPU had two owners, by the history."""
        holder: dict[str, str] = {}
        found = []
        for event in node_events(self.node, "grant", "release"):
            assert event.claim is not None
            owner = event.claim.owner
            if holder.get(event.gpu, owner) != owner:
                found.append(f"{event.kind} of {owner}, while {holder[event.gpu]} has {event.gpu}")
            if event.kind == "grant":
                holder[event.gpu] = owner
            else:
                holder.pop(event.gpu, None)
        return found


@contextmanager
def make_crash_node(directory: Path, driver: Path, assignment: str) -> Iterator[CrashNode]:
    state = fake_nvml.FakeState(directory / "nvml")
    preload = {"LD_PRELOAD": str(library())}
    with (
        make_hook_node(directory, driver, assignment, state) as node,
        ForkingPython(Path(sys.executable), preload) as python,
    ):
        page = CrashPage(directory / "page")
        store = store_client(node.server.url)
        made = CrashNode(node, python, page, store, directory / "images")
        made.slurm_has()
        node.slurm(squeue=SQUEUE.format(jobs=node.files / "jobs"), show=SHOW)
        yield made
        store.close()
