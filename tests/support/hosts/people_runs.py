"""People's `run` on a node with an agent: started, and asked which devices it has."""

from __future__ import annotations

import pwd
import subprocess
import sys
from typing import TextIO

from hosts.agent_node import PROGRAM, AgentNode, as_user

ALICE, BOB = (pwd.getpwnam(name).pw_uid for name in ("games", "news"))
_SHOW = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep({})"


def start_run(
    node: AgentNode,
    *words: str,
    user: int = ALICE,
    seconds: float = 3600,
    stderr: int | TextIO = subprocess.PIPE,
) -> subprocess.Popen[str]:
    """Start a `run` that says its devices and then sleeps."""
    return subprocess.Popen(
        [
            *(*as_user(user), PROGRAM, "run", *words),
            *("--", sys.executable, "-I", "-c", _SHOW.format(seconds)),
        ],
        env=node.env(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        cwd="/",
        start_new_session=True,
    )


def devices(run: subprocess.Popen[str]) -> set[str]:
    """The devices of a run, once it has them."""
    assert run.stdout is not None
    return set(run.stdout.readline().strip().split(","))


def end(*runs: subprocess.Popen[str]) -> None:
    for one in runs:
        one.kill()
        one.communicate()


def holders(node: AgentNode) -> dict[str, str]:
    """The owner of each GPU that is held, by UUID."""
    (view,) = node.here.ledger().read_nodes(["n1"])
    return {gpu: one.claim.owner for gpu, one in view.reservations.items()}


def queue(node: AgentNode) -> list[str]:
    """The users who wait, the first first."""
    (view,) = node.here.ledger().read_nodes(["n1"])
    return [one.user for one in view.queue]
