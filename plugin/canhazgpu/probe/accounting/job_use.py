"""What a job made of its GPUs, from the driver's accounting: read beside the epilog's own work.

The driver is asked in a child, for it may hang. Nothing waits for it longer than `LIMIT_S` from its
start, and a job whose use cannot be read ends like any other.
"""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from canhazgpu.config.schema import ValidationConfig
from canhazgpu.errors import ScanError
from canhazgpu.gpu.accounting import AccountedGpu, GpuUse, use_while_held
from canhazgpu.ledger.values import RECORD_ERRORS
from canhazgpu.logfmt import log_line
from canhazgpu.node.state_files import read_if_trusted, write_atomically
from canhazgpu.node.system_log import DAEMON_INFO, write_syslog
from canhazgpu.probe.bounded_child import BoundedChild, BoundedChildError

SINCE_FILE = "accounting-since.json"
"""In the node's directory: when accounting was switched on, by UUID, where it was off before."""
EVERY_GPU = "*"
LIMIT_S = 1.5
SWITCH_LIMIT_S = 5.0


class PendingUse:
    """A reading of these GPUs' accounting that is under way."""

    def __init__(
        self, validation: ValidationConfig, state_dir: Path, gpus: Collection[str]
    ) -> None:
        self._gpus = frozenset(gpus)
        self._since = _read_since(state_dir)
        library = validation.nvml_library
        self._child: BoundedChild | None = None
        try:
            self._child = BoundedChild(lambda: _read(library, self._gpus), LIMIT_S)
        except BoundedChildError:
            self._child = None

    def result(self, held_since: float, others: Mapping[str, Collection[int]]) -> dict[str, GpuUse]:
        """Return the use of each GPU since then that the driver has kept; never raises.

        `others` are processes of others that were seen on a GPU. Call it once.
        """
        found, accounted, now = {}, self.accounted(), time.time()
        for gpu in accounted:
            use = use_while_held(gpu, held_since, now, others.get(gpu.uuid, ()))
            if use is not None:
                found[gpu.uuid] = use
        return found

    def accounted(self) -> tuple[AccountedGpu, ...]:
        """Return what the driver has kept of the GPUs; never raises. Call it once."""
        since = self._since
        if self._child is None or since is None:
            return ()
        try:
            # It comes from a child of this process, which runs the same program.
            known: tuple[AccountedGpu, ...] = pickle.loads(self._child.result())  # noqa: S301
        except BoundedChildError:
            return ()
        before = since.get(EVERY_GPU, 0.0)
        return tuple(replace(one, since=since.get(one.uuid, before)) for one in known)


def switch_on(node: str, validation: ValidationConfig, state_dir: Path) -> None:
    """Switch accounting on where it is off, and note when; what fails is tried again."""
    library = validation.nvml_library
    try:
        content = BoundedChild(lambda: _switch_on(library), SWITCH_LIMIT_S).result()
        switched: tuple[str, ...] = pickle.loads(content)  # noqa: S301 - as above
        since = _read_since(state_dir)
        if switched or since is None:
            # What was in a damaged file may have been as late as now.
            known = {EVERY_GPU: time.time()} if since is None else since
            since = {**known, **dict.fromkeys(switched, time.time())}
            # Who runs something without an agent reads what the driver kept of it, too.
            write_atomically(state_dir / SINCE_FILE, json.dumps(since).encode(), mode=0o644)
            write_syslog(log_line("accounting-on", node=node, gpus=list(switched)), DAEMON_INFO)
    except (BoundedChildError, OSError) as exc:
        write_syslog(log_line("accounting-not-on", node=node, reason=str(exc)))


def _read(library: str, gpus: Collection[str]) -> bytes:
    from canhazgpu.probe.nvml.accounting import read_accounting  # noqa: PLC0415 - only the child imports pynvml

    try:
        return pickle.dumps(read_accounting(library, gpus))
    except ScanError:
        return pickle.dumps(())


def _switch_on(library: str) -> bytes:
    from canhazgpu.probe.nvml.accounting import switch_on_accounting  # noqa: PLC0415 - as above

    try:
        return pickle.dumps(switch_on_accounting(library))
    except ScanError:
        return pickle.dumps(())


def _read_since(state_dir: Path) -> dict[str, float] | None:
    """Return the times; None where they cannot be read."""
    try:
        content = read_if_trusted(state_dir / SINCE_FILE)
        data = {} if content is None else json.loads(content)
        return {str(uuid): float(at) for uuid, at in data.items()}
    except (*RECORD_ERRORS, OSError, AttributeError):
        return None
