"""Have the agent's scanner let go of the driver, with an error that says what to do otherwise."""

from __future__ import annotations

from pathlib import Path

from canhazgpu.agent.scanner.client import ScannerUnavailableError, release_driver
from canhazgpu.errors import AgentError


def release_by_agent(socket_path: Path, timeout_s: float) -> bool:
    """Return once no process of the agent has a device open; False where no agent runs.

    Raises `AgentError` where one does not let go within `timeout_s` seconds.
    """
    try:
        holding = release_driver(socket_path, timeout_s)
    except ScannerUnavailableError as exc:
        if isinstance(exc.__cause__, FileNotFoundError | ConnectionRefusedError):
            return False
        raise AgentError(f"the agent's scanner at {socket_path} cannot be used: {exc}") from exc
    except TimeoutError as exc:
        raise AgentError(
            f"the agent's scanner does not answer within {2 * timeout_s:.3g} s",
            next_step="end it: the agent starts another with the next scan",
        ) from exc
    if holding:
        pids = ", ".join(map(str, holding))
        raise AgentError(
            f"the agent's processes {pids} still have the driver open after {timeout_s:.3g} s",
            next_step="look for NVRM and Xid in 'dmesg': a call that hangs in the driver ends with"
            " a reboot of the node",
        )
    return True
