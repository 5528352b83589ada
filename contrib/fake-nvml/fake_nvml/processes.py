"""Real processes that hold memory on simulated GPUs."""

from __future__ import annotations

import atexit
import contextlib
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType

from fake_nvml.devices import FakeDevice
from fake_nvml.state_files import make_directory


def start_time(pid: int) -> int:
    """When a process started: field 22 of /proc/PID/stat, in clock ticks since boot."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[19])


class Process:
    """A real process that holds memory on simulated GPUs until it ends; a context manager."""

    __slots__ = ("_popen", "start")

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self.start = start_time(popen.pid)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self.exit_status is None

    @property
    def exit_status(self) -> int | None:
        """How it ended, as Popen gives it: -9 is SIGKILL; None while it runs."""
        return self._popen.poll()

    def occupy(self, gpu: FakeDevice, memory_mb: int | None, *, kind: str = "C") -> None:
        """Announce the process on one more device."""
        gpu.add_process(self.pid, memory_mb, kind=kind, start=self.start)

    def kill(self, signal_number: int = signal.SIGKILL) -> int:
        """End the process, wait for it and return its exit status as Popen gives it."""
        if self.alive:
            self._popen.send_signal(signal_number)
        return self.wait(timeout_s=10)

    def wait(self, timeout_s: float | None = None) -> int:
        return self._popen.wait(timeout_s)

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()


def start_gpu_process(
    gpu: FakeDevice,
    memory_mb: int | None,
    user: str | int | None = None,
    name: str = "python3",
    seconds: float | None = None,
    *,
    kind: str = "C",
) -> Process:
    """Start a real process that appears on the GPU and is gone from it when it ends.

    `user` needs root. `name` is what ps shows. Without `seconds` it stays until it is killed, at
    the latest when this interpreter exits.
    """
    # A directory given as cwd need not be reachable for the user, so a private one will do.
    programs = gpu.path.parents[_depth(gpu)] / ".programs"
    make_directory(programs)
    command = Path(name).name
    with contextlib.suppress(FileExistsError):
        (programs / command).symlink_to(shutil.which("sleep", path="/usr/bin:/bin") or "/bin/sleep")
    account = None if user is None else _account(user)
    popen = subprocess.Popen(
        [name, "infinity" if seconds is None else str(seconds)],
        executable=f"./{command}",
        cwd=programs,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        user=None if account is None else account.pw_uid,
        group=None if account is None else account.pw_gid,
        extra_groups=None if account is None else [],
    )
    process = Process(popen)
    atexit.register(_end, popen)
    process.occupy(gpu, memory_mb, kind=kind)
    return process


def _depth(gpu: FakeDevice) -> int:
    """How many directories below the state's root a device lies, less one."""
    return 4 if "/" in gpu.label else 2


def _account(user: str | int) -> pwd.struct_passwd:
    return pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)


def _end(popen: subprocess.Popen[bytes]) -> None:
    if popen.poll() is None:
        popen.kill()
        popen.wait()
