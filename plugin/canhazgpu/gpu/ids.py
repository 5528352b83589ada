"""The ways a GPU is named, as parsed types: index, UUID, MIG UUID and device number.

A GPU's UUID is its identity. Its index is NVML's enumeration and may change after a reboot; its
device number is the N of ``/dev/nvidiaN`` (NVML's minor number), which is what schedulers count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from canhazgpu.errors import InputError

MAX_NUMBER = 4095
"""Largest index or device number accepted; a kernel minor number has 20 bits, nodes have a few."""


@dataclass(frozen=True, slots=True, order=True)
class GpuIndex:
    """A GPU's place in NVML's enumeration, from 0."""

    value: int

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True, order=True)
class DeviceNumber:
    """The N of ``/dev/nvidiaN``."""

    value: int

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True, order=True)
class GpuUuid:
    """A GPU's UUID, ``GPU-…``, or a MIG instance's, ``MIG-…``."""

    value: str

    def __str__(self) -> str:
        return self.value


Selector = GpuIndex | DeviceNumber | GpuUuid
"""Anything that names one GPU of a node."""

_UUID = re.compile(r"(GPU|MIG)-[0-9A-Za-z/-]{1,90}")
_NUMBERS = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")


def parse_uuid(text: str) -> GpuUuid:
    """Return the UUID, or raise `InputError` naming the text."""
    if not _UUID.fullmatch(text):
        raise InputError(
            f"{text!r} is not a GPU UUID; accepted: GPU-… or MIG-… as nvidia-smi -L prints"
        )
    return GpuUuid(text)


def parse_device_numbers(text: str, source: str) -> tuple[DeviceNumber, ...]:
    """Parse a scheduler's list of device numbers, ``0,1`` or ``0-3,7``, keeping its order.

    `source` names where the text comes from, for the error.
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = _NUMBERS.fullmatch(part.strip())
        if match is None:
            raise InputError(_not_numbers(text, source))
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if last < first or last > MAX_NUMBER:
            raise InputError(_not_numbers(text, source))
        numbers.extend(range(first, last + 1))
    if len(set(numbers)) != len(numbers):
        raise InputError(f"{source}={text!r} names a GPU twice")
    return tuple(DeviceNumber(number) for number in numbers)


def _not_numbers(text: str, source: str) -> str:
    shown = text if len(text) <= 80 else text[:77] + "..."
    return f"{source}={shown!r} is not a list of GPU numbers; accepted: 0,1 or 0-3"
