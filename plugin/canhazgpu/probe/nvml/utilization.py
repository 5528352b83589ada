"""Read the utilization of GPUs through NVML; whatever fails or hangs, a scan does without it.

No GPU is judged by its utilization. So it is read in a thread, for which the scan waits a short
time: a call that hangs there costs that time, and not the scan.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

import pynvml

from canhazgpu.probe.nvml.calls import NVML_ERRORS

TIMEOUT_S = 0.5
"""For all GPUs together; a call takes much less than a millisecond."""
MAX_PERCENT = 100

_hanging: threading.Thread | None = None


def read_utilization(indices: Iterable[int]) -> dict[int, int]:
    """Return for how many percent of the last sample period each GPU computed, by NVML's index.

    A GPU is left out where the driver does not say, or fails, or reports more than 100, or does not
    answer in time.
    """
    global _hanging  # noqa: PLW0603 - NVML is one for the process, and so is a thread that hangs in it
    if is_hanging():
        return {}
    found: dict[int, int] = {}
    thread = threading.Thread(target=_read_into, args=(found, tuple(indices)), daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    _hanging = thread if thread.is_alive() else None
    return dict(found)


def is_hanging() -> bool:
    """Tell whether a call of NVML hangs in a thread; a call that ends NVML would wait for it."""
    return _hanging is not None and _hanging.is_alive()


def _read_into(found: dict[int, int], indices: Iterable[int]) -> None:
    for index in indices:
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            percent = int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        except NVML_ERRORS:
            continue
        if percent <= MAX_PERCENT:
            found[index] = percent
