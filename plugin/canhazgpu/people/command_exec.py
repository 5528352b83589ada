"""Execute the command of a run in the process that the user started.

The command has the user's terminal, gets all signals itself and gives its own exit status. What
must happen after its end is done by the watcher of the node's agent, or by the run's monitor.
The program's start imports this module: what costs time is imported where it is needed.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import errno
import os
import stat

from canhazgpu.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

EXIT_NOT_FOUND = 127
EXIT_NOT_EXECUTABLE = 126
"""The exit statuses of shells for these two errors."""

# Python ignores these from its start, and exec keeps ignored signals ignored.
_IGNORED_BY_PYTHON = ("SIGPIPE", "SIGXFSZ")
_LOCALES_BY_PYTHON = ("C.UTF-8", "C.utf8", "UTF-8")
INITIAL_ENVIRON = "/proc/self/environ"
SHELL = "/bin/sh"


def check_command(command: Sequence[str], environ: Mapping[str, str]) -> None:
    """Raise `CommandError` for a command that cannot be executed, before any GPU is reserved."""
    name = command[0]
    if _which(name, environ.get("PATH", os.defpath)) is not None:
        return
    if os.sep in name and os.path.exists(name):  # noqa: PTH110 - as the shell does
        raise _command_error(name, errno.EACCES)
    raise _command_error(name, errno.ENOENT)


def exec_command(command: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Execute the command in this process; raises `CommandError` where that fails."""
    for name in _IGNORED_BY_PYTHON:
        if hasattr(_signal, name):
            _signal.signal(getattr(_signal, name), _signal.SIG_DFL)
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
        path = _which(command[0], environ.get("PATH", os.defpath))
        if exc.errno != errno.ENOEXEC or path is None:
            raise
        os.execve(SHELL, [SHELL, path, *command[1:]], environ)  # noqa: S606 - nothing is parsed


def _without_python_locale(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the locale that Python sets in place of C (PEP 538)."""
    given = dict(environ)
    if given.get("LC_CTYPE") in _LOCALES_BY_PYTHON:
        try:
            with open(INITIAL_ENVIRON, "rb") as stream:  # noqa: PTH123 - without pathlib
                started = stream.read().split(b"\0")
        except OSError:
            return given
        else:
            before = [one for one in started if one.startswith(b"LC_CTYPE=")]
            given.pop("LC_CTYPE")
            given |= {"LC_CTYPE": os.fsdecode(before[0].partition(b"=")[2])} if before else {}
    return given


def _which(name: str, path: str) -> str | None:
    """Return the file that is executed, as `shutil.which`, whose module is long to import."""
    directories = [""] if os.sep in name else path.split(os.pathsep)
    files = (os.path.join(directory, name) for directory in directories)  # noqa: PTH118 - without pathlib
    return next(filter(_is_executable, files), None)


def _is_executable(file: str) -> bool:
    try:
        mode = os.stat(file).st_mode  # noqa: PTH116 - without pathlib
    except (OSError, ValueError):
        return False
    return not stat.S_ISDIR(mode) and os.access(file, os.X_OK)


def _command_error(name: str, code: int | None) -> CommandError:
    if code in (errno.ENOENT, errno.ENOTDIR):
        return CommandError(f"{name}: command not found", EXIT_NOT_FOUND)
    why = os.strerror(code) if code else "cannot be executed"
    return CommandError(f"{name}: {why}", EXIT_NOT_EXECUTABLE)
