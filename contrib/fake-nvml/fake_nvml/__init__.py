"""Simulated GPUs for tests: builds the fake NVML library and changes the state that it reads.

README.md says what each file of the state means. Amounts of memory are in MiB.
"""

from fake_nvml.devices import DEFAULT_NAME, FakeDevice, FakeGpu
from fake_nvml.library import build, install
from fake_nvml.processes import Process, start_gpu_process, start_time
from fake_nvml.state import FakeNode, FakeState

__all__ = [
    "DEFAULT_NAME",
    "FakeDevice",
    "FakeGpu",
    "FakeNode",
    "FakeState",
    "Process",
    "build",
    "install",
    "start_gpu_process",
    "start_time",
]
