"""What the scanner is asked and what it answers, as JSON objects that end with NUL; pure.

Both ends are of one release: they are forked from one listener. A scanner of another interface, as
during an upgrade, is one that cannot be used.
"""

from __future__ import annotations

import math
from typing import Any

from canhazgpu.agent.wire.framing import END, WireError, decode, encode
from canhazgpu.errors import ScanError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import Scan
from canhazgpu.gpu.scan_json import scan_from_value

INTERFACE = 1
MAX_REQUEST_BYTES = 1 << 16
MAX_ANSWER_BYTES = 1 << 24
"""Hundreds of GPUs with hundreds of processes each take less."""

TAKEN = b'{"continues":true}' + END
"""The first answer to a request for a scan: the scanner lives, and the scan will begin."""


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """All that a reading depends on. Requests with the same settings may share one.

    `source`, `path` and `details_wait_s` are those of `GpuSource`. `slurm_conf` and `state_dir`
    tell which job a process is in, see `hook_attribution`.
    """

    node: str
    source: str
    path: str
    details_wait_s: float
    slurm_conf: str
    state_dir: str


@dataclass(frozen=True, slots=True)
class ScanRequest:
    """A scan that begins after this request; `deadline` is in seconds of the monotonic clock."""

    settings: ReadSettings
    deadline: float


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """The scanner lets go of the driver at once, and answers by the deadline (monotonic)."""

    deadline: float


@dataclass(frozen=True, slots=True)
class Taken:
    """The request was received."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The source gave no scan; `reason` says how its process ended, or that it did not."""

    reason: str


@dataclass(frozen=True, slots=True)
class Released:
    """The pids of the scanner's processes that still hold the driver: none is success."""

    holding: tuple[int, ...]


Request = ScanRequest | ReleaseRequest
Answer = Taken | Scan | Failed | Released


def encode_request(request: Request) -> bytes:
    """Return the bytes of a request."""
    parameters: dict[str, Any] = {"interface": INTERFACE, "deadline": request.deadline}
    if isinstance(request, ReleaseRequest):
        return encode({"method": "ReleaseDriver", "parameters": parameters})
    settings = request.settings
    parameters |= {name: getattr(settings, name) for name in _SETTINGS}
    return encode({"method": "Scan", "parameters": parameters})


def decode_request(message: bytes) -> Request:
    """Return the request of these bytes, without their end; raises `WireError`."""
    data = decode(message)
    method, parameters = data.get("method"), data.get("parameters")
    if not isinstance(parameters, dict) or parameters.pop("interface", None) != INTERFACE:
        raise WireError("another interface")
    deadline = parameters.pop("deadline", None)
    if not _is_number(deadline):
        raise WireError("no deadline")
    if method == "ReleaseDriver" and not parameters:
        return ReleaseRequest(float(deadline))
    if method != "Scan" or parameters.keys() != _SETTINGS.keys():
        raise WireError("no such method")
    if not all(_SETTINGS[name](value) for name, value in parameters.items()):
        raise WireError("a setting of another type")
    return ScanRequest(ReadSettings(**parameters), float(deadline))


def encode_scan(scan: bytes) -> bytes:
    """Return the answer with a scan, which is JSON already."""
    return b'{"parameters":{"scan":' + scan + b"}}" + END


def encode_failure(reason: str) -> bytes:
    """Return the answer to a request that gets no scan."""
    return encode({"error": "Failed", "parameters": {"reason": reason}})


def encode_released(holding: tuple[int, ...]) -> bytes:
    """Return the answer to a `ReleaseRequest`."""
    return encode({"parameters": {"holding": holding}})


def decode_answer(message: bytes) -> Answer:
    """Return the answer of these bytes, without their end; raises `WireError`."""
    data = decode(message)
    if data.get("continues") is True:
        return Taken()
    parameters = data.get("parameters")
    if not isinstance(parameters, dict):
        raise WireError("no parameters")
    if "error" in data:
        return Failed(str(parameters.get("reason")))
    if "holding" in parameters:
        return Released(_pids(parameters["holding"]))
    try:
        return scan_from_value(parameters.get("scan"))
    except ScanError as exc:
        raise WireError(str(exc)) from exc


def _pids(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(pid) is int for pid in value):
        raise WireError("no pids")
    return tuple(value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_SETTINGS = {
    "node": _is_text,
    "source": lambda value: value in ("nvml", "nvidia-smi"),
    "path": _is_text,
    "details_wait_s": _is_number,
    "slurm_conf": _is_text,
    "state_dir": _is_text,
}
