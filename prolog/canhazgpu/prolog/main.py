"""The prolog's entry point. For a job without GPUs it exits before it imports anything."""

from __future__ import annotations

import gc
import os
import sys

from canhazgpu.schedulers.slurm.environment import JOB_GPUS


def main() -> int:
    """Reserve the job's GPUs; exits with the status for slurmd."""
    if not os.environ.get(JOB_GPUS):
        return 0
    gc.disable()  # it would search all imported modules, again and again, and hooks end soon
    from canhazgpu.in_process.service import open_hook_service  # noqa: PLC0415 - jobs with GPUs
    from canhazgpu.node.exit import exit_now  # noqa: PLC0415
    from canhazgpu.service.jobs import JobStart  # noqa: PLC0415

    exit_now(open_hook_service().job_start(JobStart(os.environ)).exit_status)


if __name__ == "__main__":
    sys.exit(main())
