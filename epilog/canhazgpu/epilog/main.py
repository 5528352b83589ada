"""The epilog's entry point; a job without GPUs leaves after one look for a record of it."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Release the job's GPUs; returns the exit status for slurmd."""
    from canhazgpu.epilog.job_end import run  # noqa: PLC0415 - one place for what a hook imports

    return run(os.environ)


if __name__ == "__main__":
    sys.exit(main())
