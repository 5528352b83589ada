"""Ask slurmd how it reads a node's GPUs, and leave alone what the running slurmd uses.

``slurmd -G`` prints the GPUs in Slurm's order. It also starts the plugins for authentication and
cgroups: that of ``auth/slurm`` takes the running slurmd's socket away (24.05 and later), that of
cgroup v2 makes a scope in systemd (22.05). So slurmd is given a directory with the site's files,
and a ``slurm.conf`` that includes the site's and sets other plugins.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from canhazgpu.errors import InputError, SchedulerError
from canhazgpu.path_presence import may_exist
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.control.slurmd_output import parse_slurm_version, parse_slurmd_gpus

SLURMD_TIMEOUT_S = 25.0
"""Longest wait for ``slurmd -G``. It takes as long as NVML where it detects GPUs."""

FIRST_RELEASE_WITHOUT_CGROUPS = (23, 11)
"""The first that knows CgroupPlugin=disabled."""

SBIN_DIRS = ("/usr/sbin", "/usr/local/sbin", "/opt/slurm/sbin", "/usr/local/slurm/sbin")

ROOTS_DIRECTORY = "/run"

_OVERRIDES = (
    "AuthType=auth/none\nCredType=cred/none\n"
    "SlurmdSpoolDir={directory}\nSlurmdPidFile={directory}/pid\nSlurmdLogFile={directory}/log\n"
    "SlurmdSyslogDebug=quiet\n"
)
_OWN_FILES = ("slurm.conf", "cgroup.conf")


def slurmd_directories(bin_dir: str) -> tuple[str, ...]:
    """Return where slurmd may be, given the directory of Slurm's commands, empty for the usual."""
    return (*((str(Path(bin_dir).parent / "sbin"), bin_dir) if bin_dir else ()), *SBIN_DIRS)


def find_slurmd(bin_dir: str) -> str:
    """Return the path of slurmd; raises `SchedulerError` if there is none."""
    for directory in slurmd_directories(bin_dir):
        if os.access(path := Path(directory) / "slurmd", os.X_OK):
            return str(path)
    raise SchedulerError(f"slurmd is not in {', '.join(slurmd_directories(bin_dir))}")


def check_device_files(devices: Iterable[GpuDevice]) -> None:
    """Raise `SchedulerError` for a device file that is missing: slurmd would wait 20 s for it."""
    for file in dict.fromkeys(file for one in devices for file in one.files):
        if not may_exist(Path(file)):
            raise SchedulerError(f"slurmd -G needs the device file {file}, which is missing")


def ask_slurmd(
    slurmd: str,
    conf: Path,
    node: str,
    timeout_s: float = SLURMD_TIMEOUT_S,
    library_path: str = "",
) -> tuple[GpuDevice, ...]:
    """Return the node's GPUs as this slurmd reads them from the files beside `conf`.

    `library_path` is the running slurmd's LD_LIBRARY_PATH, where it may have found the driver's
    library. Raises `SchedulerError` with slurmd's own message if it gives no answer.
    """
    environ = {"LD_LIBRARY_PATH": library_path} if library_path else {}

    def run(arguments: list[str]) -> str:
        return _run(slurmd, arguments, environ, timeout_s)

    with tempfile.TemporaryDirectory(prefix="canhazgpu-slurmd-", dir=_directory()) as name:
        directory = Path(name)
        try:
            _write_files(directory, conf, _cgroup_plugin(run(["-V"])))
        except OSError as exc:
            raise SchedulerError(f"cannot show slurmd its files: {exc}") from exc
        printed = run(["-G", "-N", node, "-f", str(directory / "slurm.conf")])
        logged = _text_of(directory / "log")
    try:
        # Where slurmd writes to both, both have the same lines.
        return parse_slurmd_gpus(printed) or parse_slurmd_gpus(logged)
    except InputError as exc:
        raise SchedulerError(f"slurmd -G: {exc}") from exc


def _directory() -> str | None:
    """Return where the directory is made: for root not where TMPDIR says, which may be a user's."""
    return ROOTS_DIRECTORY if os.access(ROOTS_DIRECTORY, os.W_OK) else None


def _write_files(directory: Path, conf: Path, cgroup_plugin: str) -> None:
    for path in conf.parent.iterdir():
        if path.name not in _OWN_FILES:
            (directory / path.name).symlink_to(path.absolute())
    overrides = _OVERRIDES.format(directory=directory)
    (directory / "slurm.conf").write_text(f"Include {conf.absolute()}\n{overrides}")
    (directory / "cgroup.conf").write_text(f"CgroupPlugin={cgroup_plugin}\n")


def _cgroup_plugin(version: str) -> str:
    found = parse_slurm_version(version)
    return "disabled" if found and found >= FIRST_RELEASE_WITHOUT_CGROUPS else "cgroup/v1"


def _run(slurmd: str, arguments: list[str], environ: dict[str, str], timeout_s: float) -> str:
    try:
        done = subprocess.run(
            [slurmd, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout_s,
            env=environ,
            cwd="/",
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise SchedulerError(f"slurmd {arguments[0]} gave no answer in {timeout_s:g} s") from exc
    except OSError as exc:
        raise SchedulerError(f"cannot run {slurmd}: {exc.strerror}") from exc
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise SchedulerError(f"slurmd {arguments[0]} failed: {said[-300:]}")
    return done.stdout + done.stderr


def _text_of(path: Path) -> str:
    return path.read_text(errors="surrogateescape") if may_exist(path) else ""
