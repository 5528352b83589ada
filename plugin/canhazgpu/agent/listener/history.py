"""What the agent did since its start, for `canhazgpu agent status`; pure.

A handler is a copy of the listener's process, and so it knows what the listener knew at the fork.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Any

from canhazgpu.agent.wire import interface

MAX_FAULTS = 20
MAX_FAULT_LENGTH = 300


class History:
    """The counts and the last faults of one agent."""

    def __init__(self, release: str, node: str, pid: int, role: str = "node") -> None:
        self._release = release
        self._node = node
        self._pid = pid
        self._role = role
        self._started_at = time.time()
        self._served: Counter[str] = Counter()
        self._faults: deque[tuple[float, str]] = deque(maxlen=MAX_FAULTS)
        self.refused = 0
        self.children = 0

    def served(self, method: str) -> None:
        """Count a request that was carried out."""
        self._served[method.rpartition(".")[2]] += 1

    def fault(self, text: str) -> None:
        """Keep a fault."""
        self._faults.append((time.time(), text[:MAX_FAULT_LENGTH]))

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
            "faults": [{"at": at, "text": text} for at, text in self._faults],
        }
