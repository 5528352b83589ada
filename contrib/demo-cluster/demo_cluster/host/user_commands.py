"""Run one command as a Unix user, in an environment of our own, always with a timeout."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def login_environment(user: str, home: Path) -> dict[str, str]:
    """What a login gives; nothing of the caller's environment leaks in."""
    return {
        "PATH": SEARCH_PATH,
        "HOME": str(home),
        "USER": user,
        "LOGNAME": user,
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
    }


def popen_as(
    user: str, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdin: int | None = None
) -> subprocess.Popen[str]:
    """Start a command as `user` with all the user's groups, leading a session of its own."""
    account = pwd.getpwnam(user)
    return subprocess.Popen(
        argv,
        env=env,
        cwd=cwd,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL if stdin is None else stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        **_change_of_user(account),
    )


def _change_of_user(account: pwd.struct_passwd) -> dict[str, Any]:
    """Return what `Popen` is to change for this user, nothing for our own.

    Python forks for any change, and copies the page tables of all its memory: with tests of 200 MB
    a command of root's, which are most, took five times as long to start.
    """
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    if (os.getresuid(), os.getresgid()) == ((account.pw_uid,) * 3, (account.pw_gid,) * 3) and set(
        os.getgroups()
    ) <= set(groups):
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}


def run_as(
    user: str,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    timeout_s: float,
    stdin_text: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run to the end; past `timeout_s` kill the process group and raise TimeoutExpired."""
    stdin = None if stdin_text is None else subprocess.PIPE
    process = popen_as(user, argv, env=env, cwd=cwd, stdin=stdin)
    try:
        out, err = process.communicate(stdin_text, timeout=timeout_s)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(list(argv), process.returncode, out, err)
