"""Unix users for jobs: made where they are missing, removed by whoever made them."""

from __future__ import annotations

import fcntl
import os
import pwd
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from demo_cluster.errors import CommandFailed

USERADD_TIMEOUT_S = 60


def ensure_users(names: Iterable[str]) -> tuple[str, ...]:
    """Create the users that do not exist, without home; return those created."""
    with _one_at_a_time():
        missing = tuple(name for name in names if not user_exists(name))
        for name in missing:
            _administer("useradd", "--no-create-home", "--shell", "/bin/sh", name)
    return missing


def remove_users(created: Iterable[str]) -> None:
    """Remove users that `ensure_users` returned; one that is gone already is no error."""
    with _one_at_a_time():
        for name in created:
            if user_exists(name):
                _administer("userdel", name)


def user_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _administer(*command: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=USERADD_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise CommandFailed(f"{' '.join(command)}: {done.stderr.strip()}")


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Two useradd at once both succeed with the same name: they look before they lock."""
    directory = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)
