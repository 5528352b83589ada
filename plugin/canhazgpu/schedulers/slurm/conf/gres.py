"""The GPUs of a node in ``gres.conf``, as slurmd reads it; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from canhazgpu.errors import InputError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.schedulers.slurm.conf.declared_gpus import (
    GPU,
    DeclaredGpus,
    names_node,
    parse_count,
)
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.conf.hostlist import expand_hostlist
from canhazgpu.schedulers.slurm.conf.parser import ConfLine

AUTODETECT_WORDS = ("nvml", "rsmi", "oneapi", "nrt", "nvidia")
"""Slurm looks for each of these in the value of AutoDetect, the first that is in it counts."""


@dataclass(frozen=True, slots=True)
class GresConf:
    """What ``gres.conf`` says of a node's GPUs: its devices, and how Slurm detects others.

    `autodetect` is one of `AUTODETECT_WORDS`, empty if Slurm detects no GPUs.
    """

    records: tuple[GresRecord, ...] = ()
    autodetect: str = ""


@dataclass(frozen=True, slots=True)
class GresRecord:
    """One line about GPUs; `devices` has the files of each, none where the line has no ``File=``.

    `kind` is None without a ``Type=``. `count` is how many GPUs of ``Gres=`` the line stands for.
    """

    kind: str | None
    devices: tuple[tuple[str, ...], ...]
    count: int
    origin: str


def parse_gres_conf(lines: Iterable[ConfLine], node: str) -> GresConf:
    """Return what the lines of ``gres.conf`` say of the node's GPUs.

    Slurm takes the lines that begin with ``Name=`` first, then those that begin with ``NodeName=``
    and name the node (measured). Raises `InputError` for a line that cannot be read and for lines
    with which slurmd does not start.
    """
    general: list[GresRecord] = []
    own: list[GresRecord] = []
    detected = detected_here = ""
    for line in lines:
        key, pairs = line.leading_key, line.pairs
        if key == "nodename":
            if not names_node(line, pairs[key], node):
                continue
            detected_here = pairs.get("autodetect", detected_here)
        elif key == "autodetect":
            detected = pairs[key]
        _check_readable(line)
        if pairs.get("name", "").lower() == GPU:
            (own if key == "nodename" else general).append(_record(line))
    records = (*general, *own)
    _check_alike(records)
    return GresConf(records, _autodetect_word(detected_here or detected))


def _check_readable(line: ConfLine) -> None:
    """Raise `InputError` for a line that slurmd cannot read."""
    key = line.leading_key
    if line.rest or key not in ("name", "nodename", "autodetect"):
        raise InputError(f"{line.origin}: cannot read {(line.rest or key)[:80]!r}")
    if key == "autodetect" and len(line.pairs) > 1:
        raise InputError(f"{line.origin}: AutoDetect= begins a line that says more")
    if key != "nodename" and "nodename" in line.pairs:
        raise InputError(f"{line.origin}: NodeName= is not the line's first word")


def _autodetect_word(value: str) -> str:
    return next((word for word in AUTODETECT_WORDS if word in value.lower()), "")


def _record(line: ConfLine) -> GresRecord:
    pairs = line.pairs
    several = pairs.get("multiplefiles")
    listed = pairs.get("file", pairs.get("files"))
    if several is not None and listed is not None:
        raise InputError(f"{line.origin}: File= and MultipleFiles= exclude each other")
    try:
        files = expand_hostlist(several or listed or "")
    except InputError as exc:
        raise InputError(f"{line.origin}: {exc}") from exc
    if several is not None and len(files) < 2:
        raise InputError(f"{line.origin}: MultipleFiles= needs several files, else write File=")
    devices = (files,) if several is not None else tuple((file,) for file in files)
    return GresRecord(pairs.get("type"), devices, _count(line, len(devices)), line.origin)


def _count(line: ConfLine, devices: int) -> int:
    text = line.pairs.get("count")
    count = None if text is None else parse_count(text)
    if text is not None and (count is None or (devices and count != devices)):
        raise InputError(
            f"{line.origin}: Count={text[:80]} for {devices} files: slurmd does not start with it"
        )
    return count or devices or 1


def _check_alike(records: Sequence[GresRecord]) -> None:
    """Raise `InputError` where slurmd does not start: some lines lack what others have."""
    for key, present in (
        ("File", [bool(one.devices) for one in records]),
        ("Type", [one.kind is not None for one in records]),
    ):
        if any(present) and not all(present):
            origin = records[present.index(False)].origin
            raise InputError(f"{origin}: no {key}=, which other lines for GPUs have")


def order_gpu_devices(
    records: Sequence[GresRecord], declared: Sequence[DeclaredGpus] | None
) -> tuple[GpuDevice, ...]:
    """Return the node's GPUs in the order of Slurm's numbers (measured on 22.05 to 26.05).

    `declared` are the GPUs of ``Gres=``, None for a node that ``slurm.conf`` does not know. Each of
    its types takes the lines of this type, compared in any case; GPUs without a type take all
    lines. Devices beyond its count are left out. Raises `InputError` where the types of an unknown
    node leave the order open.
    """
    if declared is None:
        records = [one for one in records if one.devices]
        kinds = {(one.kind or "").lower() for one in records}
        if len(kinds) > 1:
            raise InputError(
                f"{records[0].origin}: GPUs of the types {', '.join(sorted(kinds))}, whose order"
                " Gres= decides, and slurm.conf has no line for this node"
            )
        return tuple(GpuDevice(one.kind or "", files) for one in records for files in one.devices)
    left = list(records)
    devices: list[GpuDevice] = []
    for wanted in declared:
        missing = wanted.count
        for record in [one for one in left if _fits(one, wanted)]:
            if missing <= 0:
                break
            left.remove(record)
            kind = (record.kind or "") if wanted.kind else ""
            devices += (GpuDevice(kind, files) for files in record.devices[:missing])
            missing -= record.count
    _check_unique(devices)
    return tuple(devices)


def _check_unique(devices: Sequence[GpuDevice]) -> None:
    """Raise `InputError` for a file of two GPUs, unless these are instances of one GPU."""
    files = [one.files[0] for one in devices if len(one.files) == 1]
    if twice := sorted({one for one in files if files.count(one) > 1}):
        raise InputError(f"gres.conf names {twice[0]} for two GPUs: slurmd does not start with it")


def _fits(record: GresRecord, wanted: DeclaredGpus) -> bool:
    return not wanted.kind or (record.kind or "").lower() == wanted.kind.lower()
