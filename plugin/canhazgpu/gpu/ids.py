"""The names of GPUs that people and schedulers use, as parsed types; which GPU they select.

The UUID is a GPU's identity. The index is its number in NVML's enumeration and may change after a
reboot. A scheduler has numbers of its own; only its adapter knows which GPU each of them is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from canhazgpu.errors import InputError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import GpuReading

GPUS_VARIABLE = "CANHAZGPU_GPUS"
"""Environment variable with the UUIDs of a job's or a run's GPUs, whatever CUDA is told."""

MAX_GPU_NUMBER = 4095
"""Largest number accepted: nodes have a few GPUs, and a range must stay small."""

MAX_GPU_LIST_CHARS = 64 * 1024
"""Characters of the longest list accepted."""


@dataclass(frozen=True, slots=True, order=True)
class GpuIndex:
    """A GPU by its index in NVML's enumeration, from 0."""

    value: int

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True, order=True)
class MigIndex:
    """A MIG instance by the index of its GPU and its index on that GPU, ``0:1``."""

    index: int
    mig_index: int

    def __str__(self) -> str:
        return f"{self.index}:{self.mig_index}"


@dataclass(frozen=True, slots=True, order=True)
class GpuUuid:
    """A GPU's UUID, ``GPU-…``, or a MIG instance's, ``MIG-…``."""

    value: str

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, order=True)
class UuidPrefix:
    """A UUID, ``GPU-…`` or ``MIG-…``, or its beginning."""

    value: str

    def __str__(self) -> str:
        return self.value


GpuSelector = GpuIndex | MigIndex | UuidPrefix
"""What people can name a GPU of a node by."""


@dataclass(frozen=True, slots=True, order=True)
class SchedulerGpuNumber:
    """A GPU by its scheduler's own number."""

    value: int

    def __str__(self) -> str:
        return str(self.value)


_INDEX_OR_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")
_MIG_INDEX = re.compile(r"([0-9]{1,4}):([0-9]{1,4})")
_UUID = re.compile(r"(?:GPU|MIG)-[0-9A-Za-z/-]{1,90}")

ACCEPTED_FORMS = (
    "indices as 0,3 or 0-3, MIG instances as 0:1, UUIDs or their beginnings as GPU-68ab"
)


def parse_uuid(text: str) -> GpuUuid:
    """Return the UUID, or raise `InputError` naming the text."""
    if not _UUID.fullmatch(text):
        raise InputError(
            f"{_quoted(text)} is not a GPU UUID; accepted: GPU-… or MIG-… as nvidia-smi -L prints"
        )
    return GpuUuid(text)


def parse_gpu_ids(text: str) -> tuple[GpuSelector, ...]:
    """Parse a list of GPUs, ``1,3``, ``0-3``, ``0:1``, ``GPU-68ab…``, keeping its order.

    Raises `InputError` that says what is accepted. The beginning of a UUID needs its ``GPU-``:
    without it ``1234`` could be an index too.
    """
    if len(text) > MAX_GPU_LIST_CHARS:
        raise InputError(f"the list of GPUs is longer than {MAX_GPU_LIST_CHARS} characters")
    found = [one for part in text.split(",") for one in _parse_selectors(part.strip(), text)]
    refuse_duplicates(found)
    return tuple(found)


def _parse_selectors(part: str, text: str) -> Iterator[GpuSelector]:
    if _UUID.fullmatch(part):
        yield UuidPrefix(part)
    elif match := _MIG_INDEX.fullmatch(part):
        yield MigIndex(int(match[1]), int(match[2]))
    elif numbers := _range(part):
        yield from map(GpuIndex, numbers)
    else:
        where = "" if part == text.strip() else f"{_quoted(part)} in "
        raise InputError(f"{where}{_quoted(text)} names no GPU; accepted: {ACCEPTED_FORMS}")


