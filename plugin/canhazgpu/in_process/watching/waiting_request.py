"""A request that waits for its turn, as a handler hands it over to the watcher; as JSON; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from canhazgpu.allocation.refusal import Refusal, RefusalKind
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.ids import parse_gpu_ids
from canhazgpu.ledger.record_json import claim_from_dict, processes_to_list
from canhazgpu.ledger.user_limits import NO_LIMITS, UserLimits
from canhazgpu.ledger.values import Claim, Waiter, claim_to_dict
from canhazgpu.node.process_id import ProcessId
from canhazgpu.service.grants import GpuRequest


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a run's record needs beside the claim and the GPUs; see `RunRecord`."""

    marker: str
    gid: int
    groups: tuple[int, ...]
    timeout_s: float | None = None
    ends_when_lost: bool = False


@dataclass(frozen=True, slots=True)
class WaitingRequest:
    """Who waits for what.

    `client` is the process that waits, and `lease_s` how long it may be stopped. `selected_gpus`
    are the UUIDs of the GPUs that the request names. `refusal` is that of the first attempt.
    `ends_at_uptime_s` is when it gives up, in seconds since the node's boot, None for never; with
    `gives_up` it does so when no release of a reservation can help. `run` is None for a reservation
    by hand. `command` are JSON values that only who answers the client reads. `limits` are those
    of the claim's user, as the handler knew them.
    """

    claim: Claim
    gpus: GpuRequest
    client: ProcessId
    lease_s: float
    refusal: Refusal
    selected_gpus: tuple[str, ...] = ()
    ends_at_uptime_s: float | None = None
    gives_up: bool = False
    run: RunSettings | None = None
    command: Mapping[str, Any] = field(default_factory=dict)
    limits: UserLimits = NO_LIMITS

    @property
    def owner(self) -> str:
        """The owner of the later grant."""
        return self.claim.owner

    def waiter(self, boot_id: str | None, pid_namespace: int | None) -> Waiter:
        """Return the entry for the queue."""
        return Waiter(
            owner=self.claim.owner,
            user=self.claim.user,
            uid=self.claim.uid,
            count=self.gpus.count,
            gpus=self.selected_gpus,
            boot_id=boot_id,
            processes=(self.client,),
            pid_namespace=pid_namespace,
            lease_s=self.lease_s,
            profile=self.gpus.profile,
        )


def waiting_to_dict(waiting: WaitingRequest) -> dict[str, Any]:
    """Return the JSON values that `waiting_from_dict` reads."""
    claim = claim_to_dict(waiting.claim)
    claim["processes"] = processes_to_list(waiting.claim.processes)
    (client,) = processes_to_list((waiting.client,))
    run = waiting.run
    settings = {name: getattr(run, name) for name in RunSettings.__slots__} if run else None
    refusal = waiting.refusal
    return {
        "claim": claim,
        "gpus": _gpus_to_dict(waiting.gpus),
        "client": client,
        "lease_s": waiting.lease_s,
        "refusal": [refusal.reason, list(refusal.details), refusal.kind.value],
        "selected_gpus": list(waiting.selected_gpus),
        "ends_at_uptime_s": waiting.ends_at_uptime_s,
        "gives_up": waiting.gives_up,
        "run": settings,
        "command": dict(waiting.command),
        "limits": [waiting.limits.max_gpus, waiting.limits.max_waiters],
    }


def waiting_from_dict(data: Any) -> WaitingRequest:
    """Return the request; raises one of `RECORD_ERRORS`, or `InputError`, for anything else."""
    reason, details, kind = data["refusal"]
    run = data["run"]
    return WaitingRequest(
        claim_from_dict(data["claim"]),
        _gpus_from_dict(data["gpus"]),
        ProcessId(int(data["client"]["pid"]), int(data["client"]["started"])),
        float(data["lease_s"]),
        Refusal(str(reason), tuple(map(str, details)), RefusalKind(kind)),
        tuple(map(str, data["selected_gpus"])),
        _seconds(data["ends_at_uptime_s"]),
        bool(data["gives_up"]),
        None if run is None else _run_from_dict(run),
        dict(data["command"]),
        UserLimits(*map(int, data["limits"])),
    )


def _run_from_dict(data: Any) -> RunSettings:
    return RunSettings(
        str(data["marker"]),
        int(data["gid"]),
        tuple(map(int, data["groups"])),
        _seconds(data["timeout_s"]),
        bool(data["ends_when_lost"]),
    )


_PLAIN = ("count", "affinity", "force", "note", "memory_threshold_mb", "profile")


def _gpus_to_dict(gpus: GpuRequest) -> dict[str, Any]:
    plain = {name: getattr(gpus, name) for name in _PLAIN}
    wait_s = None if gpus.wait_s in (None, math.inf) else gpus.wait_s
    return {**plain, "selectors": ",".join(map(str, gpus.selectors)), "wait_s": wait_s}


def _gpus_from_dict(data: Any) -> GpuRequest:
    selectors = parse_gpu_ids(data["selectors"]) if data["selectors"] else ()
    plain = {name: data[name] for name in _PLAIN}
    return GpuRequest(selectors=selectors, wait_s=_seconds(data["wait_s"]), **plain)


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)
