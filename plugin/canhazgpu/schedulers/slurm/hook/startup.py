"""The first steps of a prolog: read the configuration, and start the scan.

The scan runs in its own process while this process imports the other modules.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from canhazgpu.config.load import load
from canhazgpu.config.schema import Config
from canhazgpu.deadline import hard_deadline
from canhazgpu.errors import ConfigError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.node.identity import node_name, state_dir
from canhazgpu.probe.node_probe import NodeProbe
from canhazgpu.probe.port import GpuProbe, PendingScan
from canhazgpu.probe.source_scan import SourceScan, StartSourceScan
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.attribution.attribution import hook_attribution
from canhazgpu.schedulers.slurm.attribution.leave_job import leave_job
from canhazgpu.schedulers.slurm.conf.node_conf import conf_path, has_mps
from canhazgpu.schedulers.slurm.hook.times import killed_run_s

OPEN_DEADLINE_S = 4.0
"""Longest time for reading the configuration, or Slurm's files: they may be on a slow share."""


@dataclass(frozen=True, slots=True)
class StartedHook:
    """The configuration, and the scan that runs.

    `started_at` is the hook's start, in seconds of the monotonic clock. `is_retry` is True if an
    earlier run of this hook was killed. If the configuration cannot be read, `config_fault` says
    why, and `config` has the defaults. `in_job` is True where the hook runs inside the job,
    and could not leave it.
    """

    started_at: float
    is_retry: bool
    config: Config
    config_fault: ConfigError | None
    probe: GpuProbe
    scan: PendingScan | None = None
    in_job: bool = False


ScanSources = Callable[[Path, Path], StartSourceScan]
"""Takes slurm.conf and the node's state directory; returns what scans by one source."""


def scan_in_child(_conf: Path, _state_dir: Path) -> StartSourceScan:
    """`ScanSources` in a child of the hook's own process."""
    return SourceScan


def read_hook_config(
    environ: Mapping[str, str], scan_sources: ScanSources = scan_in_child
) -> StartedHook:
    """Read the configuration, and start no scan. A fault in it is returned, not raised."""
    started_at = time.monotonic() - killed_run_s(environ)
    try:
        config, fault = load(environ).config, None
    except ConfigError as exc:
        config, fault = Config(), exc
    node = node_name(config.node, environ)
    conf = conf_path(environ)
    directory = state_dir(config.node, node)
    attribution = hook_attribution(conf, node, directory)
    in_job = not _leave_job(conf, node)
    return StartedHook(
        started_at,
        names.KILLED_RUN_S in environ,
        config,
        fault,
        NodeProbe(
            node,
            config.validation,
            attribution,
            partial(has_mps, conf, node),
            scan_sources(conf, directory),
        ),
        in_job=in_job,
    )


def _leave_job(conf: Path, node: str) -> bool:
    """Leave the job's control groups, see `leave_job`; a fault of Slurm's files is told later."""
    try:
        return leave_job(conf, node)
    except (ConfigError, OSError):
        return True


def start_hook(
    environ: Mapping[str, str], scan_sources: ScanSources = scan_in_child
) -> StartedHook | Exception:
    """Read the configuration and start the scan; returns an error for `run_hook` to log."""
    try:
        with hard_deadline(OPEN_DEADLINE_S, of_running=True):
            started = read_hook_config(environ, scan_sources)
            return started if started.config_fault else replace(started, scan=started.probe.start())
    except Exception as exc:
        return exc
