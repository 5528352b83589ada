#!/usr/bin/python3
"""Time a scan of 8 simulated GPUs with 4 processes each, of two users, by NVML and by nvidia-smi.

The scan by NVML is made in a child, and by a scanner that keeps the driver (as the agent's does):
cold, where it has let go of the driver before each scan, and warm.

    PYTHON scan_time.py [ROUNDS]

PYTHON is an interpreter that has canhazgpu installed; root is needed for the second user. The rows
are taken in turn within each round, so that a slow moment of the machine hits all of them alike.
The simulated nvidia-smi is a Python program: its own start is most of its time. System calls are
counted where strace is installed: those of one scan, less those of the same program without it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fake-nvml"))

from canhazgpu.agent.scanner.client import release_driver, scanner_probe
from canhazgpu.agent.scanner.server import serve
from canhazgpu.config.schema import ValidationConfig
from canhazgpu.ledger.port import Observation
from canhazgpu.probe.node_probe import NodeProbe
from canhazgpu.probe.source_scan import PendingSourceScan
from fake_nvml import FakeNode, FakeState, install, start_gpu_process

GPUS = 8
PROCESSES = 4
USERS = ("nobody", "daemon")
DEFAULT_ROUNDS = 50


def main(rounds: int) -> None:
    """Print the median of each row in milliseconds and its ratio to the scan by NVML."""
    with tempfile.TemporaryDirectory(prefix="scan-time-") as directory:
        place = Path(directory)
        place.chmod(0o755)
        install(place)
        state = FakeState(place / "state")
        state.set_default_node("n1")
        node = state.add_node("n1", GPUS)
        with processes_on_every_gpu(node), scanner(place) as socket_path:
            times = measure(timed_rows(place, socket_path), rounds)
            calls = {source: system_calls(place, source) for source in ("nvml", "nvidia-smi")}
    scan = statistics.median(times["scan by NVML"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:44} {median:8.2f} ms  {median / scan:6.2f} x the scan by NVML")
    for source, counted in calls.items():
        told = "no strace" if counted is None else "{}, the simulated driver's {}".format(*counted)
        print(f"system calls of a scan by {source}: {told}")


@contextlib.contextmanager
def processes_on_every_gpu(node: FakeNode) -> Iterator[None]:
    """Start the processes, real ones of real users, on every GPU."""
    with contextlib.ExitStack() as stack:
        for gpu in node.gpus:
            for place in range(PROCESSES):
                user = USERS[place % len(USERS)]
                stack.enter_context(start_gpu_process(gpu, 1000, user=user, name="train.py"))
        yield


@contextlib.contextmanager
def scanner(place: Path) -> Iterator[Path]:
    """A scanner with its socket in this directory."""
    path = place / "scanner.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        parent, pid = os.getpid(), os.fork()
        if pid == 0:
            serve(listening, idle_s=3600, parent=parent)
            os._exit(0)
    yield path
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def timed_rows(place: Path, socket_path: Path) -> dict[str, Callable[[], float]]:
    """Return what is measured; each row returns the seconds that count."""
    return {
        "scan by NVML": lambda: scan_s(place, "nvml"),
        "  by a scanner, cold": lambda: cold_scan_s(place, socket_path),
        "  by a scanner, warm": lambda: scanner_scan_s(place, socket_path)[0],
        "    of it in the reader": lambda: scanner_scan_s(place, socket_path)[1],
        "scan by nvidia-smi": lambda: scan_s(place, "nvidia-smi"),
        "reading alone, NVML loaded": lambda: time_reading(place)[0],
        "  of it inside pynvml": lambda: time_reading(place)[1],
        "  of it ours: processes, owners, values": lambda: time_reading(place)[2],
        "reading without health": lambda: time_reading(place, health=False)[0],
        "import pynvml": import_s,
    }


def measure(taken: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each row, one value for each round."""
    times: dict[str, list[float]] = {name: [] for name in taken}
    for turn in range(rounds + 1):
        for name, row in taken.items():
            value = row() * 1000
            if turn > 0:  # the first round fills the caches
                times[name].append(value)
    return times


def scan_s(place: Path, source: str) -> float:
    """Return the seconds of the whole layer: child, imports, reading, owners, judgement."""
    began = time.perf_counter()
    scan(place, source)
    return time.perf_counter() - began


