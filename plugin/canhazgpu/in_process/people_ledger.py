"""The node's ledger for what people ask of its agent: the very one of its hooks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from canhazgpu.in_process.adapters import open_probe
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.hook.node_context import open_node_context
from canhazgpu.schedulers.slurm.hook.node_ledger import node_ledger
from canhazgpu.schedulers.slurm.hook.startup import StartedHook

if TYPE_CHECKING:
    from canhazgpu.config.schema import Config
    from canhazgpu.ledger.local.book_grants import Committer
    from canhazgpu.ledger.local.fallback_ledger import FallbackLedger


def people_ledger(
    node: str,
    config: Config,
    environ: Mapping[str, str],
    log: Callable[[str], None],
    committer: Committer,
) -> FallbackLedger:
    """Return the ledger of this node, which root alone can use; nothing is opened yet.

    `environ` tells where Slurm's files are. `log` gets lines for the administrator. `committer` is
    this process: a fork opens a ledger of its own. Raises `ConfigError` where Slurm's files cannot
    be read: then nobody knows which jobs are the node's.
    """
    probe = open_probe(node, config, environ)
    started = StartedHook(time.monotonic(), False, config, None, probe)
    context = open_node_context({**environ, names.NODE_NAME: node}, started)
    if context.config_fault is not None:
        raise context.config_fault
    return node_ledger(context, log, committer)
