"""The epilog's entry point."""

from __future__ import annotations

import gc
import os
import sys

from canhazgpu.in_process.service import open_hook_service
from canhazgpu.node.exit import exit_now
from canhazgpu.service.jobs import JobEnd


def main() -> int:
    """Release the job's GPUs; exits with the status for slurmd."""
    gc.disable()  # it would search all imported modules, again and again, and hooks end soon
    exit_now(open_hook_service().job_end(JobEnd(os.environ)).exit_status)


if __name__ == "__main__":
    sys.exit(main())
