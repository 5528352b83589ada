"""Execute the command of a run in the process that the user started.

The command has the user's terminal, gets all signals itself and gives its own exit status. What
must happen after its end is the task of the run's monitor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from canhazgpu.errors import CommandError, InputError
from canhazgpu.gpu.ids import GPUS_VARIABLE
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.node.run_marker import MARKER_VARIABLE

EXIT_NOT_FOUND = 127
EXIT_NOT_EXECUTABLE = 126
"""The exit statuses of shells for these two errors."""

# Python ignores these from its start, and exec keeps ignored signals ignored.
_IGNORED_BY_PYTHON = ("SIGPIPE", "SIGXFSZ")
_LOCALES_BY_PYTHON = ("C.UTF-8", "C.utf8", "UTF-8")
INITIAL_ENVIRON = Path("/proc/self/environ")
SHELL = "/bin/sh"


def visible_devices(gpus: Sequence[GpuReading], export: str) -> dict[str, str]:
    """Return the variables that show a program these GPUs and no others, and their UUIDs.

    A MIG instance has no index of CUDA's. Raises `InputError` where an index is not certain.
    """
    uuids = ",".join(gpu.uuid for gpu in gpus)
    if export != "index" or any(gpu.is_mig_instance for gpu in gpus):
        return {"CUDA_VISIBLE_DEVICES": uuids, GPUS_VARIABLE: uuids}
    indices = [gpu.cuda_index for gpu in gpus if gpu.cuda_index is not None]
    if len(indices) < len(gpus):
        raise InputError('CUDA\'s indices of these GPUs are not certain: set run.export = "uuid"')
    return {
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, sorted(indices))),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        GPUS_VARIABLE: uuids,
    }


def run_environment(
    environ: Mapping[str, str], marker: str, gpus: Sequence[GpuReading], export: str
) -> dict[str, str]:
    """Return the command's environment: the user's with these GPUs and the run's marker."""
    return {**environ, **visible_devices(gpus, export), MARKER_VARIABLE: marker}


def check_command(command: Sequence[str], environ: Mapping[str, str]) -> None:
    """Raise `CommandError` for a command that cannot be executed, before any GPU is reserved."""
    name = command[0]
    if shutil.which(name, path=environ.get("PATH", os.defpath)) is not None:
        return
    if os.sep in name and os.path.exists(name):  # noqa: PTH110 - as the shell does
        raise _command_error(name, errno.EACCES)
    raise _command_error(name, errno.ENOENT)


def exec_command(command: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Execute the command in this process; raises `CommandError` where that fails."""
    for name in _IGNORED_BY_PYTHON:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    given = _without_python_locale(environ)
    try:
        _execvp_or_shell(command, given)
    except (OSError, ValueError) as exc:
        raise _command_error(command[0], getattr(exc, "errno", None)) from exc


def _execvp_or_shell(command: Sequence[str], environ: dict[str, str]) -> NoReturn:
    """Execute it as execvp(3) does: a file that is no program runs as a script of the shell."""
    try:
        os.execvpe(command[0], list(command), environ)  # noqa: S606 - no shell is wanted
    except OSError as exc:
        path = shutil.which(command[0], path=environ.get("PATH", os.defpath))
        if exc.errno != errno.ENOEXEC or path is None:
            raise
        os.execve(SHELL, [SHELL, path, *command[1:]], environ)  # noqa: S606 - nothing is parsed


def _without_python_locale(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the locale that Python sets in place of C (PEP 538)."""
    given = dict(environ)
    if given.get("LC_CTYPE") in _LOCALES_BY_PYTHON:
        with contextlib.suppress(OSError):
            started = INITIAL_ENVIRON.read_bytes().split(b"\0")
            before = [one for one in started if one.startswith(b"LC_CTYPE=")]
            given.pop("LC_CTYPE")
            given |= {"LC_CTYPE": os.fsdecode(before[0].partition(b"=")[2])} if before else {}
    return given


def _command_error(name: str, code: int | None) -> CommandError:
    if code in (errno.ENOENT, errno.ENOTDIR):
        return CommandError(f"{name}: command not found", EXIT_NOT_FOUND)
    why = os.strerror(code) if code else "cannot be executed"
    return CommandError(f"{name}: {why}", EXIT_NOT_EXECUTABLE)
