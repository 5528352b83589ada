"""The store's ledger for a process on a node: checked against its book, or as the node's own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from canhazgpu.node.identity import boot_id, state_dir

if TYPE_CHECKING:
    from canhazgpu.config import Config
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.node.identity import NodeIdentity


def book_checked_ledger(node: str, config: Config, store: Ledger) -> Ledger:
    """Return the store's ledger, checked against what this node publishes of its book."""
    from canhazgpu.ledger.local.book.published_book import read_published  # noqa: PLC0415 - rarely needed
    from canhazgpu.ledger.local.book.served_boot import served_boot  # noqa: PLC0415
    from canhazgpu.ledger.local.published_ledger import PublishedLedger  # noqa: PLC0415

    boot = boot_id()
    served = served_boot(config.node, node, boot)
    directory = state_dir(config.node, node)
    return PublishedLedger(node, store, partial(read_published, directory, node, boot, served))


def identified_writer(node: str, config: Config, environ: Mapping[str, str]) -> Ledger:
    """Return the store's ledger for a node, which is refused where it is another cluster's."""
    from canhazgpu.ledger.store.connect import Role  # noqa: PLC0415 - only what changes the ledger needs them
    from canhazgpu.ledger.store.ledger import RedisLedger  # noqa: PLC0415

    return RedisLedger(config.store, Role.WRITE, identity=own_identity(node, config, environ))


def own_identity(node: str, config: Config, environ: Mapping[str, str]) -> NodeIdentity | None:
    """Return whose a node is, for what is refused where the node is another cluster's."""
    from dataclasses import replace  # noqa: PLC0415 - only what changes the ledger needs them

    from canhazgpu.node.identity import node_identity  # noqa: PLC0415
    from canhazgpu.schedulers.slurm.conf.node_conf import cluster_of_conf, conf_path  # noqa: PLC0415

    cluster = cluster_of_conf(conf_path(environ))
    own = node_identity(node, cluster, state_dir(config.node, node), boot_id())
    return replace(own, records=False) if own else None
