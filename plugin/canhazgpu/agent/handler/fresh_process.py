"""Make a forked child a process that has nothing of its parent but the imported modules."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from collections.abc import Collection, Mapping

from canhazgpu.node.daemonize import close_descriptors_except

GC_THRESHOLD = 200_000
"""Objects made and not freed until the garbage collector runs: more than most requests make."""
RESET_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGCHLD,
    signal.SIGALRM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGQUIT,
)


def become_fresh(keep: Collection[int]) -> None:
    """Leave the parent's session, signals, descriptors, environment and output behind.

    The descriptors `keep` stay open; their numbers are above 2.
    """
    # It ends soon: a collection would find little, and touch pages that it shares with its parent.
    gc.set_threshold(GC_THRESHOLD)
    signal.set_wakeup_fd(-1)
    for number in RESET_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setsid()
    close_descriptors_except(keep)
    os.chdir("/")
    renew()


def renew() -> None:
    """Leave the environment, the arguments and the output of the request before behind."""
    os.environ.clear()
    sys.argv = ["canhazgpu-agent"]
    sys.stdin, sys.stdout, sys.stderr = io.StringIO(), io.StringIO(), io.StringIO()


def use_environment(environ: Mapping[str, str]) -> None:
    """Make this the environment of the process, for libraries and for what it starts."""
    os.environ.clear()
    os.environ.update(environ)
