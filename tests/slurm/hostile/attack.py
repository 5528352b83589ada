"""What a job's own code tries against the node; prints what it could do, one line each.

`python -I attack.py STATE_DIR HOME JOB PID…`: the node's directory of state, the user's home, the
job's number, and processes that are not the user's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

PTRACE_SEIZE = 0x4206
RECORD = '{"format": 1, "gpus": []}'


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def tries(name: str, deed: Callable[[], object]) -> None:
    try:
        deed()
    except OSError:
        return
    say(name)


def seize(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(PTRACE_SEIZE, pid, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def against_file(path: Path, home: Path) -> None:
    tries(f"appends to {path}", lambda: path.open("ab").close())
    tries(f"truncates {path}", lambda: os.truncate(path, 0))
    tries(f"changes the mode of {path}", lambda: path.chmod(0o666))
    tries(f"owns {path}", lambda: os.chown(path, os.getuid(), -1))
    tries(f"sets the times of {path}", lambda: os.utime(path, (0, 0)))
    tries(f"links {path}", lambda: (home / "hard").hardlink_to(path))
    tries(f"renames {path}", lambda: path.rename(path.with_name("x")).rename(path))
    tries(f"replaces {path}", lambda: (home / "mine").replace(path))
    tries(f"removes {path}", path.unlink)


def against_directory(path: Path, home: Path) -> None:
    tries(f"writes in {path}", lambda: (path / "new").write_text(RECORD))
    tries(f"links in {path}", lambda: (path / "link").symlink_to(home))
    tries(f"makes a pipe in {path}", lambda: os.mkfifo(path / "pipe"))
    tries(f"makes a directory in {path}", (path / "directory").mkdir)
    tries(f"changes the mode of {path}", lambda: path.chmod(0o777))
    tries(f"renames {path}", lambda: path.rename(path.with_name("moved")).rename(path))
    tries(f"removes {path}", lambda: shutil.rmtree(path))


def against_process(pid: int) -> None:
    for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        tries(f"sends {number.name} to {pid}", lambda number=number: os.kill(pid, number))
    tries(f"traces {pid}", lambda: seize(pid))
    tries(f"reads the environment of {pid}", Path(f"/proc/{pid}/environ").read_bytes)
    tries(f"writes the memory of {pid}", lambda: Path(f"/proc/{pid}/mem").open("r+b").close())
    tries(f"looks at the files of {pid}", lambda: list(Path(f"/proc/{pid}/fd").iterdir()))
    tries(f"enters the root of {pid}", lambda: list(Path(f"/proc/{pid}/root/").iterdir()))
    tries(f"limits {pid}", lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, 3)))
    tries(f"slows {pid}", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
    tries(f"binds {pid}", lambda: os.sched_setaffinity(pid, {0}))
    tries(f"has {pid} killed first", lambda: _write(f"/proc/{pid}/oom_score_adj", "1000"))


def _write(path: str, text: str) -> None:
    with Path(path).open("w") as stream:
        stream.write(text)


def main() -> None:
    state, home, job = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    (home / "mine").write_text(RECORD)
    tries("", (state / "jobs" / f"{job}.json").read_bytes)
    for path in (*sorted(state.rglob("*"), reverse=True), state):
        if path.is_socket():
            tries(f"removes {path}", path.unlink)
        elif path.is_dir():
            against_directory(path, home)
        else:
            against_file(path, home)
    for pid in map(int, sys.argv[4:]):
        against_process(pid)
    # What is left are the user's own processes: none of them may matter to anybody else.
    with contextlib.suppress(OSError):
        os.kill(-1, signal.SIGCONT)
    say("tried")


main()
