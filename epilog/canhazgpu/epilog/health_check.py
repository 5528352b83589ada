"""Slurm's HealthCheckProgram: maintain this node's reservations on Slurm's own timer.

Runs as root; its environment has little more than SLURMD_NODENAME. Slurm ignores the exit status,
which is 0 unless ``--exit-code`` is given.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from canhazgpu.in_process.service import open_hook_service
from canhazgpu.node.exit import exit_now
from canhazgpu.service.jobs import CheckRequest

USAGE = """\
Usage: canhazgpu-healthcheck [--exit-code]

Slurm's HealthCheckProgram: publish this node's GPUs, release what is gone, put back what was lost.
With --exit-code it exits 1 where that failed; else always 0.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the node; the entry point of `canhazgpu-healthcheck`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given not in ([], ["--exit-code"]):
        print(USAGE, end="", file=sys.stderr)  # noqa: T201 - a command
        return 0 if given in (["-h"], ["--help"]) else 2
    answer = open_hook_service().check(CheckRequest(os.environ))
    exit_now(0 if answer.worked or not given else 1)


if __name__ == "__main__":
    sys.exit(main())
