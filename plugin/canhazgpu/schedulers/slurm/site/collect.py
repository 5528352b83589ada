"""Collect what the checks examine: Slurm's files, its controller, and the node's own files.

No function raises for a fault that it finds: the fault becomes part of the result.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from canhazgpu.config.schema import SlurmConfig
from canhazgpu.errors import CanhazgpuError, ConfigError, InputError, SchedulerError
from canhazgpu.path_presence import may_exist
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.conf.declared_gpus import names_node
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.conf.node_conf import (
    BOOLEAN_YES,
    SlurmNodeConf,
    read_node_conf,
    read_settings,
)
from canhazgpu.schedulers.slurm.conf.parser import ConfLine
from canhazgpu.schedulers.slurm.conf.settings import Settings, parse_show_config
from canhazgpu.schedulers.slurm.control.commands import DEFAULT_BIN_DIRS, SlurmCommands
from canhazgpu.schedulers.slurm.control.slurmd_gres import (
    ask_slurmd,
    check_device_files,
    find_slurmd,
    slurmd_directories,
)
from canhazgpu.schedulers.slurm.job_check.task_view import TaskView, read_task_view
from canhazgpu.schedulers.slurm.site.checks.accounting import SLURMDBD
from canhazgpu.schedulers.slurm.site.hook_paths import relative_hooks, with_absolute_hooks
from canhazgpu.schedulers.slurm.site.installed_files import under_root
from canhazgpu.schedulers.slurm.site.multi_node import allows_multi_node_jobs
from canhazgpu.schedulers.slurm.site.programs import matched_programs
from canhazgpu.schedulers.slurm.site.state import ConfFile, SlurmState

QUERY_TIMEOUT_S = 5.0
"""Longest wait for one of Slurm's commands."""


HOOK_COMMANDS = ("scontrol", "squeue", "scancel")

NVML_NAME = "libnvidia-ml.so.1"
NVML_DIRS = (
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/local/nvidia/lib64",
    "/usr/lib/wsl/lib",
    "/run/nvidia/driver/usr/lib/x86_64-linux-gnu",
)


def find_slurm_conf(
    named: str | None, environ: Mapping[str, str], slurm_dir: str, root: Path
) -> str:
    """Return the path of slurm.conf as the node knows it, whether or not the file exists.

    This is `named`, else ``SLURM_CONF`` (only if `root` is this host's), else the file in Slurm's
    directory, else that of a configless slurmd.
    """
    if named:
        return named
    own_host = root == Path("/")
    if own_host and environ.get(names.SLURM_CONF):
        return environ[names.SLURM_CONF]
    usual = f"{slurm_dir}/slurm.conf"
    present = [usual, *([names.CONFIGLESS_CONF] if own_host else [])]
    return next((path for path in present if may_exist(under_root(root, Path(path)))), usual)


def is_default_conf(conf: str) -> bool:
    """Tell whether Slurm's programs find this file without SLURM_CONF."""
    return conf in (names.DEFAULT_CONF, names.CONFIGLESS_CONF)


def collect_slurm_state(conf: str, node: str, host: str, slurm: SlurmConfig) -> SlurmState:
    """Collect the state of this node's Slurm."""
    path = Path(conf)
    files = _read_files(path, node, host)
    node_conf, settings, fault = files.node_conf, files.settings, files.fault
    commands = SlurmCommands(slurm.bin_dir, QUERY_TIMEOUT_S, {names.SLURM_CONF: conf})
    knows_node = any(_line_names_node(line, node) for line in node_conf.nodes)
    devices, slurmd_fault = (
        _slurmds_devices(path, node_conf, slurm.bin_dir)
        if knows_node and node_conf.gres and os.geteuid() == 0
        else (None, None)
    )
    missing = find_missing_commands(slurm.bin_dir)
    present = set(HOOK_COMMANDS) - set(missing)
    broken = {} if fault else find_broken_commands(slurm.bin_dir, conf, present)
    running, controller_fault, controller_knows = (
        (None, None, None)
        if fault or "scontrol" in {*missing, *broken}
        else ask_controller(commands, node)
    )
    hooks = with_absolute_hooks(settings, conf)
    return SlurmState(
        conf=ConfFile(conf, fault),
        settings=hooks,
        node_conf=node_conf,
        knows_node=knows_node,
        has_constrain_devices=files.cgroup.get("ConstrainDevices").lower() in BOOLEAN_YES,
        version=read_slurm_version(slurm.bin_dir),
        controller_settings=running and with_absolute_hooks(running, conf),
        programs=matched_programs(hooks),
        missing_commands=missing,
        slurmd_devices=devices,
        slurmd_fault=slurmd_fault,
        relative_hooks=relative_hooks(settings),
        multi_node_jobs=files.multi_node_jobs,
        broken_commands=broken,
        accounting_fault=_accounting_fault(slurm, settings, conf),
        controller_fault=controller_fault,
        controller_knows_node=controller_knows,
        task_view=files.task_view,
    )


