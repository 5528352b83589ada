"""What handlers have from their parent because it depends on nothing that a request brings.

The texts of the files are read anew for each request. What a text means is kept, and so is a
client of the store that has connected to nothing.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from pathlib import Path

from canhazgpu.config.schema import Config, StoreConfig
from canhazgpu.deadline import hard_deadline
from canhazgpu.ledger.embedded.directory import ServerDirectory
from canhazgpu.ledger.store.client import prepare_client
from canhazgpu.ledger.store.url import EMBEDDED, StoreUrl, parse_store_url
from canhazgpu.schedulers.slurm.conf.node_conf import conf_path, read_node_conf

READ_DEADLINE_S = 4.0
"""Longest time for Slurm's files, which may be on a slow share; handlers read them all the same."""


def fill_handler_cache(config: Config, node: str, environ: Mapping[str, str]) -> None:
    """Read Slurm's files once, and make a client of the store. What fails here fails there."""
    with contextlib.suppress(Exception), hard_deadline(READ_DEADLINE_S):
        read_node_conf(conf_path(environ), node, socket.gethostname().split(".")[0])
    with contextlib.suppress(Exception):
        prepare_client(_address(config.store), config.store.timeout_s)


def _address(store: StoreConfig) -> StoreUrl:
    if store.url != EMBEDDED:
        return parse_store_url(store.url)
    return StoreUrl("unix", path=str(ServerDirectory(Path(store.embedded_dir)).socket))
