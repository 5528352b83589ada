"""Find the processes that a fault may strike, by what the kernel shows of them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from canhazgpu_soak.cluster import SoakCluster

PROC = Path("/proc")
LISTENING, CONNECTED = "01", "03"
ROLES = {
    (LISTENING, "scanner.sock"): "scanner",
    (LISTENING, "watcher.sock"): "watcher",
    (CONNECTED, "agent.sock"): "handler",
    (CONNECTED, "hooks.sock"): "handler",
}
"""By the state and the name of a socket, as in /proc/net/unix."""
HOOK_WORDS = (b"hook_client.py", b"canhazgpu.prolog", b"canhazgpu.epilog")


def targets(cluster: SoakCluster, target: str, node: str) -> list[int]:
    """Return the pids of such processes now: ``agent``, ``scanner``, ``watcher``, ``handler``,
    ``helper``.

    A ``hook`` is the process of a hook that asks the agent or does the work, not its shell: Slurm
    drains the node of a hook whose shell is killed.
    """
    if target == "hook":
        return hook_processes(cluster, node)
    agent = cluster.agent_pid(node)
    if target == "agent" or not agent:
        return [agent] if agent else []
    return [pid for pid in children(agent) if role_of(pid) == target]


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    with contextlib.suppress(OSError):
        return [int(one) for one in (PROC / f"{pid}/task/{pid}/children").read_text().split()]
    return []


def role_of(pid: int) -> str:
    """Tell what a child of an agent does, by its sockets.

    A ``helper`` waits: a handler that was forked in advance, or who awaits orders at the store.
    """
    try:
        files = {str(fd.readlink()) for fd in (PROC / f"{pid}/fd").iterdir()}
        rows = [line.split() for line in (PROC / "net" / "unix").read_text().splitlines()[1:]]
    except OSError:
        return "ended"
    own = [(row[5], row[-1]) for row in rows if f"socket:[{row[6]}]" in files]
    return next(
        (ROLES[pair] for state, path in own if (pair := (state, _name(path))) in ROLES), "helper"
    )


def _name(path: str) -> str:
    """Return the socket's name; the agent binds it as a draft, `.agent.sock.new`."""
    return path.rpartition("/")[2].removeprefix(".").removesuffix(".new")


def hook_processes(cluster: SoakCluster, node: str) -> list[int]:
    """Return the Pythons of the hooks that run on the node."""
    marks = {f"CANHAZGPU_CONFIG={cluster.config}".encode(), f"SLURMD_NODENAME={node}".encode()}
    found = []
    for entry in PROC.iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            if any(word in command for word in HOOK_WORDS):
                environ = {*(entry / "environ").read_bytes().split(b"\0")}
                found += [int(entry.name)] if marks <= environ else []
        except OSError:
            continue
    return found


def is_waiter(pid: int) -> bool:
    """Whether a command of a person waits in the queue; it has not become its task yet."""
    try:
        return b"--wait" in (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
