"""Read the GPUs through nvidia-smi, in two calls: the processes first, then the GPUs.

In that order because memory is what use is judged by: a process that comes in between is then seen
by what it holds. A third call is made only where nvidia-smi is older than a field that it is asked
for and the kernel module's version did not tell so beforehand.

It knows less than NVML: no processes that only draw, and nothing of MIG instances. Where that could
make a used GPU look free it says so as a fault.

Nothing here has a deadline: to be called in a `BoundedChild`, whose death ends nvidia-smi too.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from canhazgpu.errors import ScanError
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.probe import faults, smi_csv
from canhazgpu.probe.bounded import dying_with_parent
from canhazgpu.probe.readings import bare_process, checked, larger, printable

GPUS_OF_DRIVER = Path("/proc/driver/nvidia/gpus")
"""A directory for each GPU, named after its PCI address; in it ``information``."""
MODULE_VERSION = Path("/sys/module/nvidia/version")
ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
MAX_OUTPUT = 1 << 20
"""Bytes; hundreds of GPUs with dozens of processes each print less."""


class SmiError(ScanError):
    """nvidia-smi failed; `answer` is what it printed."""

    def __init__(self, text: str, answer: str) -> None:
        super().__init__(text)
        self.answer = answer


def read_gpus(program: str) -> tuple[GpuReading, ...]:
    """Return a reading of every GPU, by the program at this absolute path.

    Raises `ScanError` where nvidia-smi does not do its work.
    """
    apps = smi_csv.parse_apps(_ask(program, "compute-apps", smi_csv.APP_FIELDS))
    gpus = _ask_for_gpus(program)
    strangers = {app.uuid for app in apps} - {gpu.uuid for gpu in gpus}
    if any(not uuid.startswith("MIG-") for uuid in strangers):
        raise ScanError(faults.output_fault("nvidia-smi tells of a process on an unknown GPU"))
    numbers = _device_numbers()
    return checked(_reading(gpu, apps, numbers) for gpu in gpus)


def _ask_for_gpus(program: str) -> tuple[smi_csv.SmiGpu, ...]:
    fields = smi_csv.gpu_fields(_text_of(MODULE_VERSION))
    while True:
        try:
            return smi_csv.parse_gpus(_ask(program, "gpu", fields), fields)
        except SmiError as exc:
            fewer = smi_csv.fields_without_refused(fields, exc.answer)
            if fewer is None:
                raise
            fields = fewer


def _reading(
    gpu: smi_csv.SmiGpu,
    apps: Iterable[smi_csv.SmiApp],
    numbers: dict[str, int],
) -> GpuReading:
    own = [app for app in apps if app.uuid == gpu.uuid]
    amounts: dict[int, int | None] = {}
    for app in own:
        if app.fault is None:
            amounts[app.pid] = larger(amounts.get(app.pid, 0), app.memory_mb)
    reading = GpuReading(
        index=gpu.index,
        uuid=gpu.uuid,
        device_number=numbers.get(_address(gpu.bus_id)),
        name=printable(gpu.name),
        memory_used_mb=gpu.memory_used_mb,
        memory_total_mb=gpu.memory_total_mb,
        processes=tuple(bare_process(pid, memory) for pid, memory in sorted(amounts.items())),
        fault=gpu.fault or next((app.fault for app in own if app.fault), None),
        health=gpu.health,
    )
    if reading.fault is None and reading.memory_used_mb is None and not reading.processes:
        return replace(reading, fault=faults.UNIFIED_NEEDS_NVML)
    return reading


def _ask(program: str, what: str, fields: Iterable[str]) -> str:
    """Return what nvidia-smi printed. Its exit status alone tells: failures come on stdout."""
    command = [program, f"--query-{what}={','.join(fields)}", f"--format={smi_csv.FORMAT}"]
    try:
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=ENVIRONMENT,
            preexec_fn=dying_with_parent(),  # noqa: PLW1509 - the caller is a child of one thread
        ) as process:
            output = _bounded_output(process)
    except OSError as exc:
        raise ScanError(faults.program_fault(f"cannot run {program}: {exc.strerror}")) from exc
    answer = output.decode("utf-8", "replace")
    if process.returncode == 0 or answer.strip() == smi_csv.NO_DEVICES:
        return answer
    raise SmiError(_failure(answer, process.returncode), answer)


def _bounded_output(process: subprocess.Popen[bytes]) -> bytes:
    output = process.stdout.read(MAX_OUTPUT + 1) if process.stdout else b""
    if len(output) > MAX_OUTPUT:
        process.kill()
        raise ScanError(faults.output_fault("nvidia-smi printed more than a scan can hold"))
    return output


def _failure(answer: str, status: int) -> str:
    lines = [line for line in answer.splitlines() if line.strip()]
    said = printable(lines[0]) if lines else "nvidia-smi failed and said nothing"
    return faults.exit_fault(said, status)


def _device_numbers() -> dict[str, int]:
    """Return the N of each ``/dev/nvidiaN`` by PCI address, as far as the driver tells them."""
    try:
        directories = list(GPUS_OF_DRIVER.iterdir())
    except OSError:
        return {}
    found = {}
    for directory in directories:
        for line in _text_of(directory / "information").splitlines():
            key, _, value = line.partition(":")
            if key == "Device Minor" and value.strip().isdecimal():
                found[_address(directory.name)] = int(value)
    return found


def _address(text: str) -> str:
    """Return a PCI address in one form: its domain has 8 digits in nvidia-smi, 4 in /proc."""
    domain, _, rest = text.lower().partition(":")
    return f"{domain.lstrip('0')}:{rest}"


def _text_of(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
