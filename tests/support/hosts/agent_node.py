"""A node with an agent, as people on it have it: no right to the configuration or to the store."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from forking_python import own_interpreter
from hosts.cli_node import CliNode, make_cli_node
from hosts.running_agent import RunningAgent

PROGRAM = str(Path(sysconfig.get_path("scripts")) / "canhazgpu")
"""The installed program."""
KEPT = ("PATH", "LANG", "LC_ALL", "HOME", "TMPDIR")


def as_user(uid: int | None) -> list[str]:
    """Return what runs a program as this user alone; None is who runs the tests.

    Python itself would fork for it, and copy the page tables of all that tests have in memory.
    """
    if uid is None:
        return []
    return ["/usr/bin/setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]


@dataclass(frozen=True, slots=True)
class AgentNode:
    """Node n1 with its GPUs, a store that only root may ask, and the node's agent."""

    here: CliNode
    agent: RunningAgent

    def env(self, **more: str) -> dict[str, str]:
        """The environment of somebody who knows where the agent is, and nothing else."""
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        return {**kept, "CANHAZGPU_AGENT_SOCKET": str(self.agent.people_socket), **more}

    def run(
        self, *arguments: str, user: int | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command through the agent; `user` is a uid."""
        return subprocess.run(
            [*as_user(user), PROGRAM, *arguments],
            env=self.env(**env),
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            cwd="/",
            check=False,
        )

    def directly(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command in its own process, as root, with the agent's configuration."""
        env = {**self.env(), "FAKE_NVML_NODE": "n1"}
        env.pop("CANHAZGPU_AGENT_SOCKET")
        return own_interpreter().run(
            ["-m", "canhazgpu.cli.main", *arguments],
            {**env, **self.agent.config_environ},
            timeout_s=60,
            directory=Path("/"),
        )


@contextmanager
def make_agent_node(
    gpus: int = 4, changes: str = "", **config: dict[str, object]
) -> Iterator[AgentNode]:
    """Make one; the agent's configuration and state are root's alone, but for its socket.

    `changes` is Python that the agent runs first.
    """
    with make_cli_node(gpus) as here:
        given = {
            **config,
            "store": {"url": here.redis.url, **config.get("store", {})},
            "validation": {"nvml_library": here.library, **config.get("validation", {})},
        }
        with RunningAgent(here.directory / "agent", changes=changes, **given) as agent:
            agent.hide_config()
            yield AgentNode(here, agent)
