"""The prolog's entry point: a job without GPUs leaves before anything is imported."""

from __future__ import annotations

import os
import sys

from canhazgpu.schedulers.slurm.environment import JOB_GPUS


def main() -> int:
    """Reserve the job's GPUs; ends with the exit status for slurmd."""
    if not os.environ.get(JOB_GPUS):
        return 0
    from canhazgpu.schedulers.slurm.early import begin  # noqa: PLC0415

    begun = begin(os.environ)
    from canhazgpu.prolog.job_start import run  # noqa: PLC0415 - while the scan is under way
    from canhazgpu.schedulers.slurm.hook import leave  # noqa: PLC0415

    leave(run(os.environ, begun))


if __name__ == "__main__":
    sys.exit(main())
