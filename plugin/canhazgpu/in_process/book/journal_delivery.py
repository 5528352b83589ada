"""Deliver the journal of a node to the store, for a process that is no hook."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from canhazgpu.errors import CanhazgpuError
from canhazgpu.ledger.local.book.journal import pending_entries
from canhazgpu.node.identity import boot_id, state_dir

if TYPE_CHECKING:
    from canhazgpu.config import Config
    from canhazgpu.ledger.port import Ledger


def deliver_pending_journal(node: str, config: Config, open_writer: Callable[[], Ledger]) -> None:
    """Send the store what hooks did without it, for a caller who may read the node's journal.

    What fails is left to the next hook, and is no reason for a command to fail.
    """
    directory = state_dir(config.node, node)
    with suppress(CanhazgpuError):
        if pending_entries(directory, node):
            deliver_journal(node, config, open_writer())


def deliver_journal(node: str, config: Config, store: Ledger) -> None:
    """Send the store the node's journal, and end the outage; raises `CanhazgpuError`."""
    from canhazgpu.ledger.local.book.book_file import BookFile  # noqa: PLC0415 - rarely needed
    from canhazgpu.ledger.local.book.served_boot import served_boot  # noqa: PLC0415
    from canhazgpu.ledger.local.jobs.job_records import JobRecords  # noqa: PLC0415
    from canhazgpu.ledger.local.outage import StoreOutage  # noqa: PLC0415
    from canhazgpu.ledger.local.reconcile import Reconciler  # noqa: PLC0415
    from canhazgpu.node.system_log import write_syslog  # noqa: PLC0415

    directory = state_dir(config.node, node)
    boot = boot_id()
    served = served_boot(config.node, node, boot)
    records = JobRecords(directory)
    book = BookFile(directory, node, boot, records, write_syslog, served=served)
    Reconciler(node, book, write_syslog, lambda _: False).deliver_journal(store)
    if StoreOutage(directory, config.store.retry_after_s).clear():
        book.publish()
