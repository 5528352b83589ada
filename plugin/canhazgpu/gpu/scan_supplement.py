"""What is published beside a scan: values that former releases do not expect in it; pure.

They take a scan with an unknown field for malformed, and read only the fields of the node's record
that they know. A former release may also replace the scan and leave the supplement, so it says of
which scan it is.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace

from canhazgpu.gpu.process_job import is_unidentified
from canhazgpu.gpu.scan import GpuHealth, GpuReading, Scan

MAX_PERCENT = 100
BRIEF_FORM = 1
MAX_BRIEF_BYTES = 8192
"""A scan whose brief form is longer has none: whoever asks for it reads the scan."""
MAX_PLAIN_GPUS = 64
MAX_NAMES = 400
"""Characters of a plain scan's names of products and models."""


def supplement_to_json(scan: Scan) -> str:
    """Return the utilization of the scan's GPUs by UUID, with the scan's time."""
    utilization = {
        gpu.uuid: gpu.utilization_percent
        for gpu in scan.gpus
        if gpu.uuid and gpu.utilization_percent is not None
    }
    data = {"started_at": scan.started_at, "utilization_percent": utilization}
    return json.dumps(data, separators=(",", ":"))


def brief_to_json(scan: Scan) -> str:
    """Return the brief form, which `canhazgpu.gpu.scan_brief` reads; "" where it would be long."""
    names = list(dict.fromkeys(gpu.name for gpu in scan.gpus))
    data = {
        "form": BRIEF_FORM,
        "fault": scan.fault,
        "source": scan.source,
        "names": names,
        "gpus": [_brief_row(gpu, names) for gpu in scan.gpus],
        **_details(scan),
    }
    text = json.dumps(data, separators=(",", ":"))
    return text if len(text) <= MAX_BRIEF_BYTES else ""


def _details(scan: Scan) -> dict[str, object]:
    """Return what only the JSON of a node shows: its values of health, and each GPU's place there.

    The release before does not read it.
    """
    healths = list(dict.fromkeys(gpu.health for gpu in scan.gpus))
    return {
        "healths": [one and _health_values(one) for one in healths],
        "health_of": [healths.index(gpu.health) for gpu in scan.gpus],
        "utilization": [gpu.utilization_percent for gpu in scan.gpus],
    }


def _health_values(health: GpuHealth) -> list[object]:
    return [getattr(health, one.name) for one in fields(GpuHealth)]


def plain_to_json(scan: Scan) -> str:
    """Return of a plain scan what ``counts.lua`` needs; "" for a scan that is not plain.

    In a plain scan each GPU can be read, has an index of its own, and is no instance.
    """
    gpus = scan.gpus
    indices = [gpu.index for gpu in gpus]
    is_plain = (
        scan.fault is None
        and 0 < len(gpus) <= MAX_PLAIN_GPUS
        and indices == sorted(set(indices))
        and len({gpu.uuid for gpu in gpus}) == len(gpus)
        and all(map(_is_plain, gpus))
    )
    if not is_plain:
        return ""
    rows = [
        (gpu.uuid, str(gpu.memory_used_mb), _jobs_and_uids(gpu), str(gpu.index)) for gpu in gpus
    ]
    data = {"source": scan.source, "gpus": rows, **_names(scan)}
    return json.dumps(data, separators=(",", ":"))


def _names(scan: Scan) -> dict[str, str]:
    """Return the names of the GPUs' products and of the models on them; nothing for long ones.

    They are a part of a JSON object, which the script pastes.
    """
    products = list(dict.fromkeys(gpu.name for gpu in scan.gpus))
    models = list(
        dict.fromkeys(one.model for gpu in scan.gpus for one in gpu.processes if one.model)
    )
    is_short = sum(map(len, (*products, *models))) <= MAX_NAMES
    text = json.dumps({"products": products, "models": models}, separators=(",", ":"))
    return {"names": text[1:-1]} if is_short else {}


def _is_plain(gpu: GpuReading) -> bool:
    used, total = gpu.memory_used_mb, gpu.memory_total_mb
    is_whole = gpu.fault is None and gpu.mig_index is None and gpu.parent_uuid is None
    return (
        is_whole
        and bool(gpu.uuid)
        and used is not None
        and total is not None
        and 0 <= used <= total
    )


def _jobs_and_uids(gpu: GpuReading) -> list[tuple[str | bool | None, str | None]]:
    pairs = (
        (
            False if is_unidentified(one.job) else one.job,
            None if one.uid is None else str(one.uid),
        )
        for one in gpu.processes
    )
    return list(dict.fromkeys(pairs))


def _brief_row(gpu: GpuReading, names: list[str]) -> list[object]:
    processes = [
        (
            *(one.pid, one.uid, one.user, one.name, one.memory_mb),
            *(one.model, one.job, one.ancestors, int(one.is_mps_server)),
        )
        for one in gpu.processes
    ]
    row: list[object] = [gpu.uuid, gpu.index, names.index(gpu.name)]
    row += [gpu.memory_used_mb, gpu.memory_total_mb, processes]
    rare = (gpu.fault, gpu.mig_index, gpu.parent_uuid)
    return row if rare == (None, None, None) else [*row, *rare]


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