def parse_scheduler_numbers(text: str, source: str) -> tuple[SchedulerGpuNumber, ...]:
    """Parse a scheduler's list of its own numbers, ``0,1`` or ``0-3,7``, keeping its order.

    `source` is the name of the variable with the text, for the error.
    """
    numbers: list[int] = []
    for part in text.split(","):
        some = _range(part.strip())
        if not some:
            raise InputError(
                f"{source}={_quoted(text)} is not a list of GPU numbers; accepted: 0,1 or 0-3"
            )
        numbers.extend(some)
    if len(set(numbers)) != len(numbers):
        raise InputError(f"{source}={_quoted(text)} names a GPU twice")
    return tuple(map(SchedulerGpuNumber, numbers))


def _range(part: str) -> range:
    """Return the numbers of ``3`` or ``0-3``; none for anything else."""
    match = _INDEX_OR_RANGE.fullmatch(part)
    if match is None:
        return range(0)
    first = int(match[1])
    last = int(match[2] or match[1])
    return range(first, last + 1) if last <= MAX_GPU_NUMBER else range(0)


def refuse_duplicates(selectors: Iterable[GpuSelector]) -> None:
    """Raise `InputError` where two selectors are equal."""
    seen: set[GpuSelector] = set()
    for one in selectors:
        if one in seen:
            raise InputError(f"GPU {one} is named twice; name each GPU once")
        seen.add(one)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def resolve_gpus(
    selectors: Sequence[GpuSelector], readings: Sequence[GpuReading], node: str
) -> tuple[str, ...]:
    """Return the UUIDs of the selected GPUs, in the order of the selectors.

    `readings` are all GPUs of the node. Raises `InputError` for a selector that fits no GPU or
    several, and for two selectors of one GPU.
    """
    found: dict[str, GpuSelector] = {}
    for selector in selectors:
        uuid = _resolve_one(selector, readings, node)
        if uuid in found:
            raise InputError(f"{found[uuid]} and {selector} are the same GPU; name each GPU once")
        found[uuid] = selector
    return tuple(found)


def _resolve_one(selector: GpuSelector, readings: Sequence[GpuReading], node: str) -> str:
    fitting = [gpu for gpu in readings if _matches(selector, gpu)]
    exact = [gpu for gpu in fitting if gpu.uuid == str(selector)]
    fitting = exact[:1] or fitting
    if not fitting:
        raise InputError(f"there is no GPU {selector} on {node}; {_present_gpus_text(readings)}")
    if len(fitting) > 1:
        names = ", ".join(_display_name(gpu, selector) for gpu in fitting)
        raise InputError(f"{selector} fits {len(fitting)} GPUs of {node}, name one: {names}")
    if not fitting[0].uuid:
        raise InputError(f"GPU {selector} of {node} cannot be read: {fitting[0].fault}")
    return fitting[0].uuid


def _matches(selector: GpuSelector, gpu: GpuReading) -> bool:
    if isinstance(selector, GpuIndex):
        return gpu.index == selector.value
    if isinstance(selector, MigIndex):
        return (gpu.index, gpu.mig_index) == (selector.index, selector.mig_index)
    return gpu.uuid.lower().startswith(selector.value.lower())


def _display_name(gpu: GpuReading, selector: GpuSelector) -> str:
    return (
        gpu.uuid if isinstance(selector, UuidPrefix) or not gpu.display_index else gpu.display_index
    )


def _present_gpus_text(readings: Sequence[GpuReading]) -> str:
    """Say which GPUs there are: ``it has 0-7``, ``it has 0, 2-3, 4:0, 4:1``."""
    whole = sorted({gpu.index for gpu in readings if gpu.mig_index is None and gpu.index >= 0})
    places = sorted({(gpu.index, gpu.mig_index) for gpu in readings if gpu.mig_index is not None})
    parts = [*_range_texts(whole), *(f"{index}:{mig_index}" for index, mig_index in places)]
    return f"it has {', '.join(parts)}" if parts else "it has none that can be read"


def _range_texts(numbers: Sequence[int]) -> Iterator[str]:
    """Return ascending numbers as ``0-3`` and ``7``."""
    first = 0
    for position, number in enumerate(numbers):
        if position + 1 == len(numbers) or numbers[position + 1] != number + 1:
            yield str(number) if position == first else f"{numbers[first]}-{number}"
            first = position + 1
