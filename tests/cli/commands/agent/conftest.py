"""A host on which systemd seems to run: a mount namespace with its directories in the test's."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

FAKE = Path(__file__).parents[3] / "support" / "fakes" / "systemctl"
PLACES = ("/etc/systemd/system", "/etc/tmpfiles.d")


@dataclass(frozen=True)
class SystemdHost:
    """`bin` has the systemctl that records its calls; `root` what is mounted over the host's."""

    directory: Path
    has_systemd: bool = True

    @property
    def bin(self) -> Path:
        return self.directory / "bin"

    @property
    def config(self) -> Path:
        return self.directory / "a config.toml"

    def place(self, path: str) -> Path:
        return self.directory / path.strip("/").replace("/", "-")

    @property
    def unit(self) -> Path:
        return self.place(PLACES[0]) / "canhazgpu-agent.service"

    @property
    def tmpfiles(self) -> Path:
        return self.place(PLACES[1]) / "canhazgpu.conf"

    def run(self, *args: str, systemd: bool = True) -> subprocess.CompletedProcess[str]:
        mounts = [f"mount --bind {shlex.quote(str(self.place(one)))} {one}" for one in PLACES]
        booted = ["mkdir -p /run/systemd/system"] if systemd else []
        words = [sys.executable, "-I", "-m", "canhazgpu.cli.main", "--config", str(self.config)]
        script = [
            *mounts,
            "mount -t tmpfs none /run",
            *booted,
            f"exec {shlex.join([*words, *args])}",
        ]
        return subprocess.run(
            ["unshare", "-m", "sh", "-ec", "\n".join(script)],
            env={"PATH": f"{self.bin}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def calls(self) -> list[str]:
        """The calls of systemctl since the last time."""
        file = self.bin / "calls"
        found = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return found

    @property
    def pid(self) -> int:
        return int((self.bin / "pid").read_text())

    def configure(self, **store: str) -> None:
        lines = [f'{name} = "{value}"' for name, value in store.items()]
        state = f'[node]\nname = "n1"\nstate_dir = "{self.directory}/state"\n'
        state += f'marker_dir = "{self.directory}/lib"\n'
        self.config.write_text("\n".join((state, "[store]", *lines, "")))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[SystemdHost]:
    if os.geteuid() != 0 or not shutil.which("systemd-tmpfiles"):
        pytest.skip("only root installs an agent, where systemd's directories are")
    made = SystemdHost(tmp_path / "host")
    for place in PLACES:
        made.place(place).mkdir(parents=True)
    made.bin.mkdir()
    shutil.copy(FAKE, made.bin / "systemctl")
    made.configure()
    yield made
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(made.pid, signal.SIGKILL)
