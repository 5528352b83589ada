"""Read the files of /proc/PID of one process.

What a user can choose in them is hostile input: names and command lines are any bytes. Reading a
command line can hang, because it reads the memory of the other process.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.secret_detection import looks_secret

PROC = Path("/proc")
MAX_FILE_BYTES = 65536
MAX_COMMAND_LINE_BYTES = 32768
"""Bytes of a command line that are read; options that name a model stand at its beginning."""
MPS_SERVER = "nvidia-cuda-mps-server"
"""The file name of NVIDIA's MPS server."""
COMM_LENGTH = 15
"""Bytes that the kernel keeps of a process's name."""

_UNINFORMATIVE_NAMES = frozenset({"pt_main_thread"})
"""Names that a library (PyTorch) gives to every process that uses it."""
_PROGRAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+:-]{0,63}")


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """One process.

    `start_ticks` is the clock tick of its start. `uid` is the real user id. `uid` and `cgroup` are
    empty where they were not asked for. `command_line` is an open descriptor, None without one.
    `is_mps_server` is as in `GpuProcess`.
    """

    name: str
    parent_pid: int
    start_ticks: int
    uid: int | None = None
    cgroup: str = ""
    command_line: int | None = None
    is_mps_server: bool = False


def is_proc_mounted() -> bool:
    """Tell whether /proc is mounted."""
    return (PROC / "self").exists()


def read_process(pid: int, *, owned: bool) -> ProcessEntry | None:
    """Return the process, with its uid and control group if `owned`.

    None for a process that has ended, is in another pid namespace, or is hidden (``hidepid``). All
    files are opened through one descriptor of the directory, so they are of one process even if
    its pid is reused meanwhile.
    """
    try:
        with _open_directory(f"{PROC}/{pid}") as directory:
            name, parent, started = _parsed_stat(_read(directory, "stat"))
            uid = _parsed_uid(_read(directory, "status")) if owned else None
            cgroup = _read(directory, "cgroup").decode("utf-8", "replace") if owned else ""
            # Opening it cannot hang; reading can.
            line = _open_command_line(directory)
            serves = owned and _is_mps_server(directory, name, uid)
    except (OSError, ValueError, IndexError):
        return None
    return ProcessEntry(name, parent, started, uid, cgroup, line, serves)


def _is_mps_server(directory: int, name: str, uid: int | None) -> bool:
    """Tell whether the process runs the MPS server, by its program's file, which must be root's.

    Any process can take the name. The file of a root's process is hidden from other users; its
    name then suffices, because only root gives it.
    """
    if name != MPS_SERVER[:COMM_LENGTH]:
        return False
    try:
        program = os.readlink("exe", dir_fd=directory).removesuffix(" (deleted)")
        return program.rpartition("/")[2] == MPS_SERVER and (
            os.stat("exe", dir_fd=directory).st_uid == 0
        )
    except OSError:
        return uid == 0


def read_arguments(command_line: int) -> tuple[str, ...]:
    """Return the arguments of a process from its open command line, and close that.

    A zombie and a kernel thread have none. Bytes that are no UTF-8 become U+FFFD.
    """
    try:
        content = os.read(command_line, MAX_COMMAND_LINE_BYTES)
    except OSError:
        return ()
    finally:
        os.close(command_line)
    arguments = content.decode("utf-8", "replace").rstrip("\0").split("\0")
    if len(content) == MAX_COMMAND_LINE_BYTES:
        arguments.pop()  # it may have been cut
    return tuple(arguments) if any(arguments) else ()


def display_name(name: str, arguments: Sequence[str]) -> str:
    """Return the name of the process, in full where the kernel cut it.

    Characters that are not printable become ``?``.
    """
    for argument in arguments[:2]:
        program = argument.rpartition("/")[2]
        cut = len(name) == COMM_LENGTH and program.startswith(name)
        if (
            (cut or name in _UNINFORMATIVE_NAMES)
            and _PROGRAM.fullmatch(program)
            and not looks_secret(program)
        ):
            return program
    return "".join(one if one.isprintable() else "?" for one in name)


@contextlib.contextmanager
def _open_directory(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(directory: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.read(descriptor, MAX_FILE_BYTES)
    finally:
        os.close(descriptor)


def _open_command_line(directory: int) -> int | None:
    try:
        return os.open("cmdline", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None


def _parsed_stat(stat: bytes) -> tuple[str, int, int]:
    """Return name, parent and start. The name may hold spaces, parentheses and line ends."""
    head, _, tail = stat.rpartition(b")")
    fields = tail.split()
    name = head.partition(b"(")[2].decode("utf-8", "replace")
    return name, int(fields[1]), int(fields[19])


def _parsed_uid(status: bytes) -> int:
    """Return the real uid. Each field is a line, and a name's own line ends are escaped in it."""
    uids = next(line for line in status.split(b"\n") if line.startswith(b"Uid:\t"))
    return int(uids.split()[1])
