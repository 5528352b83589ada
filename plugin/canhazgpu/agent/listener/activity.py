"""What the agent did since its start, for `canhazgpu agent status`; pure.

A handler is a copy of the listener's process, and so it knows what the listener knew at the fork.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from canhazgpu.agent.wire import interface

MAX_FAULTS = 20
MAX_FAULT_LENGTH = 300


class Activity:
    """The counts and the last faults of one agent."""

    def __init__(
        self,
        release: str,
        node: str,
        pid: int,
        role: str = "node",
        before: Mapping[str, Any] | None = None,
    ) -> None:
        self._release = release
        self._node = node
        self._pid = pid
        self._role = role
        self._started_at = time.time()
        self._served: Counter[str] = Counter()
        self._faults: deque[tuple[float, str]] = deque(maxlen=MAX_FAULTS)
        self.refused = 0
        self.children = 0
        self.upgrade_fault = ""
        """Why the agent does not become what is installed, empty for no reason."""
        self._upgrade_fault_at = 0.0
        self._release_since = self._started_at
        self._executions = 0
        if before:
            self._go_on_with(before)

    def served(self, method: str) -> None:
        """Count a request that was carried out."""
        self._served[method.rpartition(".")[2]] += 1

    def fault(self, text: str) -> None:
        """Keep a fault."""
        self._faults.append((time.time(), text[:MAX_FAULT_LENGTH]))

    def tell_upgrade_fault(self, text: str) -> None:
        """Keep why the agent does not become what is installed; "" where that is over."""
        if text and text != self.upgrade_fault:
            self.fault(f"the installed release is not taken: {text}")
        self.upgrade_fault, self._upgrade_fault_at = text[:MAX_FAULT_LENGTH], time.time()

    def _go_on_with(self, before: Mapping[str, Any]) -> None:
        """Take the status of the program that this process was before, as far as it is one."""
        with contextlib.suppress(KeyError, TypeError, ValueError):
            self._executions = int(before.get("executions", 0)) + 1
            self._started_at = float(before["started_at"])
            self.refused = int(before["refused"])
            self._served.update({str(name): int(n) for name, n in before["served"].items()})
            self._faults.extend((float(one["at"]), str(one["text"])) for one in before["faults"])

    def status(self) -> dict[str, Any]:
        """Return the answer to `Status`."""
        return {
            "release": self._release,
            "interface": interface.VERSION,
            "node": self._node,
            "role": self._role,
            "pid": self._pid,
            "started_at": self._started_at,
            "served": dict(self._served),
            "refused": self.refused,
            "children": self.children,
            "executions": self._executions,
            "release_since": self._release_since,
            "upgrade_fault": self._upgrade_fault(),
            "faults": [{"at": at, "text": text} for at, text in self._faults],
        }

    def _upgrade_fault(self) -> dict[str, Any] | None:
        if not self.upgrade_fault:
            return None
        return {"at": self._upgrade_fault_at, "text": self.upgrade_fault}
