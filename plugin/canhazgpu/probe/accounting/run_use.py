"""What runs made of their GPUs, from the driver's accounting: read beside their release.

A run's processes have all ended by then, so what still runs on its GPU is somebody else's. No
control group tells which processes were the run's: as of a job, each that began on its GPU is.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from canhazgpu.config.schema import ValidationConfig
from canhazgpu.gpu.accounting import AccountedGpu, GpuUse, use_while_held
from canhazgpu.gpu.use_facts import UseFacts
from canhazgpu.ledger.journal_entries import USE, JournalEntry
from canhazgpu.ledger.values import NodeView, Reservation
from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.processes import is_alive
from canhazgpu.probe.accounting.job_use import PendingUse


class RunUses:
    """The use of the GPUs that these owners hold, while their release is under way.

    `view` is the node before it. Nothing waits longer than `PendingUse` does, and nothing raises.
    """

    def __init__(
        self,
        validation: ValidationConfig,
        state_dir: Path,
        view: NodeView,
        owners: Collection[str],
    ) -> None:
        self._view = view
        # The driver's times are of this machine's clock, reservations' of the store's.
        self._viewed_at = time.time()
        self._held: dict[str, list[Reservation]] = {}
        for held in view.reservations.values():
            # Of a shared GPU the driver does not tell whose process it was.
            if len(held.holders) == 1 and held.claim.owner in owners and held.claim.share is None:
                self._held.setdefault(held.claim.owner, []).append(held)
        gpus = [one.gpu for some in self._held.values() for one in some]
        self._pending = PendingUse(validation, state_dir, gpus) if gpus else None
        self._known: Mapping[str, AccountedGpu] = {}

    def note(self, owner: str) -> JournalEntry | None:
        """Return what there is to tell of an owner that was released; None for nothing."""
        if self._pending is not None:
            self._known = {one.uuid: one for one in self._pending.accounted()}
            self._pending = None
        held = self._held.get(owner, [])
        if not held:
            return None
        told = self._told(held)
        return JournalEntry(USE, time.time(), owner, claim=held[0].claim, facts={"use": told})

    def _told(self, held: list[Reservation]) -> dict[str, Any]:
        readings = self._view.scan.by_uuid() if self._view.scan else {}
        facts = UseFacts()
        for one in sorted(held, key=lambda one: self._view.known_gpus.get(one.gpu, 0)):
            reading = readings.get(one.gpu)
            index = reading.display_index if reading else ""
            held_s = max(self._view.read_at - (one.granted_at or self._view.read_at), 0.0)
            use = self._use_of(one.gpu, held_s)
            if use is None:
                facts.add_by_scans(index, held_s, one.idle_s)
            else:
                facts.add_by_driver(index, use, reading, held_s, min(one.idle_s, held_s))
        return facts.fact()

    def _use_of(self, gpu: str, held_s: float) -> GpuUse | None:
        known = self._known.get(gpu)
        if known is None:
            return None
        running = [one.pid for one in known.processes if one.ran_s is None]
        # One that has ended may still be waited for by its parent.
        others = [pid for pid in running if is_alive(ProcessId(pid, 0))]
        return use_while_held(known, self._viewed_at - held_s, time.time(), others)
