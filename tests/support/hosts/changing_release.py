"""A release of which another takes the place while an agent runs from it."""

from __future__ import annotations

import itertools
from pathlib import Path

from hosts.running_agent import RunningAgent
from polling import poll_until

CHANGES = """
import pathlib as _pathlib
import canhazgpu.cli.version as _version
import canhazgpu.agent.reexecution.upgrade as _upgrade
_directory = _pathlib.Path({directory!r})
_version.__file__ = str(_directory / "version")
_version.VERSION = (_directory / "version").read_text()
if _version.VERSION.startswith("broken"):
    raise SystemExit("Error: a fault of " + _version.VERSION)
_upgrade.LOOK_S = _upgrade.SETTLING_LOOK_S = 0.1
_upgrade.STILL_S = _upgrade.GONE_S = 0.3
_upgrade.TELL_AFTER_S = 0.0
_upgrade.RETRY_S = {retry_s}
_upgrade.QUIET_WAIT_S = 2.0
exec((_directory / "more").read_text())
"""


class ChangingRelease:
    """What is installed, as an agent with these `changes` sees it; a look is made every 0.1 s."""

    def __init__(self, directory: Path, more: str = "", retry_s: float = 3600.0) -> None:
        directory.mkdir()
        self._file = directory / "version"
        self._numbers = itertools.count()
        self.changes = CHANGES.format(directory=str(directory), retry_s=retry_s)
        self.change_code(more)
        self.install("1.0")

    def change_code(self, more: str) -> None:
        """Python that the next release runs first."""
        self._file.with_name("more").write_text(more)

    def install(self, release: str) -> None:
        """Replace it, as an installer does: by a new file."""
        draft = self._file.with_name(f"draft{next(self._numbers)}")
        draft.write_text(release)
        draft.replace(self._file)

    def uninstall(self) -> None:
        self._file.unlink()


def wait_for_release(agent: RunningAgent, release: str) -> None:
    """Wait until the agent is of this release."""
    poll_until(lambda: agent.status()["release"] == release, f"release {release}")


def wait_for_execution(agent: RunningAgent, times: int = 1) -> None:
    """Wait until the agent has executed itself so often."""
    poll_until(lambda: agent.status()["executions"] >= times, f"execution {times}")
