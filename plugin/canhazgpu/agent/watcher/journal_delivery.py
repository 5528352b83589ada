"""Deliver the node's journal as soon as the store answers, without waiting for a hook to do it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from canhazgpu.config.schema import Config, StoreConfig
from canhazgpu.errors import CanhazgpuError, error_text
from canhazgpu.in_process.node_book import deliver_journal, identified_writer
from canhazgpu.ledger.local.book.journal import pending_entries
from canhazgpu.logfmt import log_line
from canhazgpu.node.identity import state_dir
from canhazgpu.node.system_log import DAEMON_INFO, write_syslog

FIRST_WAIT_S = 0.5
"""Between the first two tries; it doubles up to `store.retry_after_s`."""


class JournalDelivery:
    """The delivery of one node's journal; see `Duty`.

    `environ` tells where Slurm's files are, which name the cluster. `read_config` reads the
    configuration anew for each try: an administrator may have mended it.
    """

    def __init__(
        self, node: str, environ: Mapping[str, str], read_config: Callable[[], Config]
    ) -> None:
        self._node = node
        self._environ = environ
        self._read_config = read_config
        self._wait_s = 0.0
        self._longest_wait_s = StoreConfig().retry_after_s
        self._told = ""

    def run(self) -> float | None:
        """Try once; None where the journal is empty."""
        try:
            config = self._read_config()
            self._longest_wait_s = config.store.retry_after_s
            pending = len(pending_entries(state_dir(config.node, self._node), self._node))
            if not pending:
                return None
            store = identified_writer(self._node, config, self._environ)
            deliver_journal(self._node, config, store)
        except CanhazgpuError as exc:
            return self._later(error_text(exc))
        except Exception as exc:
            # Whatever a server that is none of ours has answered.
            return self._later(f"internal error: {type(exc).__name__}: {exc} (please report this)")
        write_syslog(log_line("journal-delivered", node=self._node, entries=pending), DAEMON_INFO)
        # What was added meanwhile.
        return 0.0

    def _later(self, why: str) -> float:
        if why != self._told:
            write_syslog(log_line("journal-waits", node=self._node, reason=why))
            self._told = why
        self._wait_s = min(self._wait_s * 2 or FIRST_WAIT_S, self._longest_wait_s)
        return self._wait_s
