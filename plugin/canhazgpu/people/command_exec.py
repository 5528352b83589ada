"""Become the command of a run: its process is the one the user started.

Nothing stands between the command and its terminal, its signals and its exit status; what has to
outlive it is the keeper's.
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

from canhazgpu.errors import CommandError
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.node.run_marker import MARKER_VARIABLE

EXIT_NOT_FOUND = 127
EXIT_NOT_EXECUTABLE = 126
"""The statuses by which shells tell these two."""

# Python ignores these at its start, and what is ignored stays so over exec.
_IGNORED_BY_PYTHON = ("SIGPIPE", "SIGXFSZ")
_LOCALES_BY_PYTHON = ("C.UTF-8", "C.utf8", "UTF-8")
INITIAL_ENVIRON = Path("/proc/self/environ")
SHELL = "/bin/sh"


def visible_devices(gpus: Sequence[GpuReading], export: str) -> dict[str, str]:
    """Return the variables by which a program sees these GPUs and no others.

    An index means a GPU only in the order of the PCI bus; a MIG instance has none.
    """
    if export == "index" and all(gpu.mig_index is None for gpu in gpus):
        indices = sorted(gpu.index for gpu in gpus)
        return {
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, indices)),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        }
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in gpus)}


def run_environment(
    environ: Mapping[str, str], mark: str, gpus: Sequence[GpuReading], export: str
) -> dict[str, str]:
    """Return the command's environment: the user's, these GPUs, and the mark of the run."""
    return {**environ, **visible_devices(gpus, export), MARKER_VARIABLE: mark}


def check_command(command: Sequence[str], environ: Mapping[str, str]) -> None:
    """Raise `CommandError` for a command that could not be executed: before GPUs are taken."""
    name = command[0]
    if shutil.which(name, path=environ.get("PATH", os.defpath)) is not None:
        return
    if os.sep in name and os.path.exists(name):  # noqa: PTH110 - the shell's own question
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
    """Execute it as execvp(3) does: what is no program but a text is a script of the shell."""
    try:
        os.execvpe(command[0], list(command), environ)  # noqa: S606 - no shell is wanted
    except OSError as exc:
        path = shutil.which(command[0], path=environ.get("PATH", os.defpath))
        if exc.errno != errno.ENOEXEC or path is None:
            raise
        os.execve(SHELL, [SHELL, path, *command[1:]], environ)  # noqa: S606 - nothing is parsed


def _without_python_locale(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what Python put into its own: a locale for C's (PEP 538)."""
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
