"""What a prolog does first of all: read its configuration, and begin the scan.

The scan works in a process of its own while this one imports all that the rest takes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from canhazgpu.config.load import load
from canhazgpu.config.schema import Config
from canhazgpu.deadline import hard_deadline
from canhazgpu.errors import ConfigError
from canhazgpu.node.identity import node_name
from canhazgpu.probe.node_probe import NodeProbe
from canhazgpu.probe.port import PendingScan
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.cgroup import job_of_cgroup

OPEN_DEADLINE_S = 4.0
"""Longest time for reading the configuration, or Slurm's files, which may lie on a slow share."""


@dataclass(frozen=True, slots=True)
class StartedHook:
    """The configuration, or the defaults and what is wrong with it, and the scan under way.

    `started_at` is when the hook did, in seconds of the monotonic clock; `is_retry` says that it was killed
    and is run once more.
    """

    started_at: float
    is_retry: bool
    config: Config
    config_fault: ConfigError | None
    probe: NodeProbe
    scan: PendingScan | None = None


def read_hook_config(environ: Mapping[str, str]) -> StartedHook:
    """Return the configuration alone; raises nothing that it finds wrong with it."""
    began = time.monotonic() - _killed_run_s(environ)
    try:
        config, fault = load(environ).config, None
    except ConfigError as exc:
        config, fault = Config(), exc
    node = node_name(config.node, environ)
    return StartedHook(
        began,
        names.KILLED_RUN_S in environ,
        config,
        fault,
        NodeProbe(node, config.validation, job_of_cgroup),
    )


def _killed_run_s(environ: Mapping[str, str]) -> float:
    text = environ.get(names.KILLED_RUN_S, "")
    return float(text) if re.fullmatch(r"[0-9]{1,3}", text, re.ASCII) else 0.0


def start_hook(environ: Mapping[str, str]) -> StartedHook | Exception:
    """Return what is begun, or what stopped it: to be told by whoever knows how."""
    try:
        with hard_deadline(OPEN_DEADLINE_S):
            begun = read_hook_config(environ)
            return begun if begun.config_fault else replace(begun, scan=begun.probe.start())
    except Exception as exc:
        return exc
