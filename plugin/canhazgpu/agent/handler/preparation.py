"""What a spare handler does before its request comes: it reads what every hook reads.

Most of a handler's time is the first use of its memory, of which its parent's pages become its
own. Reading once in advance takes this part of it from the request, which reads everything anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from canhazgpu.deadline import hard_deadline
from canhazgpu.in_process.service import open_hook_service
from canhazgpu.schedulers.slurm.hook.node_context import open_node_context
from canhazgpu.schedulers.slurm.hook.startup import OPEN_DEADLINE_S


def prepare_handler(environ: Mapping[str, str]) -> None:
    """Open a hook's context, and forget it. It reads files, and asks nobody."""
    with contextlib.suppress(Exception), hard_deadline(OPEN_DEADLINE_S, of_running=True):
        open_hook_service()
        open_node_context(environ).ledger()
