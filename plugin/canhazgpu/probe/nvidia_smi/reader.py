"""Read the GPUs through nvidia-smi, in two calls: the processes first, then the GPUs.

The memory is read last because use is judged by it: it then includes a process that starts between
the calls. A third call follows only where nvidia-smi does not know a field, and the version of the
kernel module did not show that before.

nvidia-smi reports less than NVML: no processes that only draw, and no MIG instances. Where a used
GPU could therefore look free, the reading has a fault.

Nothing here has a deadline: call it in a `BoundedChild`, which ends nvidia-smi with itself.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from canhazgpu.errors import ScanError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.probe import fault_messages
from canhazgpu.probe.bounded_child import die_with_parent
from canhazgpu.probe.cuda_index import parse_pci_address, with_cuda_indices
from canhazgpu.probe.nvidia_smi import csv_output, inforom
from canhazgpu.probe.plausibility import (
    larger_or_none,
    printable_line,
    process_with_memory,
    with_plausibility_faults,
)

T = TypeVar("T")

DRIVER_GPU_DIRECTORY = Path("/proc/driver/nvidia/gpus")
"""A directory for each GPU, named after its PCI address; in it ``information``."""
MODULE_VERSION_FILE = Path("/sys/module/nvidia/version")
ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
MAX_OUTPUT_BYTES = 1 << 20
"""Bytes; hundreds of GPUs with dozens of processes each print less."""


class SmiError(ScanError):
    """nvidia-smi failed; `output` is its whole output."""

    def __init__(self, answer: str, status: int) -> None:
        super().__init__(_failure_text(answer, status))
        self.output = answer


@dataclass(frozen=True, slots=True)
class SmiAnswer:
    """What nvidia-smi printed, and its exit status: 0, or that of a corrupted infoROM."""

    output: str
    status: int

    @property
    def rows(self) -> str:
        """The output without warnings."""
        return inforom.without_warnings(self.output)

    def parsed(self, parse: Callable[[str], T]) -> T:
        """Return the parsed rows; with another exit status than 0 what is no row is a failure."""
        try:
            return parse(self.rows)
        except ScanError as exc:
            if self.status == 0:
                raise
            raise SmiError(self.output, self.status) from exc


def read_gpus(program: str) -> tuple[GpuReading, ...]:
    """Return a reading of every GPU, by the program at this absolute path.

    Raises `ScanError` where nvidia-smi fails.
    """
    app_answer = _query(program, "compute-apps", csv_output.APP_FIELDS)
    apps = app_answer.parsed(csv_output.parse_apps)
    gpu_answer, gpus = _query_gpus(program)
    corrupted = _corrupted_gpus((app_answer, gpu_answer), gpus)
    unknown_gpus = {app.uuid for app in apps} - {gpu.uuid for gpu in gpus}
    if any(not uuid.startswith("MIG-") for uuid in unknown_gpus):
        raise ScanError(
            fault_messages.output_fault("nvidia-smi tells of a process on an unknown GPU")
        )
    numbers = _device_numbers()
    addresses = {gpu.index: parse_pci_address(gpu.bus_id) for gpu in gpus}
    readings = with_cuda_indices((_reading(gpu, apps, numbers) for gpu in gpus), addresses)
    return with_plausibility_faults(
        replace(reading, fault=reading.fault or fault_messages.CORRUPTED_INFOROM)
        if reading.uuid in corrupted
        else reading
        for reading in readings
    )


def _corrupted_gpus(
    answers: Iterable[SmiAnswer], gpus: Iterable[csv_output.SmiGpu]
) -> frozenset[str]:
    """Return the UUIDs of the GPUs whose infoROM is corrupted.

    Raises `SmiError` where nvidia-smi says that there is one, and not which of these.
    """
    by_address = {_normal_pci_address(gpu.bus_id): gpu.uuid for gpu in gpus}
    named = {
        _normal_pci_address(address)
        for answer in answers
        for address in inforom.corrupted_gpus(answer.output)
    }
    for answer in answers:
        if not named <= by_address.keys() or (answer.status != 0 and not named):
            raise SmiError(answer.output, inforom.EXIT_STATUS)
    return frozenset(by_address[address] for address in named)


def _query_gpus(program: str) -> tuple[SmiAnswer, tuple[csv_output.SmiGpu, ...]]:
    fields = csv_output.gpu_fields(_read_text(MODULE_VERSION_FILE))
    while True:
        try:
            answer = _query(program, "gpu", fields)
            return answer, answer.parsed(partial(csv_output.parse_gpus, fields=fields))
        except SmiError as exc:
            fewer = csv_output.fields_without_unknown(fields, exc.output)
            if fewer is None:
                raise
            fields = fewer


def _reading(
    gpu: csv_output.SmiGpu,
    apps: Iterable[csv_output.SmiApp],
    numbers: dict[str, int],
) -> GpuReading:
    own = [app for app in apps if app.uuid == gpu.uuid]
    amounts: dict[int, int | None] = {}
    for app in own:
        if app.fault is None:
            amounts[app.pid] = larger_or_none(amounts.get(app.pid, 0), app.memory_mb)
    reading = GpuReading(
        index=gpu.index,
        uuid=gpu.uuid,
        device_number=numbers.get(_normal_pci_address(gpu.bus_id)),
        name=printable_line(gpu.name),
        memory_used_mb=gpu.memory_used_mb,
        memory_total_mb=gpu.memory_total_mb,
        processes=tuple(
            process_with_memory(pid, memory) for pid, memory in sorted(amounts.items())
        ),
        fault=gpu.fault or next((app.fault for app in own if app.fault), None),
        health=gpu.health,
        utilization_percent=gpu.utilization_percent,
    )
    if reading.fault is None and reading.memory_used_mb is None and None not in amounts.values():
        # Below the threshold the GPU would look free, and processes that draw are not listed.
        return replace(reading, fault=fault_messages.UNIFIED_NEEDS_NVML)
    return reading


def _query(program: str, what: str, fields: Iterable[str]) -> SmiAnswer:
    """Return the answer. Only the exit status shows a failure: its message is on stdout."""
    command = [program, f"--query-{what}={','.join(fields)}", f"--format={csv_output.FORMAT}"]
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=ENVIRONMENT,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - the caller is a child of one thread
        ) as process:
            output = _bounded_output(process)
    except OSError as exc:
        raise ScanError(
            fault_messages.program_fault(f"cannot run {program}: {exc.strerror}")
        ) from exc
    answer = output.decode("utf-8", "replace")
    if answer.strip() == csv_output.NO_DEVICES:
        return SmiAnswer(answer, 0)
    if process.returncode in (0, inforom.EXIT_STATUS):
        return SmiAnswer(answer, process.returncode)
    raise SmiError(answer, process.returncode)


def _bounded_output(process: subprocess.Popen[bytes]) -> bytes:
    output = process.stdout.read(MAX_OUTPUT_BYTES + 1) if process.stdout else b""
    if len(output) > MAX_OUTPUT_BYTES:
        process.kill()
        raise ScanError(fault_messages.output_fault("nvidia-smi printed more than a scan can hold"))
    return output


def _failure_text(answer: str, status: int) -> str:
    lines = [line for line in answer.splitlines() if line.strip()]
    said = printable_line(lines[0]) if lines else "nvidia-smi failed and said nothing"
    return fault_messages.exit_fault(said, status)


def _device_numbers() -> dict[str, int]:
    """Return the N of each ``/dev/nvidiaN`` by PCI address, as far as the driver shows them."""
    try:
        directories = list(DRIVER_GPU_DIRECTORY.iterdir())
    except OSError:
        return {}
    found = {}
    for directory in directories:
        for line in _read_text(directory / "information").splitlines():
            key, _, value = line.partition(":")
            if key == "Device Minor" and value.strip().isdecimal():
                found[_normal_pci_address(directory.name)] = int(value)
    return found


def _normal_pci_address(text: str) -> str:
    """Return a PCI address in one form; the domain has 8 digits in nvidia-smi, 4 in /proc."""
    domain, _, rest = text.lower().partition(":")
    return f"{domain.lstrip('0')}:{rest}"


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
