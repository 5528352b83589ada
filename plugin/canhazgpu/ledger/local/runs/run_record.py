"""A run of a person as its node records it: who watches it can go on after any other."""

from __future__ import annotations

import json
from typing import Any

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.record_json import claim_from_dict, to_json
from canhazgpu.ledger.values import Claim, claim_to_dict
from canhazgpu.node.process_id import ProcessId


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run: its claim, whose first process is the command's, and the GPUs (UUIDs) of its grant.

    `marker` is in the environment of the run's processes (node/run_marker.py). `gid` and `groups`
    are those of the process that asked. `started_at_uptime_s` is in seconds since the node's boot,
    and the run's time `timeout_s` counts from then; None is no limit. With `ends_when_lost` the run
    ends when its reservation is lost.
    """

    claim: Claim
    marker: str
    gpus: tuple[str, ...]
    gid: int
    groups: tuple[int, ...]
    started_at_uptime_s: float
    timeout_s: float | None = None
    ends_when_lost: bool = False

    @property
    def owner(self) -> str:
        """The token of the claim."""
        return self.claim.owner

    @property
    def uid(self) -> int:
        """Whose run it is."""
        return -1 if self.claim.uid is None else self.claim.uid

    @property
    def command(self) -> ProcessId:
        """The process that executes the command."""
        return self.claim.processes[0]

    @property
    def ends_at_uptime_s(self) -> float | None:
        """When the run's time is over, in seconds since the node's boot; None without a limit."""
        return None if self.timeout_s is None else self.started_at_uptime_s + self.timeout_s


def run_record_to_json(record: RunRecord) -> str:
    """Return the JSON that `run_record_from_json` reads."""
    others = {name: getattr(record, name) for name in RunRecord.__slots__ if name != "claim"}
    claim = claim_to_dict(record.claim)
    claim["processes"] = [
        {"pid": one.pid, "started": one.started} for one in record.claim.processes
    ]
    return to_json({"claim": claim, **others})


def run_record_from_json(text: str | bytes) -> RunRecord:
    """Return the record; raises one of `RECORD_ERRORS` for anything else."""
    data = json.loads(text)
    claim = claim_from_dict(data["claim"])
    if not claim.processes or claim.uid is None:
        raise ValueError("a run has a user and a process")
    limit = data["timeout_s"]
    return RunRecord(
        claim,
        _text(data["marker"]),
        tuple(map(_text, data["gpus"])),
        _number(data["gid"]),
        tuple(map(_number, data["groups"])),
        _seconds(data["started_at_uptime_s"]),
        None if limit is None else _seconds(limit),
        data["ends_when_lost"] is True,
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("no number of a user or group")
    return value


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < float("inf"):
        raise TypeError("no time")
    return float(value)
