"""Ask slurmd how it reads the node's GPUs, whenever the answer may have changed."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace

from canhazgpu.errors import SchedulerError
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.node.processes import PROC, read_stat
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.conf.slurmd_answer import SlurmdAnswer, conf_stamps, driver_gpus
from canhazgpu.schedulers.slurm.control.slurmd_gres import ask_slurmd, find_slurmd
from canhazgpu.schedulers.slurm.hook.node_context import NodeContext
from canhazgpu.schedulers.slurm.hook.slurmd_gpus import read_answer, write_answer

QUESTION_TIMEOUT_S = 10.0
"""A health check has little time. slurmd needs 0.1 s, or as long as NVML where it detects GPUs."""
RETRY_AFTER_S = 600.0
"""How long after a question without answer slurmd is asked again."""
MAX_ANCESTORS = 16


def ask_slurmd_if_needed(context: NodeContext, gpus: Sequence[GpuReading]) -> str:
    """Ask slurmd unless its last answer still holds; returns why it gave none, else "".

    Raises `OSError` if the answer cannot be kept.
    """
    node_conf = context.node_conf
    if not node_conf.gpu_count:
        return ""  # slurm.conf has no GPUs here, or not this node: slurmd -G would fail
    kept = read_answer(context.state_dir)
    asked = SlurmdAnswer(
        conf_stamps(node_conf),
        driver_gpus(gpus),
        context.boot_id,
        running_slurmd(),
        time.time(),
        (),
    )
    if kept is not None and still_holds(kept, asked):
        return ""
    answer = _ask(context, asked)
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


def _ask(context: NodeContext, asked: SlurmdAnswer) -> SlurmdAnswer:
    devices: tuple[GpuDevice, ...] = ()
    fault = ""
    try:
        slurmd = find_slurmd(context.config.slurm.bin_dir)
        devices = ask_slurmd(slurmd, context.conf, context.node, QUESTION_TIMEOUT_S)
    except SchedulerError as exc:
        fault = str(exc)
    return replace(asked, devices=devices, fault=fault)


def running_slurmd() -> str:
    """Return pid and start time of the slurmd that started this process, empty for none."""
    pid, found = os.getppid(), ""
    for _ in range(MAX_ANCESTORS):
        stat = read_stat(pid)
        if stat is None or pid <= 1:
            break
        try:
            name = (PROC / str(pid) / "comm").read_text().strip()
        except OSError:
            break
        if name == "slurmd":
            found = f"{pid}:{stat.started}"
        pid = stat.parent
    return found
