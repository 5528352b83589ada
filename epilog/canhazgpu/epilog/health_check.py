"""Slurm's HealthCheckProgram: maintain this node's reservations on Slurm's own timer.

Runs as root; its environment has little more than SLURMD_NODENAME. Slurm ignores the exit status,
which is 0 unless ``--exit-code`` is given.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

from canhazgpu.in_process.service import open_hook_service
from canhazgpu.node.exit import exit_now
from canhazgpu.service.jobs import CheckRequest

USAGE = """\
Usage: canhazgpu-healthcheck [--exit-code]

Slurm's HealthCheckProgram: publish this node's GPUs, release what is gone, put back what was lost.
It exits with 0, whatever happens: a site's own check might take anything else for a fault of the
node. With --exit-code it says on standard error what it could not do:

Exit codes:
  0    done
  1    it could not be done; the reason is in the system's log, too
  2    wrong options
  4    the store (Redis) did not serve: nothing is published, and what changed meanwhile is sent
       to it later. No fault of this node: do not drain it for that

Examples:
  SLURMD_NODENAME=gpu01 canhazgpu-healthcheck --exit-code
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the node; the entry point of `canhazgpu-healthcheck`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given not in ([], ["--exit-code"]):
        print(USAGE, end="", file=sys.stderr)  # noqa: T201 - a command
        return 0 if given in (["-h"], ["--help"]) else 2
    gc.disable()  # it would search all imported modules, again and again, and hooks end soon
    answer = open_hook_service().check(CheckRequest(os.environ))
    if given and answer.exit_code:
        print(f"canhazgpu: {answer.fault}", file=sys.stderr)  # noqa: T201 - a command
    exit_now(answer.exit_code if given else 0)


if __name__ == "__main__":
    sys.exit(main())
