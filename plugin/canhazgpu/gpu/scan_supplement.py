"""What is published beside a scan: values that former releases do not expect in it; pure.

They take a scan with an unknown field for malformed, and read only the fields of the node's record
that they know. A former release may also replace the scan and leave the supplement, so it says of
which scan it is.
"""

from __future__ import annotations

import json
from dataclasses import replace

from canhazgpu.gpu.scan import Scan

MAX_PERCENT = 100


def supplement_to_json(scan: Scan) -> str:
    """Return the utilization of the scan's GPUs by UUID, with the scan's time."""
    utilization = {
        gpu.uuid: gpu.utilization_percent
        for gpu in scan.gpus
        if gpu.uuid and gpu.utilization_percent is not None
    }
    data = {"started_at": scan.started_at, "utilization_percent": utilization}
    return json.dumps(data, separators=(",", ":"))


def with_supplement(scan: Scan, text: str | bytes | None) -> Scan:
    """Return the published scan with its supplement, without it where that is another scan's.

    Nothing is judged by these values: one that cannot be read is unknown.
    """
    if not text:
        return scan
    try:
        data = json.loads(text)
        if data["started_at"] != scan.started_at:
            return scan
        known = {uuid: one for uuid, one in data["utilization_percent"].items() if _is_percent(one)}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return scan
    gpus = tuple(
        replace(gpu, utilization_percent=known[gpu.uuid]) if gpu.uuid in known else gpu
        for gpu in scan.gpus
    )
    return replace(scan, gpus=gpus) if known else scan


def _is_percent(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_PERCENT
