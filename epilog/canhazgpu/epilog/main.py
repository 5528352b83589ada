"""The epilog's entry point; a job without GPUs leaves after one look for a record of it."""

from __future__ import annotations

import os
import sys

from canhazgpu.schedulers.slurm.environment import JOB_GPUS


def main() -> int:
    """Release the job's GPUs; ends with the exit status for slurmd."""
    if not os.environ.get(JOB_GPUS):
        from canhazgpu.epilog.no_gpus import has_nothing_to_end  # noqa: PLC0415 - as below

        if has_nothing_to_end(os.environ):
            return 0
    from canhazgpu.epilog.job_end import run  # noqa: PLC0415 - one place for what a hook imports
    from canhazgpu.schedulers.slurm.hook import leave  # noqa: PLC0415

    leave(run(os.environ))


if __name__ == "__main__":
    sys.exit(main())