@dataclass(slots=True)
class _ConfFiles:
    """What Slurm's files say, as far as they could be read; `fault` is why no further."""

    node_conf: SlurmNodeConf
    settings: Settings = field(default_factory=Settings)
    multi_node_jobs: bool = False
    cgroup: Settings = field(default_factory=Settings)
    task_view: TaskView = field(default_factory=TaskView)
    fault: str | None = None


def _read_files(path: Path, node: str, host: str) -> _ConfFiles:
    files = _ConfFiles(SlurmNodeConf(node, False, (), (), None))
    try:
        files.node_conf = read_node_conf(path, node, host)
        files.settings = read_settings(path)
        files.multi_node_jobs = allows_multi_node_jobs(path)
        files.cgroup = read_settings(path.with_name("cgroup.conf"))
        files.task_view = read_task_view(path, files.settings)
        files.fault = None if may_exist(path) else "No such file"
    except (ConfigError, OSError) as exc:
        files.fault = str(exc)
    return files


def _slurmds_devices(
    conf: Path, node_conf: SlurmNodeConf, bin_dir: str
) -> tuple[tuple[GpuDevice, ...] | None, str | None]:
    try:
        if node_conf.gres_conf.autodetect:
            return None, None  # only an answer with slurmd's own library path counts
        check_device_files(node_conf.gpu_devices)
        return ask_slurmd(find_slurmd(bin_dir), conf, node_conf.node), None
    except InputError:
        return None, None  # a check of its own says so
    except SchedulerError as exc:
        return None, str(exc)


def _line_names_node(line: ConfLine, node: str) -> bool:
    try:
        return names_node(line, line.pairs["nodename"], node)
    except InputError:
        return False


def read_slurm_version(bin_dir: str) -> str | None:
    """Return the output of ``slurmd -V``, else of ``scontrol --version``; None if both fail."""
    candidates = [
        *(("slurmd", "-V", directory) for directory in slurmd_directories(bin_dir)),
        ("scontrol", "--version", bin_dir),
    ]
    for name, option, directory in candidates:
        try:
            return SlurmCommands(directory, QUERY_TIMEOUT_S, {}).run(name, option).strip()
        except SchedulerError:
            continue
    return None


def read_running_settings(commands: SlurmCommands) -> Settings | None:
    """Return the controller's settings, None if it does not answer."""
    try:
        return parse_show_config(commands.run("scontrol", "show", "config"))
    except CanhazgpuError:
        return None


def ask_controller(
    commands: SlurmCommands, node: str
) -> tuple[Settings | None, str | None, bool | None]:
    """Return the controller's settings, why it did not answer, and whether it knows the node."""
    try:
        settings = parse_show_config(commands.run("scontrol", "show", "config"))
    except CanhazgpuError as exc:
        return None, str(exc), None
    try:
        commands.run("scontrol", "show", "node", node)
    except CanhazgpuError as exc:
        return settings, None, False if "not found" in str(exc) else None
    return settings, None, True


def find_broken_commands(bin_dir: str, conf: str, commands: Collection[str]) -> dict[str, str]:
    """Return those of Slurm's commands that do not even tell their release, with the reason.

    Some of them read slurm.conf before that.
    """
    found = {}
    environ = {names.SLURM_CONF: conf}
    for name in sorted(commands):
        try:
            SlurmCommands(bin_dir, QUERY_TIMEOUT_S, environ).run(name, "--version")
        except SchedulerError as exc:
            found[name] = str(exc)
    return found


def _accounting_fault(slurm: SlurmConfig, settings: Settings, conf: str) -> str | None:
    """Return why Slurm's accounting gives no answer; it is asked where the site uses it."""
    kinds = settings.plugins("AccountingStorageType", "accounting_storage")
    if slurm.job_report == "off" or SLURMDBD not in kinds:
        return None
    commands = SlurmCommands(slurm.bin_dir, QUERY_TIMEOUT_S, {names.SLURM_CONF: conf})
    try:
        commands.run("sacct", "--allocations", "--noheader", "--jobs=1", "--format=JobID")
        commands.run("sacctmgr", "--version")
    except SchedulerError as exc:
        return str(exc)
    return None


def find_missing_commands(bin_dir: str) -> tuple[str, ...]:
    """Return those of Slurm's commands that a hook would not find."""
    directories = (bin_dir,) if bin_dir else DEFAULT_BIN_DIRS
    return tuple(
        name
        for name in HOOK_COMMANDS
        if not any(os.access(Path(directory) / name, os.X_OK) for directory in directories)
    )


def find_nvml_libraries(library_path: str = "") -> tuple[str, ...]:
    """Return the NVML libraries in the directories of ``LD_LIBRARY_PATH`` and in the usual ones."""
    directories = [*(one for one in library_path.split(":") if one.startswith("/")), *NVML_DIRS]
    found = (Path(directory) / NVML_NAME for directory in directories)
    return tuple(dict.fromkeys(str(path) for path in found if may_exist(path)))
