"""Have the agent of a node become the release of this installation."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from canhazgpu.agent.client import call
from canhazgpu.agent.reexecution.program import ask_for
from canhazgpu.agent.socket_files import agent_directory
from canhazgpu.agent.wire.interface import STATUS
from canhazgpu.errors import AgentError, NodeStateError

LOOK_INTERVAL_S = 0.2


def reload_agent(state_dir: Path, timeout_s: float) -> dict[str, Any]:
    """Return the agent's status once it is done.

    Raises `AgentError` where no agent runs, it does not become this release, or not in time.
    """
    ends_at = time.monotonic() + timeout_s
    before = call(state_dir, STATUS)
    if "executions" not in before:
        raise AgentError(
            f"the agent (PID {before['pid']}) is of release {before['release']}, which cannot"
            " become another one: restart it"
        )
    directory = agent_directory(state_dir)
    try:
        ask_for(directory, sys.executable)
        os.kill(before["pid"], signal.SIGHUP)
    except OSError as exc:
        raise NodeStateError(f"cannot ask the agent in {directory}: {exc.strerror}") from exc
    while time.monotonic() < ends_at:
        time.sleep(LOOK_INTERVAL_S)
        found = call(state_dir, STATUS, wait_s=max(ends_at - time.monotonic(), 1.0))
        if found["executions"] > before["executions"]:
            return found
        _refuse_if_failed(found, before)
    raise AgentError(f"the agent (PID {before['pid']}) did not become it within {timeout_s:g} s")


def _refuse_if_failed(found: dict[str, Any], before: dict[str, Any]) -> None:
    fault, former = found.get("upgrade_fault"), before.get("upgrade_fault")
    if fault and (former is None or fault["at"] > former["at"]):
        raise AgentError(f"the agent stays with release {found['release']}: {fault['text']}")
