"""Ask systemd to enable, start and stop units, through its own programs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from canhazgpu.errors import AgentError

RUNNING = Path("/run/systemd/system")
"""Exists where systemd is the init system: sd_booted(3)."""
COMMAND_TIMEOUT_S = 180.0
"""More than a unit's own TimeoutStopSec= and TimeoutStartSec=."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Systemd:
    """systemd of this host, or of an image, where units can be enabled and not started.

    `commands` are those that were run.
    """

    def __init__(self, root: Path, environ: Mapping[str, str]) -> None:
        self._root = root
        self._path = environ.get("PATH", DEFAULT_PATH)
        self.commands: list[Sequence[str]] = []
        self.is_image = root != Path("/")
        has_systemctl = shutil.which("systemctl", path=self._path) is not None
        self.starts_units = not self.is_image and has_systemctl and RUNNING.is_dir()
        self.enables_units = self.starts_units or (self.is_image and has_systemctl)

    def is_active(self, unit: str) -> bool:
        """Return whether systemd runs the unit, or is starting it."""
        return self.starts_units and self._status("is-active", "--quiet", unit) == 0

    def reload(self) -> None:
        """Have systemd read its units anew; raises `AgentError`, as all that follow."""
        if self.starts_units:
            self._run("systemctl", "daemon-reload")

    def make_directories(self, tmpfiles: Path) -> None:
        """Make the directories of an entry of tmpfiles.d, as the next boot will."""
        if self.starts_units and shutil.which("systemd-tmpfiles", path=self._path):
            self._run("systemd-tmpfiles", "--create", str(tmpfiles))

    def enable(self, units: Sequence[str]) -> None:
        """Have the units started at each boot."""
        if self.enables_units:
            self._run("systemctl", *self.image_option, "enable", *units)

    def start(self, unit: str, *, anew: bool = False) -> None:
        """Start the unit and wait until it serves; `anew` ends a running one first."""
        self._run("systemctl", "restart" if anew else "start", unit)

    def reload_unit(self, unit: str) -> None:
        """Have the running unit reload, as its own text says, and wait until it has."""
        self._run("systemctl", "reload", unit)

    def remove(self, units: Sequence[str]) -> None:
        """Stop the units, and have them started no more."""
        if self.enables_units and units:
            now = ("--now",) if self.starts_units else ()
            self._run("systemctl", *self.image_option, "disable", *now, *units)

    @property
    def image_option(self) -> tuple[str, ...]:
        """The option by which systemctl works on the image."""
        return (f"--root={self._root}",) if self.is_image else ()

    def _status(self, *arguments: str) -> int:
        return self._done("systemctl", *arguments).returncode

    def _run(self, *command: str) -> None:
        done = self._done(*command)
        self.commands.append(command)
        if done.returncode != 0:
            said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
            raise AgentError(
                f"'{' '.join(command)}' failed: {said}",
                next_step=f"'journalctl -u {command[-1]}' tells why"
                if command[-1].endswith(".service")
                else "",
            )

    def _done(self, *command: str) -> subprocess.CompletedProcess[str]:
        program = shutil.which(command[0], path=self._path) or command[0]
        try:
            return subprocess.run(
                [program, *command[1:]],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                env={"PATH": self._path, "LC_ALL": "C"},
                timeout=COMMAND_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise AgentError(f"'{' '.join(command)}' failed: {exc}", next_step="") from exc
