"""The Unix users of one demonstration: its own, whoever else is on the host."""

from __future__ import annotations

import pwd
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path

from demo_cluster import CommandFailed, ensure_users, remove_users
from demo_cluster.host.processes import running_processes, terminate_all

MAX_NAME_ATTEMPTS = 50
TERMINATE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class DemoUsers:
    """Two who use Slurm, and one who does not."""

    alice: str
    bob: str
    carol: str

    def names(self) -> tuple[str, ...]:
        return astuple(self)


def create_user(name: str) -> str:
    """Create a user; where the name is taken, by a person or another demonstration, alice-2."""
    for number in range(1, MAX_NAME_ATTEMPTS):
        candidate = name if number == 1 else f"{name}-{number}"
        if ensure_users([candidate]):
            return candidate
    raise CommandFailed(f"no user like {name} could be created: all names are taken")


def delete_users(created: Iterable[str]) -> None:
    """End what these users still run, and remove them. Only for users that were made here."""
    uids = {entry.pw_uid for entry in pwd.getpwall() if entry.pw_name in created}
    terminate_all(
        [process for process in running_processes() if owner_uid(process.pid) in uids],
        TERMINATE_TIMEOUT_S,
    )
    remove_users(created)


def owner_uid(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None
