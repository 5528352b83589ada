"""Who holds a node's GPUs, as `status` reads it of the ledger, without a scan.

Run as a program on a node, with its name as the argument.
"""

from __future__ import annotations

import json
import os
import sys

from canhazgpu.errors import StoreError
from canhazgpu.in_process.adapters import Adapters
from canhazgpu.in_process.book.published_view import view_without_store
from canhazgpu.in_process.status.ledger_views import LedgerViews
from canhazgpu.service.status import StatusRequest


def held_gpus(node: str) -> dict[str, str | None]:
    """Return the reserved GPUs and the job that holds each."""
    adapters = Adapters(os.environ)
    config = adapters.effective_config().config
    try:
        view = LedgerViews(adapters, config, StatusRequest(), node).read([node])[node]
    except StoreError:
        view = view_without_store(node, config)
    return {gpu: one.claim.job_id for gpu, one in view.reservations.items()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(held_gpus(sys.argv[1])))