def scan(place: Path, source: str) -> None:
    check(NodeProbe("n1", settings(place, source)).start().observe())


def cold_scan_s(place: Path, socket_path: Path) -> float:
    """Return the seconds of a scan by a scanner whose readers have ended."""
    assert release_driver(socket_path, 30) == ()
    return scanner_scan_s(place, socket_path)[0]


def scanner_scan_s(place: Path, socket_path: Path) -> tuple[float, float]:
    """Return the seconds of a scan by the scanner: whole, and by the reader's clock."""
    began = time.perf_counter()
    conf = place / "slurm.conf"
    validation = settings(place, "nvml")
    probe = scanner_probe("n1", validation, conf, place, lambda: False, socket_path, no_scanner)
    seen = probe.start().observe()
    took_s = time.perf_counter() - began
    check(seen)
    return took_s, seen.scan.took_s


def no_scanner(*_: object) -> PendingSourceScan:
    raise AssertionError("the scanner did not scan")


def settings(place: Path, source: str) -> ValidationConfig:
    return ValidationConfig(
        probe=source,
        nvml_library=str(place / "libnvidia-ml.so.1"),
        nvidia_smi=str(place / "nvidia-smi"),
    )


def check(seen: Observation) -> None:
    assert seen.scan.fault is None, seen.scan.fault
    assert [len(gpu.processes) for gpu in seen.scan.gpus] == [PROCESSES] * GPUS
    assert {one.user for gpu in seen.scan.gpus for one in gpu.processes} == set(USERS)


READING = """
import sys, time
import pynvml
from canhazgpu.probe.nvml import reader as nvml
inside, depth = 0.0, 0

def timed(function):
    def call(*arguments, **options):
        global inside, depth
        depth += 1
        began = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            depth -= 1
            if not depth:
                inside += time.perf_counter() - began
    return call

for name in dir(pynvml):
    if name.startswith("nvml") and type(getattr(pynvml, name)) is type(timed):
        setattr(pynvml, name, timed(getattr(pynvml, name)))
if sys.argv[2] == "False":
    nvml.read_health = lambda handle: None
nvml.read_gpus(sys.argv[1])
inside, began = 0.0, time.perf_counter()
nvml.read_gpus(sys.argv[1])
whole = time.perf_counter() - began
print(whole, inside, whole - inside)
"""


def time_reading(place: Path, *, health: bool = True) -> tuple[float, float, float]:
    """Return the seconds of a second reading in one process: whole, in pynvml, and the rest."""
    library = str(place / "libnvidia-ml.so.1")
    told = run_python("-c", READING, library, str(health)).split()
    return float(told[0]), float(told[1]), float(told[2])


def import_s() -> float:
    """Return the seconds of the import alone, in a fresh interpreter."""
    code = "import time; began = time.perf_counter(); import pynvml"
    return float(run_python("-c", f"{code}; print(time.perf_counter() - began)"))


def run_python(*arguments: Any) -> str:
    return subprocess.run(
        [sys.executable, *arguments], check=True, timeout=60, capture_output=True, text=True
    ).stdout


def system_calls(place: Path, source: str) -> tuple[int, int] | None:
    """Return how many system calls a scan makes, in all its processes, and how many of them are
    the simulated driver's: those on its state, and its looks at which pids live.

    None without strace.
    """
    if shutil.which("strace") is None:
        return None
    idle, lines = len(strace_lines(place, "nothing")), strace_lines(place, source)
    simulated = [line for line in lines if re.search(rf"{place}/state|/proc/\d+/stat\b", line)]
    return len(lines) - idle, len(simulated)


def strace_lines(place: Path, source: str) -> list[str]:
    """Return a line for each system call of a program that scans once, or not at all."""
    log = place / "calls"
    strace: list[str | Path] = ["strace", "-f", "-y", "-o", log]
    program = [sys.executable, __file__, "--once", source, str(place)]
    subprocess.run([*strace, *program], check=True, timeout=120)
    text = log.read_text("utf-8", "replace")
    return [line for line in text.splitlines() if "(" in line and "resumed" not in line]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--once"]:
        if sys.argv[2] != "nothing":
            scan(Path(sys.argv[3]), sys.argv[2])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_ROUNDS)
