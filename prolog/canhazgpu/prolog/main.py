"""The prolog's entry point: a job without GPUs leaves before anything is imported."""

from __future__ import annotations

import os
import sys

from canhazgpu.schedulers.slurm.environment import JOB_GPUS


def main() -> int:
    """Reserve the job's GPUs; returns the exit status for slurmd."""
    if not os.environ.get(JOB_GPUS):
        return 0
    from canhazgpu.prolog.job_start import run  # noqa: PLC0415

    return run(os.environ)


if __name__ == "__main__":
    sys.exit(main())
