"""Ask slurmd how it reads the node's GPUs, whenever the answer may have changed."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import replace

from canhazgpu.errors import InputError, SchedulerError
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.node.processes import PROC, identify_process, read_stat
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.conf.slurmd_answer import SlurmdAnswer, conf_stamps, driver_gpus
from canhazgpu.schedulers.slurm.control.slurmd_gres import (
    ask_slurmd,
    check_device_files,
    find_slurmd,
)
from canhazgpu.schedulers.slurm.hook.node_context import NodeContext
from canhazgpu.schedulers.slurm.hook.slurmd_gpus_record import read_answer, write_answer

QUESTION_TIMEOUT_S = 10.0
"""A health check has little time. slurmd needs 0.1 s, or as long as NVML where it detects GPUs."""
RETRY_AFTER_S = 600.0
"""How long after a question without answer slurmd is asked again."""
MAX_ANCESTORS = 16
_SLURMD = re.compile(r"slurmd(-\w+)?", re.ASCII)
"""A new slurmd starts itself again, with the name of its file: Debian's is slurmd-wlm."""


def ask_slurmd_if_needed(context: NodeContext, gpus: Sequence[GpuReading], asking_pid: int) -> str:
    """Ask slurmd unless its last answer still holds; returns why it gave none, else "".

    The running slurmd is found above `asking_pid`, the process that asks for the health check.
    Raises `OSError` if the answer cannot be kept.
    """
    node_conf = context.node_conf
    if not node_conf.gpu_count:
        return ""  # slurm.conf has no GPUs here, or not this node: slurmd -G would fail
    kept = read_answer(context.state_dir)
    slurmd = slurmd_above(asking_pid)
    started = None if slurmd is None else identify_process(slurmd)
    asked = SlurmdAnswer(
        conf=conf_stamps(node_conf),
        driver=driver_gpus(gpus),
        boot_id=context.boot_id,
        slurmd="" if started is None else f"{started.pid}:{started.started}",
        asked_at=time.time(),
        devices=(),
    )
    if kept is not None and still_holds(kept, asked):
        return ""
    answer = _ask(context, asked, library_path_of(slurmd))
    write_answer(context.state_dir, answer)
    return answer.fault


def still_holds(kept: SlurmdAnswer, now: SlurmdAnswer) -> bool:
    """Tell whether slurmd need not be asked again; `now` says how everything is now.

    What slurmd detected, it keeps until it starts anew, whatever the driver shows since.
    """
    if (kept.conf, kept.boot_id) != (now.conf, now.boot_id):
        return False
    if kept.fault:
        return now.asked_at - kept.asked_at < RETRY_AFTER_S
    restarted = bool(now.slurmd) and now.slurmd != kept.slurmd
    return kept.driver == now.driver or not restarted


def _ask(context: NodeContext, asked: SlurmdAnswer, library_path: str) -> SlurmdAnswer:
    devices: tuple[GpuDevice, ...] = ()
    fault = ""
    try:
        check_device_files(context.node_conf.gpu_devices)
        slurmd = find_slurmd(context.config.slurm.bin_dir)
        devices = ask_slurmd(slurmd, context.conf, context.node, QUESTION_TIMEOUT_S, library_path)
    except (SchedulerError, InputError) as exc:
        fault = str(exc)
    return replace(asked, devices=devices, fault=fault)


def slurmd_above(pid: int) -> int | None:
    """Return the pid of the slurmd that started this process, None for none."""
    found = None
    for _ in range(MAX_ANCESTORS):
        stat = read_stat(pid)
        if stat is None or pid <= 1:
            break
        try:
            name = (PROC / str(pid) / "comm").read_text().strip()
        except OSError:
            break
        if _SLURMD.fullmatch(name):
            found = pid
        pid = stat.parent
    return found


def library_path_of(pid: int | None) -> str:
    """Return the LD_LIBRARY_PATH of a process, empty for none."""
    try:
        environ = b"" if pid is None else (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return ""
    for one in environ.split(b"\0"):
        name, _, value = one.partition(b"=")
        if name == b"LD_LIBRARY_PATH":
            return os.fsdecode(value)
    return ""
