"""Start and end the daemons of one cluster: munged, slurmctld and a slurmd for each node."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from demo_cluster.errors import StartError
from demo_cluster.host.processes import Process, find_process, wait_until
from demo_cluster.layout import Layout

TERMINATE_TIMEOUT_S = 15
TAIL_LINES = 25


class Daemons:
    """Daemons by name, each in the foreground and in a session of its own.

    Their environment holds SLURM_CONF, which is how processes they leave behind are found.
    """

    def __init__(self, layout: Layout, env: Mapping[str, str]) -> None:
        self._layout = layout
        self._env = dict(env)
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self, name: str, argv: Sequence[str | Path], variables: Mapping[str, str] | None = None
    ) -> None:
        """Start a daemon whose console output goes to a file of its own."""
        with self._layout.console(name).open("ab") as console:
            self._started[name] = subprocess.Popen(
                [str(word) for word in argv],
                env={**self._env, **(variables or {})},
                cwd=self._layout.run,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )

    def is_running(self, name: str) -> bool:
        process = self._started.get(name)
        return process is not None and process.poll() is None

    def process(self, name: str) -> Process | None:
        return find_process(self._started[name].pid) if self.is_running(name) else None

    def require_running(self, name: str) -> None:
        """Raise with the log when a daemon that was started has ended."""
        if not self.is_running(name):
            raise StartError(f"{name} has ended\n{log_tail(self._layout, name)}")

    def stop(self, name: str, grace_s: float = TERMINATE_TIMEOUT_S) -> None:
        process = self._started.pop(name, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self, name: str) -> None:
        """End a daemon at once, as a crash would."""
        process = self._started.pop(name, None)
        if process is not None:
            process.kill()
            process.wait()

    def names(self) -> tuple[str, ...]:
        return tuple(self._started)


def munged_command(layout: Layout) -> list[str | Path]:
    return [
        "/usr/sbin/munged", "--foreground", "--force", "--num-threads=2",
        f"--key-file={layout.munge_key}",
        f"--socket={layout.munge_socket}",
        f"--pid-file={layout.pid_file('munged')}",
        f"--log-file={layout.log('munged')}",
        f"--seed-file={layout.run / 'munge.seed'}",
    ]  # fmt: skip


def slurmctld_command(layout: Layout, *, forget: bool) -> list[str | Path]:
    """`forget` starts without the jobs and node states that were saved."""
    command: list[str | Path] = ["/usr/sbin/slurmctld", "-D", "-f", layout.slurm_conf]
    return [*command, "-c"] if forget else command


def slurmd_command(layout: Layout, node: str, library_path: Path | None = None) -> list[str | Path]:
    command: list[str | Path] = ["/usr/sbin/slurmd", "-D", "-N", node, "-f", layout.slurm_conf]
    if library_path is not None:
        command = ["/usr/bin/env", f"LD_LIBRARY_PATH={library_path}", *command]
    return command


def with_mounts(argv: Sequence[str | Path], mounts: Mapping[str, Path]) -> list[str | Path]:
    """Return the command with mounts of its own: each directory is seen at the path given.

    What is in /dev/shm stays where it is: the caller's own files may be there.
    """
    command = list(argv)
    for seen_at, directory in mounts.items():
        mount = f'mount --rbind "$0" {seen_at} && exec "$@"'
        if seen_at == "/dev":
            mount = f'mkdir -p "$0/shm" && mount --bind /dev/shm "$0/shm" && {mount}'
        command = ["/bin/sh", "-c", mount, directory, *command]
    if not mounts:
        return command
    return ["/usr/bin/unshare", "--mount", "--propagation", "private", "--", *command]


def make_munge_key(layout: Layout) -> None:
    layout.munge_key.unlink(missing_ok=True)
    descriptor = os.open(layout.munge_key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(descriptor, "wb") as key:
        key.write(os.urandom(128))


def wait_for_munge(daemons: Daemons, layout: Layout, timeout_s: float) -> None:
    def ready() -> bool:
        daemons.require_running("munged")
        return layout.munge_socket.exists()

    if not wait_until(ready, timeout_s):
        raise StartError(f"munged made no socket\n{log_tail(layout, 'munged')}")


def log_tail(layout: Layout, daemon: str, lines: int = TAIL_LINES) -> str:
    """Return the ends of a daemon's log and of what it printed, headed by their paths."""
    return "\n".join(
        f"--- {path} ---\n" + "\n".join(read_log(path).splitlines()[-lines:])
        for path in (layout.log(daemon), layout.console(daemon))
        if path.exists()
    )


def read_log(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
